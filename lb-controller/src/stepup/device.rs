//! Browsers that have proved themselves before. They keep attempt counters of their own, so that nobody who guesses at
//! an account from elsewhere locks its owner out.

use http::{HeaderMap, HeaderValue};

use super::cookies::{self, Found, Keep};
use super::random_id::RandomId;
use super::seal::{Purpose, Sealer};

/// A browser known for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) id: RandomId,
    user: String,
    /// It has proved more than a password. Only then may it skip the line at a step-up: a stolen password makes a device.
    pub(super) stepped_up: bool,
}

/// As long as a sealing key is sure to be read.
const KEEP_SECONDS: u64 = 30 * 24 * 3600;

impl Device {
    /// The known device of `user` that sent `headers`.
    pub(super) fn of_user(sealer: &Sealer, headers: &HeaderMap, host: &str, user: &str) -> Option<Device> {
        Device::of_anybody(sealer, headers, host).filter(|device| device.is_of(user))
    }

    /// The device that sent `headers`, whoever's it is.
    pub(super) fn of_anybody(sealer: &Sealer, headers: &HeaderMap, host: &str) -> Option<Device> {
        let Found::Once(text) = cookies::find(headers, cookies::DEVICE) else { return None };
        let plain = sealer.open_sealed(Purpose::Device, host, text)?;
        let (head, name) = plain.split_first_chunk::<17>()?;
        Some(Device {
            id: RandomId::from_bytes(*head.first_chunk()?),
            user: str::from_utf8(name).ok()?.to_owned(),
            stepped_up: head[16] == 1,
        })
    }

    pub(super) fn is_of(&self, user: &str) -> bool {
        self.user == user
    }

    pub(super) fn new(user: &str) -> Device {
        Device { id: RandomId::new(), user: user.to_owned(), stepped_up: false }
    }

    /// The same device, once it has proved more than a password.
    pub(super) fn after_step_up(self) -> Device {
        Device { stepped_up: true, ..self }
    }

    pub(super) fn cookie(&self, sealer: &Sealer, host: &str) -> HeaderValue {
        let plain = [&self.id.bytes()[..], &[u8::from(self.stepped_up)], self.user.as_bytes()].concat();
        cookies::set(cookies::DEVICE, &sealer.seal(Purpose::Device, host, &plain), Keep::Seconds(KEEP_SECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_only_for_its_own_user_at_its_own_host() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(directory.path(), 0).unwrap();
        let device = Device::new("alice").after_step_up();
        let cookie = device.cookie(&sealer, "shop.example");
        let mut headers = HeaderMap::new();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        headers.insert(http::header::COOKIE, HeaderValue::from_str(pair).unwrap());
        assert_eq!(Device::of_user(&sealer, &headers, "shop.example", "alice"), Some(device));
        assert_eq!(Device::of_user(&sealer, &headers, "shop.example", "bob"), None);
        assert_eq!(Device::of_user(&sealer, &headers, "blog.example", "alice"), None);
    }
}
