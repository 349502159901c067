//! The threat level: what holds, and setting it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use lb_policy::ThreatLevel;
use serde::{Deserialize, Serialize};

use super::{AdminState, Answer, failed};
use crate::audit::Event;

/// A day; who needs longer says so again.
pub const LONGEST_SECONDS: u64 = 86_400;

/// What is to hold from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    pub level: String,
    pub for_seconds: u64,
}

/// What holds now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    pub level: String,
    /// Unix seconds; `None`: nothing was set, or its time is over.
    pub set_at: Option<u64>,
    /// `normal` from then on.
    pub until: Option<u64>,
}

pub(super) async fn show(State(state): State<Arc<AdminState>>) -> Json<Shown> {
    Json(shown(&state))
}

pub(super) async fn set(State(state): State<Arc<AdminState>>, Json(setting): Json<Setting>) -> Answer<Shown> {
    let refuse = |why: String| (StatusCode::UNPROCESSABLE_ENTITY, why);
    let level = ThreatLevel::from_name(&setting.level).ok_or_else(|| {
        let known: Vec<_> = ThreatLevel::names().collect();
        refuse(format!("there is no threat level {:?}; there are {}", setting.level, known.join(", ")))
    })?;
    if !(1..=LONGEST_SECONDS).contains(&setting.for_seconds) {
        return Err(refuse("a threat level is set for a second to a day".to_owned()));
    }
    let edge = state.edge.clone();
    // It is on disk before it holds, so that a restart in the middle of an attack does not forget it.
    let stored =
        tokio::task::spawn_blocking(move || edge.signals.threat().set(level, edge.clock.now(), setting.for_seconds));
    stored.await.map_err(anyhow::Error::from).and_then(|stored| stored).map_err(failed)?;
    let detail = format!("{level} for {} s", setting.for_seconds);
    Event { event: "threat", result: "set", detail: Some(&detail), ..Event::default() }.record();
    Ok(Json(shown(&state)))
}

fn shown(state: &AdminState) -> Shown {
    let now = state.edge.clock.now();
    let threat = state.edge.signals.threat();
    let setting = threat.setting(now);
    Shown {
        level: threat.level(now).name().to_owned(),
        set_at: setting.as_ref().map(|setting| setting.set_at),
        until: setting.map(|setting| setting.until),
    }
}
