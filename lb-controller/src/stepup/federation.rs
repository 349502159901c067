//! Logging in and stepping up at identity providers. What must come back with the browser is in a sealed cookie of its
//! own for each way there, so any host of the edge can finish what another began, and nobody else can.

mod callback;
mod logout;
mod start;

use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::cookies::{self, Found, Keep};
use super::pages::{self, Rejection};
use super::random_id::RandomId;
use super::seal::{Purpose, Sealer};
use crate::identity::{Flow, Unavailable};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::texts::say;

/// One way to a provider and back.
#[derive(Debug, Serialize, Deserialize)]
struct Trip {
    flow: Flow,
    errand: Errand,
}

/// What the trip is for.
#[derive(Debug, Serialize, Deserialize)]
enum Errand {
    /// A login, and where the browser goes after it.
    LogIn { to: String },
    /// A proof for this transaction.
    StepUp {
        /// The transaction's id.
        transaction: String,
    },
}

/// Several tabs may be under way at once; a browser that lets more pile up loses the oldest.
const MOST_TRIPS: usize = 5;

impl Trip {
    /// The cookie that keeps it. Its name begins with the state, so that tabs do not get in one another's way.
    fn cookie(&self, sealer: &Sealer, host: &str, lifetime_seconds: u64) -> Option<HeaderValue> {
        let plain = serde_json::to_vec(self).ok()?;
        let sealed = sealer.seal(Purpose::Trip, host, &plain);
        // Browsers drop a longer one without a word (RFC 6265bis §6.1).
        const LONGEST_COOKIE: usize = 4000;
        let name = cookies::trip_name(&self.flow.state)?;
        (sealed.len() < LONGEST_COOKIE).then(|| cookies::set(&name, &sealed, Keep::Seconds(lifetime_seconds)))
    }

    /// The trip that `state` belongs to, if this browser began it.
    fn of(sealer: &Sealer, request: &Inbound, state: &str) -> Option<Trip> {
        let name = cookies::trip_name(state)?;
        let Found::Once(text) = cookies::find(&request.headers, &name) else { return None };
        let plain = sealer.open_sealed(Purpose::Trip, &request.host, text)?;
        let trip: Trip = serde_json::from_slice(&plain).ok()?;
        let is_same = aws_lc_rs::constant_time::verify_slices_are_equal(trip.flow.state.as_bytes(), state.as_bytes());
        is_same.is_ok().then_some(trip)
    }
}

/// Takes the cookie of a trip that is over, and those of trips that were given up when there are too many.
fn clear_trips(mut answer: OwnResponse, request: &Inbound, over: Option<&str>) -> OwnResponse {
    let names: Vec<&str> = cookies::trips(&request.headers).collect();
    let surplus = (names.len() + 1).saturating_sub(MOST_TRIPS);
    let over = over.and_then(cookies::trip_name);
    // Browsers send cookies of one path oldest first (RFC 6265bis §5.8.3).
    for (at, name) in names.into_iter().enumerate() {
        if at < surplus || over.as_deref() == Some(name) {
            answer = pages::with_cookie(answer, cookies::set(name, "", Keep::NotAtAll));
        }
    }
    answer
}

/// Where providers send browsers back to: one address for each, or one could be made to answer for another (RFC 9700 §4.4).
fn redirect_uri(request: &Inbound, provider: &str) -> String {
    format!("https://{}/.lb/callback/{provider}", request.authority)
}

/// 303 to another origin: the browser follows with a GET. What its page was is nobody's business there.
fn leave_for(url: &str) -> OwnResponse {
    let mut answer = pages::see_other(url);
    answer.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn idp_unavailable(request: &Inbound, unavailable: &Unavailable) -> OwnResponse {
    tracing::warn!(%unavailable, "an identity provider is needed and cannot be used");
    let rejection = Rejection {
        status: StatusCode::SERVICE_UNAVAILABLE,
        problem: "idp_unavailable",
        title: say::idp_unavailable(),
        detail: say::idp_unavailable_about(),
    };
    pages::with_retry_after(rejection.answer(request), 5)
}

fn no_such_provider(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::not_found(), say::no_such_page());
    Rejection { status: StatusCode::NOT_FOUND, problem: "not-found", title, detail }.answer(request)
}

fn transaction_of(errand: &Errand) -> Option<RandomId> {
    match errand {
        Errand::StepUp { transaction } => RandomId::parse(transaction),
        Errand::LogIn { .. } => None,
    }
}
