//! `lb-controller stop`: graceful, and done when the process is gone.

use std::time::{Duration, Instant};

use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::Status;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Give up waiting after this many seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let controller = client::get::<Status>(instance, "/v1/status").ok().and_then(|status| status.controller);
    let is_without_xdp = controller.is_some_and(|controller| controller.listen.is_some());
    match client::post::<_, serde_json::Value>(instance, "/v1/stop", &()) {
        Ok(_) => {}
        Err(error @ AskError::NotRunning { .. }) => return Err(Failure::new(ExitKind::NotRunning, error)),
        Err(error) => return Err(Failure::new(ExitKind::Other, error)),
    }
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    while Instant::now() < deadline {
        if let Err(AskError::NotRunning { .. }) = client::get::<Status>(instance, "/v1/status") {
            match is_without_xdp {
                true => say!("stopped"),
                false => say!("stopped; XDP stays attached until `lb-controller unload`"),
            }
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(anyhow::anyhow!("the controller is still draining after {} s; it goes on doing so", arguments.timeout).into())
}
