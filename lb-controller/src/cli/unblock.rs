//! `lb-controller unblock`: for the source that was blocked wrongly.

use std::net::IpAddr;

use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// An address of the source, or the source as `status` shows it (198.51.100.7/32, 2001:db8::/64).
    #[arg(value_name = "SOURCE", value_parser = address)]
    source: IpAddr,
}

/// The prefix length says nothing new: a source is one IPv4 address or one IPv6 /64.
fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.strip_suffix("/32").or_else(|| text.strip_suffix("/64")).unwrap_or(text);
    address.parse().map_err(|_| format!("{text:?} is no address; write it as `lb-controller status` shows it"))
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    match client::post::<_, bool>(instance, "/v1/unblock", &arguments.source) {
        Ok(true) => say!("{} is no longer blocked", arguments.source),
        Ok(false) => say!("{} was not blocked", arguments.source),
        Err(error @ AskError::NotRunning { .. }) => return Err(Failure::new(ExitKind::NotRunning, error)),
        Err(error) => return Err(Failure::new(ExitKind::Other, error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn a_source_is_taken_as_status_shows_it() {
        for (text, expected) in [
            ("198.51.100.7/32", Some("198.51.100.7")),
            ("2001:db8::/64", Some("2001:db8::")),
            ("::1", Some("::1")),
            ("x", None),
        ] {
            assert_eq!(address(text).ok().map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }
}
