//! The keys of cookies over the admin socket. Each change is in the audit trail.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{AdminState, Answer, failed};
use crate::report::SealingKey;

pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Json<Vec<SealingKey>> {
    Json(state.edge.step_up.sealing_keys())
}

pub(super) async fn rotate(State(state): State<Arc<AdminState>>) -> Answer<Vec<SealingKey>> {
    on_disk(state, |state| state.edge.step_up.rotate_sealing_keys().map(|()| state.edge.step_up.sealing_keys())).await
}

pub(super) async fn revoke(State(state): State<Arc<AdminState>>, Json(id): Json<String>) -> Answer<Vec<SealingKey>> {
    let key = id.clone();
    let Json(keys) = on_disk(state, move |state| {
        let is_revoked = state.edge.step_up.revoke_sealing_key(&key)?;
        Ok(is_revoked.then(|| state.edge.step_up.sealing_keys()))
    })
    .await?;
    keys.map(Json).ok_or((StatusCode::NOT_FOUND, format!("there is no sealing key {id}; see `sealing-keys list`")))
}

/// Off this thread, for the disk may be slow.
async fn on_disk<T: Send + 'static>(
    state: Arc<AdminState>,
    change: impl FnOnce(&AdminState) -> anyhow::Result<T> + Send + 'static,
) -> Answer<T> {
    let outcome = tokio::task::spawn_blocking(move || change(&state)).await;
    outcome.map_err(anyhow::Error::from).and_then(|outcome| outcome).map(Json).map_err(failed)
}
