//! Ctrl-C, so that the scene can be taken down in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Knows whether somebody wants this to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process.
    ///
    /// By handlers, not by blocking them: children inherit what is blocked, and could not be stopped.
    pub(crate) fn watch() -> Result<Interrupt> {
        let noted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&noted)).context("installing a signal handler")?;
        }
        Ok(Interrupt(noted))
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Sleeps until interrupted, or until `each_second` finds something wrong.
    pub(crate) fn wait(&self, mut each_second: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(100));
                if self.0.load(Ordering::SeqCst) {
                    return Ok(());
                }
            }
            each_second()?;
        }
    }
}
