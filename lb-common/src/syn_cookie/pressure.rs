//! When a service's SYNs are answered with cookies.

use crate::types::{CookieCounters, CookiePolicy, CookieState, Limit};

/// A service's own choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SynCookies {
    /// Never.
    #[default]
    Off,
    /// While more than so many SYNs come a second, and over a limit of sources that have proven nothing.
    Auto { threshold_syns_per_second: u32 },
    /// Each. The threshold still says from when on packets without a connection are dropped.
    Always { threshold_syns_per_second: u32 },
}

impl SynCookies {
    /// As the configuration and the listings write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto { .. } => "auto",
            Self::Always { .. } => "always",
        }
    }
}

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
/// A page's connections open together: above the threshold for this long is no pressure yet.
const PATIENCE_NS: u64 = NANOSECONDS_PER_SECOND / 10;
/// A CPU counts this many SYNs for itself before it looks at the clock that all share.
const LARGEST_BATCH: u32 = 32;
/// Of a low threshold a batch must not be a noticeable part.
const BATCHES_PER_SECOND: u32 = 128;

impl CookiePolicy {
    pub const OFF: Self = Self { mode: 0, batch_mask: 0, pressure: Limit::UNLIMITED };

    /// `clock_tick_ns` is the step of the clock that pressure is measured with.
    pub const fn new(choice: SynCookies, clock_tick_ns: u64) -> Self {
        let (mode, threshold) = match choice {
            SynCookies::Off => return Self::OFF,
            SynCookies::Auto { threshold_syns_per_second } => (1, threshold_syns_per_second),
            SynCookies::Always { threshold_syns_per_second } => (2, threshold_syns_per_second),
        };
        let threshold = if threshold == 0 { 1 } else { threshold };
        let mut batch = LARGEST_BATCH;
        while batch > 1 && threshold / batch < BATCHES_PER_SECOND {
            batch /= 2;
        }
        let cost_ps = 1000 * NANOSECONDS_PER_SECOND * batch as u64 / threshold as u64;
        // Between two ticks all SYNs look simultaneous.
        let two_ticks_ns = 2 * clock_tick_ns;
        let tolerance_ns = if PATIENCE_NS > two_ticks_ns { PATIENCE_NS } else { two_ticks_ns };
        Self { mode, batch_mask: batch - 1, pressure: Limit { cost_ps, tolerance_ps: 1000 * tolerance_ns } }
    }

    #[inline(always)]
    pub const fn is_on(&self) -> bool {
        self.mode != 0
    }

    #[inline(always)]
    pub const fn is_always(&self) -> bool {
        self.mode == 2
    }

    /// As the configuration and the listings write it.
    pub const fn name(&self) -> &'static str {
        match self.mode {
            1 => "auto",
            2 => "always",
            _ => "off",
        }
    }
}

impl CookieState {
    /// Before the first SYN.
    pub const NONE: Self = Self {
        pressure_until_ns: 0,
        answered_until_ns: 0,
        pressure_arrival_ps: 0,
        proven_arrival_ps: 0,
        last_answered_ns: 0,
        unused: [0; 3],
    };
}

impl CookieCounters {
    pub const NONE: Self = Self { seen_syns: 0, answered_syns: 0, valid_cookies: 0, bad_cookies: 0 };
}
