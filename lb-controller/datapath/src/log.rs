//! The programs' log lines, handed on to `tracing` under the target `xdp`.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::LoadError;

/// Lines wait in a ring buffer of the kernel until they are forwarded; when it is full, new ones are lost, not packets.
pub struct XdpLog {
    logger: EbpfLogger<ToTracing>,
}

impl XdpLog {
    pub(crate) fn open(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let logger = EbpfLogger::init_with_logger(ebpf, ToTracing)
            .map_err(|error| LoadError::system("open the programs' log", error))?;
        Ok(Self { logger })
    }

    /// Forwards lines as they come. Ends only with an error of the kernel's.
    pub async fn forward(self) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "the replacement is unsafe; the descriptor lives as long as the logger owned here"
        )]
        let mut logger = AsyncFd::with_interest(self.logger, Interest::READABLE)?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }

    /// Forwards the lines that are waiting.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

/// The lines come through the `log` crate's interface; the application listens to `tracing`.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "xdp", "{line}"),
            log::Level::Warn => tracing::warn!(target: "xdp", "{line}"),
            log::Level::Info => tracing::info!(target: "xdp", "{line}"),
            log::Level::Debug => tracing::debug!(target: "xdp", "{line}"),
            log::Level::Trace => tracing::trace!(target: "xdp", "{line}"),
        }
    }

    fn flush(&self) {}
}
