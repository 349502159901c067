//! Where a request's route leads.

use serde::{Deserialize, Serialize};

use crate::config::{Action, Route};

/// The route that takes a request, and what becomes of the request there if the rules let it pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// As in metrics: `shop.example/orders/{id} GET`.
    pub route: String,
    /// In words: `pool shop`, `redirect 308 to /new/1`.
    pub leads_to: String,
    /// The path that the backend receives; `None`: the one that rules judge.
    pub rewritten: Option<String>,
    pub public: bool,
}

impl Taken {
    /// `forwarded`: the request's path in the form that backends receive.
    pub fn of(route: &Route, forwarded: &str) -> Taken {
        let leads_to = match &route.action {
            Action::Pool(pool) => format!("pool {pool}"),
            Action::Split(split) => {
                let shares = split.shares.iter().map(|(pool, weight)| format!("{pool} ({weight})"));
                format!("one of the pools {}", shares.collect::<Vec<_>>().join(", "))
            }
            Action::Redirect(redirect) => {
                let path = redirect.path.as_ref().map(|path| path.expand(&route.matcher.path, forwarded));
                let origin = redirect.origin.as_deref().unwrap_or_default();
                let path = path.as_deref().unwrap_or(forwarded);
                format!("redirect {} to {origin}{path}", redirect.status.as_u16())
            }
            Action::Respond(response) => format!("answer {}", response.status.as_u16()),
        };
        let rewritten = route.rewrite.path.as_ref().map(|path| path.expand(&route.matcher.path, forwarded));
        Taken { route: route.label.to_string(), leads_to, rewritten, public: route.public }
    }
}
