//! Sampled packets.

use std::sync::Arc;

use anyhow::Context;
use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::{AdminState, Answer, failed};
use crate::datapath_report::samples;
use crate::report::Samples;

/// Samples of one answer: whoever wants more asks again.
const MOST_AT_ONCE: usize = 512;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Which {
    /// Number of the first one.
    #[serde(default)]
    from: u64,
}

pub(super) async fn excerpt(State(state): State<Arc<AdminState>>, Query(which): Query<Which>) -> Answer<Samples> {
    let alone = "L7 runs alone here: there is no XDP to sample packets";
    let reader = state.datapath.as_ref().context(alone).map_err(failed)?;
    let excerpt = state.samples.from(which.from, MOST_AT_ONCE);
    Ok(Json(Samples {
        samples: excerpt.samples.iter().map(|(number, sample)| samples::sample(*number, sample)).collect(),
        next: excerpt.next,
        missed: excerpt.missed,
        account: samples::account(reader).map_err(failed)?,
    }))
}
