//! The thread that hands spans over to a collector. Whoever has spans never waits for it: what finds no room is dropped and
//! counted, and what a collector does not take is tried again for a while, and then dropped too.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use http::{HeaderName, StatusCode, header};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};

use super::otlp;
use super::span::Span;
use crate::metrics::{Metrics, SpanFate};
use crate::webhook::Endpoint;

/// Requests whose spans wait.
const MOST_WAITING: usize = 2_048;
/// Spans of one call; a little more where a request has several.
const BATCH_SPANS: usize = 512;
/// How long a span may wait for others.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// A collector that restarts has this long: 1 + 2 + 4 seconds.
const TRIES: u32 = 4;
/// As long the end of the process waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hands spans to the thread. When the last clone is gone, it hands over what waits, and ends.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    spans: Sender<Message>,
    metrics: Metrics,
}

enum Message {
    Spans(Vec<Span>),
    /// Answers when everything before it was handed over or given up.
    Flush(SyncSender<()>),
}

/// Where to, and as what.
pub(super) struct Destination {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) service_name: String,
}

impl Exporter {
    pub(super) fn start(destination: Destination, metrics: Metrics) -> io::Result<Exporter> {
        let (spans, waiting) = channel(MOST_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporting = Exporting { destination, metrics: metrics.clone(), waiting, is_unwell: false };
        std::thread::Builder::new().name("traces".into()).spawn(move || runtime.block_on(exporting.run()))?;
        Ok(Exporter { spans, metrics })
    }

    pub(super) fn send(&self, spans: Vec<Span>) {
        if let Err(TrySendError::Full(Message::Spans(spans)) | TrySendError::Closed(Message::Spans(spans))) =
            self.spans.try_send(Message::Spans(spans))
        {
            self.metrics.spans(SpanFate::NoRoom, spans.len() as u64);
        }
    }

    /// Waits, for a moment, until all that was sent before is handed over.
    pub(super) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.spans.try_send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

struct Exporting {
    destination: Destination,
    metrics: Metrics,
    waiting: Receiver<Message>,
    /// The collector did not take the last spans, which was told of.
    is_unwell: bool,
}

/// What came of a call.
enum Outcome {
    Taken {
        rejected: u64,
    },
    /// Another try may do better.
    NotNow(String),
    Refused(String),
}

impl Exporting {
    async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let (mut batch, mut flushes) = (Vec::new(), Vec::new());
            take(first, &mut batch, &mut flushes);
            let deadline = Instant::now() + GATHER_FOR;
            while batch.len() < BATCH_SPANS && flushes.is_empty() {
                match timeout_at(deadline, self.waiting.recv()).await {
                    Ok(Some(message)) => take(message, &mut batch, &mut flushes),
                    Ok(None) | Err(_) => break,
                }
            }
            if !batch.is_empty() {
                self.hand_over(&batch).await;
            }
            for done in flushes {
                let _ = done.send(());
            }
        }
    }

    async fn hand_over(&mut self, batch: &[Span]) {
        let body = otlp::request(&self.destination.service_name, batch);
        let count = batch.len() as u64;
        for tried in 0.. {
            let why = match self.call(body.clone()).await {
                Outcome::Taken { rejected } => {
                    let rejected = rejected.min(count);
                    self.metrics.spans(SpanFate::Sent, count - rejected);
                    self.metrics.spans(SpanFate::Refused, rejected);
                    if std::mem::take(&mut self.is_unwell) {
                        tracing::info!("the collector of traces takes spans again");
                    }
                    return;
                }
                Outcome::NotNow(_) if tried + 1 < TRIES => {
                    tokio::time::sleep(Duration::from_secs(1 << tried)).await;
                    continue;
                }
                Outcome::NotNow(why) => {
                    self.metrics.spans(SpanFate::Failed, count);
                    why
                }
                Outcome::Refused(why) => {
                    self.metrics.spans(SpanFate::Refused, count);
                    why
                }
            };
            if !std::mem::replace(&mut self.is_unwell, true) {
                tracing::error!("the collector of traces takes no spans, which are dropped and counted: {why}");
            }
            return;
        }
    }

    /// What may be tried again is as OTLP says of HTTP.
    async fn call(&self, body: Vec<u8>) -> Outcome {
        let mut headers = self.destination.headers.clone();
        headers.push((header::CONTENT_TYPE, "application/x-protobuf".to_owned()));
        let reply = match self.destination.endpoint.post(&headers, body).await {
            Ok(reply) => reply,
            Err(error) => return Outcome::NotNow(error.to_string()),
        };
        match reply.status {
            status if status.is_success() => Outcome::Taken { rejected: otlp::rejected(&reply.body) },
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Outcome::NotNow(format!("it answered {}", reply.status)),
            status => Outcome::Refused(format!("it answered {status}")),
        }
    }
}

fn take(message: Message, batch: &mut Vec<Span>, flushes: &mut Vec<SyncSender<()>>) {
    match message {
        Message::Spans(spans) => batch.extend(spans),
        Message::Flush(done) => flushes.push(done),
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::{Parent, SpanId};
    use super::super::span::Kind;
    use super::*;

    fn span() -> Span {
        let parent = Parent::first(|_| true);
        Span {
            trace: parent.trace,
            id: SpanId::random(),
            parent: None,
            link: None,
            name: "GET".to_owned(),
            kind: Kind::Server,
            start_ns: 1,
            end_ns: 2,
            attributes: Vec::new(),
            has_failed: false,
        }
    }

    #[test]
    fn while_the_collector_takes_nothing_nobody_waits_and_what_finds_no_room_is_counted() {
        // Nobody takes what is sent.
        let (spans, waiting) = channel(2);
        let exporter = Exporter { spans, metrics: Metrics::default() };
        for _ in 0..5 {
            exporter.send(vec![span(), span()]);
        }
        let counted = |exporter: &Exporter| {
            let name = "lb_trace_spans_total{result=\"no_room\"} ";
            let text = exporter.metrics.render();
            text.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
        };
        assert_eq!(counted(&exporter), Some(6));
        // Nor for a thread that is gone.
        drop(waiting);
        exporter.send(vec![span()]);
        assert_eq!(counted(&exporter), Some(7));
    }
}
