//! Users' factors, for the operator.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::{AdminState, Answer};
use crate::report::{ENROLMENT_TOKEN_LONGEST_SECONDS, EnrolledFactor, EnrolmentToken, TokenOrder};
use crate::stepup::NotDone;

pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Path(user): Path<String>,
) -> Answer<Vec<EnrolledFactor>> {
    on_disk(state, move |state| state.edge.step_up.factors_of(&state.edge.snapshot().config, &user)).await.map(Json)
}

pub(super) async fn remove(
    State(state): State<Arc<AdminState>>,
    Path((user, id)): Path<(String, String)>,
) -> Answer<bool> {
    on_disk(state, move |state| state.edge.step_up.remove_factor(&state.edge.snapshot().config, &user, &id)).await?;
    Ok(Json(true))
}

pub(super) async fn token(
    State(state): State<Arc<AdminState>>,
    Path(user): Path<String>,
    Json(order): Json<TokenOrder>,
) -> Answer<EnrolmentToken> {
    let valid_for_seconds = order.valid_for_seconds.clamp(1, ENROLMENT_TOKEN_LONGEST_SECONDS);
    let name = user.clone();
    let make = move |state: &AdminState| {
        state.edge.step_up.enrolment_token(&state.edge.snapshot().config, &name, valid_for_seconds)
    };
    let token = on_disk(state.clone(), make).await?;
    if !order.mail {
        return Ok(Json(EnrolmentToken { token: Some(token.to_string()) }));
    }
    let config = state.edge.snapshot().config.clone();
    state.edge.step_up.mail_token(&config, &user, &token).await.map_err(refused)?;
    Ok(Json(EnrolmentToken { token: None }))
}

/// The store writes to disk: not on the runtime that answers everybody else.
async fn on_disk<T: Send + 'static>(
    state: Arc<AdminState>,
    job: impl FnOnce(&AdminState) -> Result<T, NotDone> + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    let runtime = tokio::runtime::Handle::current();
    let job = move || {
        // Mails to users are handed over by tasks of this runtime.
        let _guard = runtime.enter();
        job(&state)
    };
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => done.map_err(refused),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn refused(not_done: NotDone) -> (StatusCode, String) {
    let status = match &not_done {
        NotDone::NoSuchUser(_) | NotDone::NoSuchFactor(_) => StatusCode::NOT_FOUND,
        NotDone::NoAddress(_) => StatusCode::UNPROCESSABLE_ENTITY,
        NotDone::NotMailed(_) | NotDone::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, not_done.to_string())
}
