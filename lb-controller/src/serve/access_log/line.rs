//! An access line, and the time that is told in it. Of JSON: the general formatter of log lines takes longer for one than the
//! proxy for its request.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use time::OffsetDateTime;

use super::terms::Format;
use super::{PassedThrough, Record, Share, TARGET, common, cut};
use crate::clock::coarse_time;
use crate::serve::digits::{push_ip, push_number, push_socket};

/// As RFC 9110 §5.6.7 has them, and every log.
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Where a line is put together; kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    /// The second that the dates tell.
    second: u64,
    /// `2026-01-31T23:59:59`.
    date: Vec<u8>,
    /// `31/Jan/2026:23:59:59 +0000`.
    common_date: Vec<u8>,
}

impl Line {
    /// This thread's.
    pub(super) fn with<T>(act: impl FnOnce(&mut Line) -> T) -> T {
        thread_local!(static LINE: RefCell<Line> = RefCell::default());
        LINE.with_borrow_mut(act)
    }

    /// The line of `record`.
    pub(super) fn of(&mut self, record: &Record, format: Format, duration_us: u64, share: Share) -> &[u8] {
        let now = coarse_time();
        self.tell_second(now);
        let is_combined = match format {
            Format::Common => false,
            Format::Combined => true,
            Format::Off | Format::Text | Format::Json => return self.json(record, now, duration_us, share),
        };
        self.bytes.clear();
        common::write(&mut self.bytes, record, &self.common_date, is_combined);
        &self.bytes
    }

    /// As flat JSON object. Names are ours and need no escapes; texts are the client's and do.
    fn json(&mut self, record: &Record, now: Duration, duration_us: u64, share: Share) -> &[u8] {
        self.begin(now);
        self.quoted("request_id", |bytes| record.id.write_to(bytes));
        self.quoted("client", |bytes| push_ip(bytes, record.client));
        self.text("method", record.method.as_str());
        self.quoted("protocol", |bytes| bytes.extend_from_slice(record.protocol().as_bytes()));
        self.text("host", cut(record.host()));
        self.text("path", cut(record.uri.path()));
        self.number("status", record.status.as_u16().into());
        self.number("bytes", record.sent_bytes);
        self.number("duration_us", duration_us);
        self.some("route", record.route.as_deref());
        if let Some(backend) = record.backend {
            self.quoted("backend", |bytes| push_socket(bytes, backend));
        }
        self.some("decision", record.decision);
        self.some("rule", record.rule.as_deref());
        self.some("error", record.error.as_deref());
        if let Some(trace) = &record.trace {
            self.quoted("trace_id", |bytes| trace.id().write_to(bytes));
        }
        if share > 1 {
            self.number("sampled_one_in", share.into());
        }
        self.bytes.extend_from_slice(b"}\n");
        &self.bytes
    }

    /// The line of a connection.
    pub(super) fn of_passed_through(&mut self, passed: &PassedThrough<'_>) -> &[u8] {
        let now = coarse_time();
        self.tell_second(now);
        self.begin(now);
        self.quoted("client", |bytes| push_ip(bytes, passed.client));
        self.text("server_name", cut(passed.server_name));
        self.text("pool", passed.pool);
        if let Some(backend) = passed.backend {
            self.quoted("backend", |bytes| push_socket(bytes, backend));
        }
        self.number("bytes_in", passed.bytes_in);
        self.number("bytes_out", passed.bytes_out);
        self.number("duration_us", passed.duration.as_micros() as u64);
        self.text("ended", passed.ended);
        self.bytes.extend_from_slice(b"}\n");
        &self.bytes
    }

    /// `now`: since the epoch.
    fn tell_second(&mut self, now: Duration) {
        if !self.date.is_empty() && self.second == now.as_secs() {
            return;
        }
        self.second = now.as_secs();
        let date = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(self.second);
        let ((year, month, day), (hour, minute, second)) = (date.to_calendar_date(), date.to_hms());
        let name = MONTHS[usize::from(u8::from(month)) - 1];
        let month = u8::from(month);
        self.date.clear();
        self.common_date.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(self.date, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        let _ = write!(self.common_date, "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
    }

    /// RFC 3339 with milliseconds, then what does not change.
    fn begin(&mut self, now: Duration) {
        self.bytes.clear();
        self.bytes.extend_from_slice(b"{\"timestamp\":\"");
        self.bytes.extend_from_slice(&self.date);
        let milliseconds = now.subsec_millis();
        self.bytes.extend([b'.'].into_iter().chain([100, 10, 1].map(|unit| b'0' + (milliseconds / unit % 10) as u8)));
        self.bytes.extend_from_slice(b"Z\",\"level\":\"INFO\",\"target\":\"");
        self.bytes.extend_from_slice(TARGET.as_bytes());
        self.bytes.push(b'"');
    }

    fn name(&mut self, name: &str) {
        self.bytes.extend_from_slice(b",\"");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        let _ = serde_json::to_writer(&mut self.bytes, text);
    }

    fn some(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// What needs no escapes.
    fn quoted(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        self.bytes.push(b'"');
        write(&mut self.bytes);
        self.bytes.push(b'"');
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        push_number(&mut self.bytes, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them_and_the_next_second_is_another() {
        let mut line = Line::default();
        for (milliseconds, expected, common) in [
            (1_700_000_000_007, "2023-11-14T22:13:20.007Z", "14/Nov/2023:22:13:20 +0000"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z", "14/Nov/2023:22:13:20 +0000"),
            (1_700_000_001_000, "2023-11-14T22:13:21.000Z", "14/Nov/2023:22:13:21 +0000"),
        ] {
            let now = Duration::from_millis(milliseconds);
            line.tell_second(now);
            line.begin(now);
            assert_eq!(String::from_utf8(line.common_date.clone()).unwrap(), common);
            let expected = format!(r#"{{"timestamp":"{expected}","level":"INFO","target":"access""#);
            assert_eq!(String::from_utf8(line.bytes.clone()).unwrap(), expected);
        }
    }
}
