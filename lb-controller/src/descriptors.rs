//! What this process has of the host's, and what its want of that looks like.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// Whether a connection could not be made for want of descriptors, ports or memory here. That tells nothing of who was to be
/// connected to.
pub(crate) fn is_want_of_our_own(error: &io::Error) -> bool {
    let wants = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| wants.contains(&Errno::from_raw(code)))
}

/// How many this process may have open; as many as can be counted where that is not limited, or not known.
pub(crate) fn most() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(most, _)| usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_does_is_no_want_of_our_own() {
        for (error, expected) in [
            (Errno::EMFILE, true),
            (Errno::EADDRNOTAVAIL, true),
            (Errno::ECONNREFUSED, false),
            (Errno::EHOSTUNREACH, false),
        ] {
            assert_eq!(is_want_of_our_own(&error.into()), expected, "{error}");
        }
        assert!(!is_want_of_our_own(&io::ErrorKind::TimedOut.into()));
        assert!(most() > 0);
    }
}
