//! The clocks that the eBPF programs compare with.

use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};

/// Nanoseconds on the clock of `bpf_ktime_get_coarse_ns`: the same before and after a restart of the controller, and
/// not moved by whoever sets the time of day. The fine clock is up to a tick ahead of it: a time taken from that one
/// would lie in the programs' future.
pub(crate) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// How long one jiffy lasts. The coarse clocks step once a jiffy and say so, which spares guessing `CONFIG_HZ`.
pub(crate) fn tick_ns() -> u64 {
    const SLOWEST_TICK_NS: u64 = 10_000_000;
    match clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from) {
        Ok(tick) if !tick.is_zero() => tick.as_nanos() as u64,
        _ => SLOWEST_TICK_NS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_between_one_and_ten_milliseconds() {
        assert!((900_000..=10_000_000).contains(&tick_ns()), "{}", tick_ns());
    }
}
