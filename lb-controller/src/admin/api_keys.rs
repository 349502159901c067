//! API keys over the admin socket. Each change is in the audit trail.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{AdminState, Answer};
use crate::audit::Event;
use crate::identity::{KeyError, NewApiKey};
use crate::report::{ApiKeyReport, NewSecret};

pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Json<Vec<ApiKeyReport>> {
    Json(state.edge.api_keys.list())
}

pub(super) async fn create(State(state): State<Arc<AdminState>>, Json(new): Json<NewApiKey>) -> Answer<NewSecret> {
    let about = format!("a new key of {}", new.user);
    let key =
        on_disk(state, "create", about, move |state| state.edge.api_keys.create(new, state.edge.clock.now())).await?;
    Ok(Json(NewSecret { key: key.to_string() }))
}

pub(super) async fn rotate(State(state): State<Arc<AdminState>>, Json(id): Json<String>) -> Answer<NewSecret> {
    let key =
        on_disk(state, "rotate", id.clone(), move |state| state.edge.api_keys.rotate(&id, state.edge.clock.now()))
            .await?;
    Ok(Json(NewSecret { key: key.to_string() }))
}

pub(super) async fn revoke(State(state): State<Arc<AdminState>>, Json(id): Json<String>) -> Answer<()> {
    on_disk(state, "revoke", id.clone(), move |state| state.edge.api_keys.revoke(&id)).await.map(Json)
}

pub(super) async fn require_regeneration(State(state): State<Arc<AdminState>>, Json(id): Json<String>) -> Answer<()> {
    let about = id.clone();
    let change = move |state: &AdminState| state.edge.api_keys.require_regeneration(&id);
    on_disk(state, "require-regeneration", about, change).await.map(Json)
}

pub(super) async fn require_regeneration_of_user(
    State(state): State<Arc<AdminState>>,
    Json(user): Json<String>,
) -> Answer<usize> {
    let about = format!("all of {user}");
    let change = move |state: &AdminState| state.edge.api_keys.require_regeneration_of_user(&user);
    on_disk(state, "require-regeneration", about, change).await.map(Json)
}

/// Off this thread, for the disk may be slow.
async fn on_disk<T: Send + 'static>(
    state: Arc<AdminState>,
    change: &'static str,
    about: String,
    run: impl FnOnce(&AdminState) -> Result<T, KeyError> + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    let outcome = tokio::task::spawn_blocking(move || run(&state)).await;
    let outcome = outcome.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let result = if outcome.is_ok() { "ok" } else { "refused" };
    Event { event: "api-key", result, detail: Some(&format!("{change} {about}")), ..Event::default() }.record();
    outcome.map_err(|error| {
        let status = match &error {
            KeyError::NoSuchKey(_) => StatusCode::NOT_FOUND,
            KeyError::Unfit(_) => StatusCode::BAD_REQUEST,
            KeyError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, error.to_string())
    })
}
