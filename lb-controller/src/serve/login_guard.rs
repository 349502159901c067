//! The login page under attack: rules that ask for work ask for it before a password is looked at.

use lb_policy::{BodyFacts, NO_PARAMETERS, RouteFacts};

use super::facts::{self, Findings, Who};
use super::request::Inbound;
use super::respond::OwnResponse;
use crate::edge::{Edge, Snapshot};
use crate::stepup::Session;

/// `None`: it is no login, or no work is due, or it is done. Whatever else rules say of this path is left aside: a login
/// that needs one would be nobody's.
pub(super) fn work_due(
    edge: &Edge,
    snapshot: &Snapshot,
    request: &Inbound,
    session: Option<&Session>,
) -> Option<OwnResponse> {
    let (config, now) = (&*snapshot.config, edge.clock.now());
    let is_login = request.path == "/.lb/login" || request.path.starts_with("/.lb/login/");
    if !is_login || !config.rules.asks_for_work() {
        return None;
    }
    let request_facts = facts::request_facts(request, &NO_PARAMETERS);
    let sender = facts::sender(edge, config, request, session);
    let observed = edge.signals.observe(&snapshot.sources, &config.rules, &request_facts, &sender, now);
    let provable = edge.step_up.provable(config, None);
    let who = Who { session, proved_for_this_request: &[], provable: &provable };
    let worked = edge.step_up.worked(request, now);
    let findings =
        Findings { body: &BodyFacts::default(), parameters: &NO_PARAMETERS, observed: &observed, worked: &worked };
    let route = RouteFacts { is_public: true, labels: &[] };
    let challenge = config.rules.work_due(&facts::gather(now, config, request, who, &findings, route))?;
    Some(edge.step_up.ask_for_work(request, &challenge))
}
