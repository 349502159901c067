//! Explanations: of requests that were refused lately, and of requests that are only described.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;

use super::AdminState;
use crate::explain::{Explained, Hypothetical};

/// Which of the recent explanations to give.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Which {
    /// Only the request with this id.
    id: Option<String>,
}

pub(super) async fn recent(State(state): State<Arc<AdminState>>, Query(which): Query<Which>) -> Json<Vec<Explained>> {
    Json(state.edge.recent.list(which.id.as_deref()))
}

pub(super) async fn hypothetical(
    State(state): State<Arc<AdminState>>,
    Json(question): Json<Hypothetical>,
) -> Result<Json<Explained>, (StatusCode, String)> {
    let snapshot = state.edge.snapshot();
    question
        .explain(&snapshot.config, state.edge.clock.now())
        .map(Json)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")))
}
