//! What the programs are told before they are loaded: constants that the verifier folds into them, and whose untaken
//! branches it removes.

use aya::EbpfLoader;
use lb_common::types::HashKeys;

use crate::clock::tick_ns;
use crate::kernel_tcp::KernelTcp;
use crate::load::LogLevel;

/// Every global of the programs, by its symbol in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Globals {
    pub connection_key: [u64; 2],
    pub source_key: [u64; 2],
    pub tick_ns: u64,
    pub cookie_segment_bytes: u16,
    pub cookie_window_scale: u8,
    /// 1: the kernel's cookies carry timestamps.
    pub cookie_timestamps: u8,
    /// 0: no program writes a line.
    pub log_level: u8,
}

impl Globals {
    /// Names of the symbols. One that is missing here would keep the value it was compiled with.
    pub const SYMBOLS: [&str; 7] = [
        "CONNECTION_KEY",
        "SOURCE_KEY",
        "TICK_NS",
        "COOKIE_SEGMENT_BYTES",
        "COOKIE_WINDOW_SCALE",
        "COOKIE_TIMESTAMPS",
        aya_log::LEVEL,
    ];

    /// For this kernel, and interfaces that all take a TCP segment of `cookie_segment_bytes` over IPv4.
    pub(crate) fn of(keys: &HashKeys, log_level: LogLevel, kernel_tcp: &KernelTcp, cookie_segment_bytes: u16) -> Self {
        Self {
            connection_key: keys.connection,
            source_key: keys.source,
            tick_ns: tick_ns(),
            cookie_segment_bytes,
            cookie_window_scale: kernel_tcp.window_scale,
            cookie_timestamps: kernel_tcp.plain_timestamps.into(),
            log_level: match log_level {
                LogLevel::Off => 0,
                LogLevel::Debug => aya_log::Level::Debug as u8,
            },
        }
    }

    pub(crate) fn set<'g>(&'g self, loader: &mut EbpfLoader<'g>) {
        let [connection_key, source_key, tick_ns, segment_bytes, window_scale, timestamps, log_level] = Self::SYMBOLS;
        loader
            .override_global(connection_key, &self.connection_key, true)
            .override_global(source_key, &self.source_key, true)
            .override_global(tick_ns, &self.tick_ns, true)
            .override_global(segment_bytes, &self.cookie_segment_bytes, true)
            .override_global(window_scale, &self.cookie_window_scale, true)
            .override_global(timestamps, &self.cookie_timestamps, true)
            .override_global(log_level, &self.log_level, true);
    }
}
