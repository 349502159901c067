//! Access lines as JSON. The general formatter takes longer for a line than the proxy for its request, so these lines,
//! of which there is one a request, have their own.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;

use serde::Serialize;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::{NonBlocking, TARGET};

/// Writes events of target [`TARGET`] as flat JSON objects, one a line, and leaves all others alone. The layer that
/// writes those should filter `access` out.
#[derive(Clone, Debug)]
pub struct AccessLayer(NonBlocking);

impl AccessLayer {
    pub fn new(writer: NonBlocking) -> AccessLayer {
        AccessLayer(writer)
    }
}

impl<S: Subscriber> Layer<S> for AccessLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        thread_local!(static LINE: RefCell<Vec<u8>> = RefCell::default());
        if event.metadata().target() != TARGET {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            begin(line, OffsetDateTime::now_utc());
            event.record(&mut JsonFields(line));
            line.extend_from_slice(b"}\n");
            self.0.append(line);
        });
    }
}

/// RFC 3339 with milliseconds, then what does not change.
fn begin(line: &mut Vec<u8>, now: OffsetDateTime) {
    let ((year, month, day), (hour, minute, second, milli)) = (now.to_calendar_date(), now.to_hms_milli());
    // Writing to a Vec cannot fail.
    let _ = write!(
        line,
        "{{\"timestamp\":\"{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\
         \"level\":\"INFO\",\"target\":\"{TARGET}\"",
        u8::from(month),
    );
}

/// Appends `,"name":value`. Names are ours and need no escapes; texts are the client's and do.
struct JsonFields<'a>(&'a mut Vec<u8>);

impl JsonFields<'_> {
    fn append(&mut self, field: &Field, value: impl Serialize) {
        let _ = write!(self.0, ",\"{}\":", field.name());
        let before = self.0.len();
        if serde_json::to_writer(&mut *self.0, &value).is_err() {
            // A Display that fails must not break the line's syntax.
            self.0.truncate(before);
            self.0.extend_from_slice(b"null");
        }
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.append(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.append(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.append(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.append(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.append(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        let mut line = Vec::new();
        begin(&mut line, OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_007_000_000).unwrap());
        let expected = r#"{"timestamp":"2023-11-14T22:13:20.007Z","level":"INFO","target":"access""#;
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
