//! Deny and allow lists: what is in force, and what decides about one address.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use lb_datapath::Listed;

use super::{AdminState, Answer, failed};
use crate::datapath_report;
use crate::lists::Source;
use crate::report::{ListDecision, ListLoading, ListSource, Lists};

pub(super) async fn all(State(state): State<Arc<AdminState>>) -> Answer<Lists> {
    let families = state.datapath.as_ref().map(datapath_report::lists).transpose().map_err(failed)?;
    let in_force = state.lists.in_force();
    let sources = in_force.iter().flat_map(|catalogue| catalogue.sources().iter().map(source)).collect();
    let loading = state.lists.loading().map(|loading| ListLoading {
        stage: loading.stage.name().to_owned(),
        prefixes: loading.prefixes,
        seconds: loading.began.elapsed().as_secs(),
    });
    Ok(Json(Lists {
        families: families.unwrap_or_default(),
        sources: Some(sources),
        loading,
        refused: state.lists.refusal().map(|refusal| refusal.to_string()),
    }))
}

fn source(source: &Source) -> ListSource {
    ListSource {
        list: if source.listed == Listed::Allowed { "allow" } else { "deny" }.to_owned(),
        file: source.file.as_ref().map(|file| file.display().to_string()),
        ipv4: source.ipv4,
        ipv6: source.ipv6,
    }
}

/// Every prefix is looked at, so the search leaves this thread.
pub(super) async fn decision(
    State(state): State<Arc<AdminState>>,
    Json(address): Json<IpAddr>,
) -> Answer<ListDecision> {
    let lists = state.lists.clone();
    let search = move || lists.in_force().and_then(|catalogue| catalogue.decision(address));
    let decision = tokio::task::spawn_blocking(search).await.map_err(|error| failed(error.into()))?;
    let listed = match decision.as_ref().map(|decision| decision.listed) {
        Some(Listed::Denied) => "denied",
        Some(Listed::Allowed) => "allowed",
        Some(Listed::Unlisted) | None => "unlisted",
    };
    let file = decision.as_ref().and_then(|decision| decision.file.as_ref());
    Ok(Json(ListDecision {
        address,
        listed: listed.to_owned(),
        prefix: decision.as_ref().map(|decision| decision.prefix.to_string()),
        file: file.map(|file| file.display().to_string()),
        line: decision.as_ref().map(|decision| decision.line).filter(|line| *line > 0),
    }))
}
