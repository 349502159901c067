//! What the kernel's TCP is set to, as far as SYN cookies depend on it. Settings of the calling thread's network
//! namespace, read once at the start.

use std::fs;

/// `net.ipv4.tcp_syncookies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieSetting {
    /// The kernel takes none, so XDP sends none.
    Never,
    /// It takes them for two minutes after the queue of a listener was full: XDP begins to answer then.
    WhenFull,
    /// It takes them whenever XDP says that they are about.
    Always,
}

/// What XDP may promise in the kernel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTcp {
    pub cookies: CookieSetting,
    /// `net.ipv4.tcp_timestamps` is 2: a client's repeated timestamp brings window scale and selective acknowledgements
    /// back. Without it connections begun with a cookie do without both.
    pub plain_timestamps: bool,
    /// The scale of its receive windows.
    pub window_scale: u8,
}

impl KernelTcp {
    pub(crate) fn read() -> Self {
        let cookies = match number("/proc/sys/net/ipv4/tcp_syncookies", 0) {
            Some(0) => CookieSetting::Never,
            Some(2) => CookieSetting::Always,
            // A kernel that does not say has the default.
            _ => CookieSetting::WhenFull,
        };
        let receive_bytes = number("/proc/sys/net/ipv4/tcp_rmem", 2).unwrap_or(0);
        // Outside the first namespace it is hidden, and smaller than the other unless somebody has raised it.
        let largest_bytes = number("/proc/sys/net/core/rmem_max", 0).unwrap_or(0);
        Self {
            cookies,
            plain_timestamps: number("/proc/sys/net/ipv4/tcp_timestamps", 0) == Some(2),
            window_scale: window_scale(receive_bytes.max(largest_bytes)),
        }
    }
}

/// As the kernel's `tcp_select_initial_window` chooses it.
fn window_scale(receive_bytes: u64) -> u8 {
    const BITS_WITHOUT_SCALE: u32 = 15;
    const LARGEST: u32 = 14;
    receive_bytes.max(1).ilog2().saturating_sub(BITS_WITHOUT_SCALE).min(LARGEST) as u8
}

fn number(file: &str, index: usize) -> Option<u64> {
    fs::read_to_string(file).ok()?.split_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_scale_is_the_kernels() {
        // The third value of tcp_rmem, and the scale that Linux announces with it.
        for (receive_bytes, expected) in [(0, 0), (65_535, 0), (131_072, 2), (6_291_456, 7), (33_554_432, 10)] {
            assert_eq!(window_scale(receive_bytes), expected, "{receive_bytes}");
        }
        assert_eq!(window_scale(u64::MAX), 14);
    }
}
