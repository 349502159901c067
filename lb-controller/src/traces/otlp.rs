//! Spans in the protocol of OpenTelemetry collectors (OTLP 1.x, over HTTP in protobuf): as much of
//! `opentelemetry.proto.collector.trace.v1` as is sent and read here.

use prost::Message as _;

use super::span::{Span, Value};

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    /// 0 unset, 1 ok, 2 error.
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "OneValue", tags = "1, 3")]
    value: Option<OneValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OneValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// The body of a request that hands over `spans`.
pub(super) fn request(service_name: &str, spans: &[Span]) -> Vec<u8> {
    const STATUS_ERROR: i32 = 2;
    let message = |span: &Span| SpanMessage {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
        name: span.name.clone(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: span.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        links: span.link.iter().map(|(trace, id)| link(trace.bytes(), id.bytes())).collect(),
        status: span.has_failed.then_some(Status { code: STATUS_ERROR }),
    };
    let version = env!("CARGO_PKG_VERSION");
    let resource = [("service.name", service_name), ("service.version", version)];
    let scope_spans = ScopeSpans {
        scope: Some(Scope { name: "lb-controller".to_owned(), version: version.to_owned() }),
        spans: spans.iter().map(message).collect(),
    };
    let resource = Resource { attributes: resource.map(|(key, text)| attribute(key, &text.into())).to_vec() };
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans] };
    Request { resource_spans: vec![resource_spans] }.encode_to_vec()
}

fn attribute(key: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => OneValue::Text(text.clone()),
        Value::Number(number) => OneValue::Number(*number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn link(trace: &[u8; 16], span: &[u8; 8]) -> Link {
    Link { trace_id: trace.to_vec(), span_id: span.to_vec() }
}

/// How many of the spans a collector that answered 200 did not take. An answer that is none of these takes all.
pub(super) fn rejected(body: &[u8]) -> u64 {
    let response = Response::decode(body).ok();
    let rejected = response.and_then(|response| Some(response.partial_success?.rejected_spans));
    rejected.and_then(|rejected| u64::try_from(rejected).ok()).unwrap_or(0)
}
