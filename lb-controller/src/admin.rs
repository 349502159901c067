//! The admin API on the instance's unix socket. The socket's permissions are its authentication.

mod api_keys;
pub mod client;
mod explain;
mod factors;
mod lists;
mod samples;
mod sealing_keys;
mod state;
mod tail;
pub mod threat;

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use tokio::net::UnixListener;

pub use state::AdminState;

use crate::failure::{ExitKind, Failure, OrExit};
use crate::report::{Backend, Certificate, Status};

/// The admin socket, open. Dropping it removes it from the file system, so that a start that fails leaves nothing.
pub struct AdminSocket {
    listener: StdUnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket for the controller's own user alone. One that a killed controller left behind is replaced; one
    /// that answers belongs to a controller that lives.
    pub fn open(path: PathBuf) -> Result<AdminSocket, Failure> {
        if StdUnixStream::connect(&path).is_ok() {
            let why = anyhow::anyhow!(
                "a controller of this instance already answers at {}; stop it with `lb-controller stop`, \
                 or give this one another --instance",
                path.display()
            );
            return Err(Failure::new(ExitKind::AlreadyRunning, why));
        }
        let listener = bind(&path).or_exit(ExitKind::Permission)?;
        Ok(AdminSocket { listener, path })
    }

    /// Opens it beside the one of a controller that is being taken over, which moves it to its place.
    pub fn open_beside(path: PathBuf) -> Result<AdminSocket, Failure> {
        let listener = bind(&path).or_exit(ExitKind::Permission)?;
        Ok(AdminSocket { listener, path })
    }

    /// It was moved there.
    pub fn is_at(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Closes it, and leaves alone what has its name by now.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }

    pub fn listener(&self) -> std::io::Result<UnixListener> {
        UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            // Succeeds when nothing else is in it.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn bind(socket: &Path) -> anyhow::Result<StdUnixListener> {
    let folder = socket.parent().context("the admin socket needs a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the runtime folder {}", folder.display()))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close the runtime folder {} to others", folder.display()))?;
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace the stale socket {}", socket.display()));
        }
        _ => {}
    }
    let listener =
        StdUnixListener::bind(socket).with_context(|| format!("cannot open the admin socket {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until the controller stops.
pub async fn serve(listener: UnixListener, state: Arc<AdminState>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/backends", get(backends))
        .route("/v1/certificates", get(certificates))
        .route("/v1/lists", get(lists::all))
        .route("/v1/lists/decision", post(lists::decision))
        .route("/v1/samples", get(samples::excerpt))
        .route("/v1/tail", post(tail::follow))
        .route("/v1/users/{user}/factors", get(factors::list))
        .route("/v1/users/{user}/factors/{id}/remove", post(factors::remove))
        .route("/v1/users/{user}/enrolment-token", post(factors::token))
        .route("/v1/explain", post(explain::hypothetical))
        .route("/v1/explain/recent", get(explain::recent))
        .route("/v1/api-keys", get(api_keys::list).post(api_keys::create))
        .route("/v1/api-keys/rotate", post(api_keys::rotate))
        .route("/v1/api-keys/revoke", post(api_keys::revoke))
        .route("/v1/api-keys/require-regeneration", post(api_keys::require_regeneration))
        .route("/v1/api-keys/require-regeneration-of-user", post(api_keys::require_regeneration_of_user))
        .route("/v1/sealing-keys", get(sealing_keys::list))
        .route("/v1/sealing-keys/rotate", post(sealing_keys::rotate))
        .route("/v1/sealing-keys/revoke", post(sealing_keys::revoke))
        .route("/v1/unblock", post(unblock))
        .route("/v1/threat", get(threat::show).post(threat::set))
        .route("/v1/stop", post(stop))
        .with_state(state);
    axum::serve(listener, router).await
}

/// Prometheus text on a listener of its own, never on the data port.
pub async fn serve_metrics(listener: tokio::net::TcpListener, state: Arc<AdminState>) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(state);
    axum::serve(listener, router).await
}

type Answer<T> = Result<Json<T>, (StatusCode, String)>;

async fn status(State(state): State<Arc<AdminState>>) -> Answer<Status> {
    state.status().map(Json).map_err(failed)
}

async fn backends(State(state): State<Arc<AdminState>>) -> Answer<Vec<Backend>> {
    state.backends().map(Json).map_err(failed)
}

async fn certificates(State(state): State<Arc<AdminState>>) -> Json<Vec<Certificate>> {
    Json((state.certificates)())
}

fn failed(error: anyhow::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

async fn unblock(State(state): State<Arc<AdminState>>, Json(address): Json<IpAddr>) -> Answer<bool> {
    state.unblock(address).await.map(Json).map_err(failed)
}

async fn stop(State(state): State<Arc<AdminState>>) -> Json<&'static str> {
    state.shutdown.begin();
    Json("stopping")
}

async fn metrics(State(state): State<Arc<AdminState>>) -> ([(http::HeaderName, &'static str); 1], String) {
    // OpenMetrics 1.0, which Prometheus reads as its own.
    (
        [(http::header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        state.edge.metrics.render(),
    )
}
