//! The explanations of the requests that were refused lately.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use lb_policy::UnixSeconds;

use super::Explained;

/// Enough to find the request somebody is on the phone about.
const KEPT: usize = 256;

/// Explaining walks every rule, and outsiders choose how many of their requests are refused.
const EXPLAINED_PER_SECOND: u32 = 20;

/// A bounded memory. Allowed requests cost nothing here.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    explained: VecDeque<Explained>,
    /// The second that is running, and how many were explained in it.
    this_second: (UnixSeconds, u32),
}

impl Recent {
    /// Remembers what `explain` makes, unless enough was explained in this second.
    pub fn remember(&self, now: UnixSeconds, explain: impl FnOnce() -> Explained) {
        if !self.has_room(now) {
            return;
        }
        let explained = explain();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.explained.len() == KEPT {
            kept.explained.pop_front();
        }
        kept.explained.push_back(explained);
    }

    /// The latest first; only the request `id` if one is given.
    pub fn list(&self, id: Option<&str>) -> Vec<Explained> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |explained: &&Explained| id.is_none() || explained.request.id.as_deref() == id;
        kept.explained.iter().rev().filter(wanted).cloned().collect()
    }

    fn has_room(&self, now: UnixSeconds) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.this_second.0 != now {
            kept.this_second = (now, 0);
        }
        kept.this_second.1 += 1;
        kept.this_second.1 <= EXPLAINED_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Request;

    fn explained(id: u32) -> Explained {
        let request = Request {
            id: Some(id.to_string()),
            at: 0,
            method: "GET".into(),
            host: "h".into(),
            path: "/".into(),
            client: "192.0.2.1".into(),
            user: None,
        };
        Explained { request, route: None, decision: "deny".into(), methods: Vec::new(), rules: Vec::new() }
    }

    #[test]
    fn a_flood_of_refused_requests_is_explained_a_few_times_a_second() {
        let recent = Recent::default();
        let mut made = 0;
        for now in [100, 101] {
            for id in 0..1000 {
                recent.remember(now, || {
                    made += 1;
                    explained(id)
                });
            }
        }
        assert_eq!(made, 2 * EXPLAINED_PER_SECOND);
    }

    #[test]
    fn the_latest_come_first_and_the_oldest_give_way() {
        let recent = Recent::default();
        for id in 0..300 {
            recent.remember(id.into(), || explained(id));
        }
        let ids: Vec<_> = recent.list(None).into_iter().filter_map(|explained| explained.request.id).collect();
        assert_eq!((ids.len(), ids.first().unwrap().as_str(), ids.last().unwrap().as_str()), (KEPT, "299", "44"));
        assert_eq!(recent.list(Some("77")).len(), 1);
        assert!(recent.list(Some("43")).is_empty());
    }
}
