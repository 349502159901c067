//! `lb-controller unload`: leaves nothing of this instance in the kernel.

use lb_datapath::UnloadError;

use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::Status;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(instance: &Instance, _: Arguments) -> Result<(), Failure> {
    match client::get::<Status>(instance, "/v1/status") {
        Ok(Status { controller: Some(controller), .. }) => {
            let why = anyhow::anyhow!(
                "a controller (pid {}) is still serving from these maps; stop it first with `lb-controller stop`",
                controller.pid
            );
            return Err(Failure::new(ExitKind::AlreadyRunning, why));
        }
        // One that was killed left its sockets, and with them the runtime folder.
        Err(AskError::NotRunning { socket }) => {
            for socket in [socket, instance.handover_socket()] {
                let _ = std::fs::remove_file(socket);
            }
        }
        _ => {}
    }
    let removed = lb_datapath::unload(&instance.pin_root(), &instance.runtime_dir())
        .map_err(|error| Failure::new(exit_kind(&error), error))?;
    let nothing = removed.links.is_empty() && removed.maps.is_empty() && removed.routes.is_empty();
    if nothing {
        say!("nothing was loaded for instance {instance}");
    }
    for link in &removed.links {
        say!("detached {link}");
    }
    for vip in &removed.routes {
        say!("removed the local route of {vip}");
    }
    for folder in &removed.maps {
        say!("removed {}", folder.display());
    }
    Ok(())
}

fn exit_kind(error: &UnloadError) -> ExitKind {
    match error {
        UnloadError::Running { .. } => ExitKind::AlreadyRunning,
        error if error.is_denied() => ExitKind::Permission,
        _ => ExitKind::Kernel,
    }
}
