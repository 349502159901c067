//! How many requests of one route are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The limit of one route. The count goes on across configurations.
#[derive(Clone, Debug)]
pub struct Gate {
    most: u32,
    under_way: Arc<AtomicU32>,
}

/// A request's place within its route's limit, given back when dropped.
#[derive(Debug)]
pub struct RoutePlace(Arc<AtomicU32>);

impl Gate {
    pub(super) fn new(most: u32, previous: Option<&Gate>) -> Gate {
        Gate { most, under_way: previous.map_or_else(Arc::default, |gate| gate.under_way.clone()) }
    }

    /// `None`: as many are under way as may be.
    pub fn enter(&self) -> Option<RoutePlace> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        // Counted first and looked at then: of those that race for the last place, no two have it.
        let place = RoutePlace(self.under_way.clone());
        (before < self.most).then_some(place)
    }
}

impl Drop for RoutePlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_counted_across_configurations() {
        let gate = Gate::new(2, None);
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_some() && second.is_some() && gate.enter().is_none() && gate.enter().is_none());
        let stricter = Gate::new(1, Some(&gate));
        drop(first);
        assert!(stricter.enter().is_none() && gate.enter().is_some());
        drop(second);
        assert!(stricter.enter().is_some());
    }
}
