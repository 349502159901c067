//! What the code under test says through `tracing`.

use std::sync::{Arc, Mutex};

/// Collects the events of one target, as text.
#[derive(Clone)]
pub struct Lines {
    target: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    /// Of targets that begin so, as long as it is the thread's subscriber.
    pub fn of(target: &'static str) -> Self {
        Self { target, seen: Arc::default() }
    }

    /// All lines so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic while writing").clone()
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with(self.target)
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line.push_str(&format!("{field}={value:?} "));
        });
        self.seen.lock().expect("no panic while writing").push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
