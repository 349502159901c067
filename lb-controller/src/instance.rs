//! Where one edge on this host keeps what is not configuration: its pins and its runtime folder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The name of one edge on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

impl Instance {
    /// `/sys/fs/bpf/NAME`: pinned links and maps, which outlive the controller.
    pub fn pin_root(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(&self.0)
    }

    /// `/run/NAME`, or a folder of the user's own without root: the admin socket.
    pub fn runtime_dir(&self) -> PathBuf {
        if nix::unistd::geteuid().is_root() {
            return PathBuf::from("/run").join(&self.0);
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) => PathBuf::from(dir).join(&self.0),
            None => std::env::temp_dir().join(format!("{}-{}", self.0, nix::unistd::geteuid())),
        }
    }

    /// Where a new controller takes over from the one that runs.
    pub fn handover_socket(&self) -> PathBuf {
        self.runtime_dir().join("handover.sock")
    }

    /// The unix socket that the CLI talks to; only the controller's own user may open it.
    pub fn admin_socket(&self) -> PathBuf {
        self.runtime_dir().join("admin.sock")
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Instance {
    type Err = String;

    /// The name becomes part of paths, so it is held to letters, digits and hyphens.
    fn from_str(name: &str) -> Result<Instance, String> {
        let fits = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if fits && !name.starts_with('-') {
            Ok(Instance(name.to_owned()))
        } else {
            Err("use 1 to 32 letters, digits and hyphens, such as lb or lb-demo".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_its_folder_is_refused() {
        for name in ["", "..", "a/b", "-x", "a b", &"x".repeat(33)] {
            assert!(name.parse::<Instance>().is_err(), "{name:?}");
        }
        assert_eq!("lb-demo".parse::<Instance>().unwrap().pin_root(), PathBuf::from("/sys/fs/bpf/lb-demo"));
    }
}
