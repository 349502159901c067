//! Interfaces of the calling thread's network namespace.

use std::fs;

use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::error::LoadError;

/// The kernel's number of the interface.
pub(crate) fn index_of(name: &str) -> Result<u32, LoadError> {
    if_nametoindex(name).map_err(|_| LoadError::NoInterface { name: name.to_owned(), present: names() })
}

/// `None` if no interface has the name.
pub(crate) fn present_index(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

/// The name of the interface with this number, or the number itself where it is gone.
pub(crate) fn name_of(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("#{index}"))
}

/// The largest IP packet that the interface takes; `None` if that is not known. From /proc, which knows the thread's
/// namespace; the value is IPv6's, never above the interface's own.
pub(crate) fn mtu_bytes(name: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/mtu")).ok()?.trim().parse().ok()
}

/// From /proc, because /sys/class/net shows the namespace it was mounted in, not the thread's.
fn names() -> Vec<String> {
    parse_names(&fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default())
}

fn parse_names(table: &str) -> Vec<String> {
    const HEADER_LINES: usize = 2;
    let lines = table.lines().skip(HEADER_LINES);
    lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_table_of_devices() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\nveth0.7:  4 5 6\n";
        assert_eq!(parse_names(table), ["lo", "veth0.7"]);
    }

    #[test]
    fn an_absent_interface_is_refused_with_those_that_exist() {
        let Err(LoadError::NoInterface { name, present }) = index_of("no-such-if") else { panic!("found") };
        assert_eq!(name, "no-such-if");
        assert!(present.contains(&String::from("lo")), "{present:?}");
    }
}
