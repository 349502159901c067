//! Answers that gRPC clients understand: "trailers only" (gRPC over HTTP/2), and for a step-up an `ErrorInfo` (AIP-193) that
//! programs can read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderValue, StatusCode};

use super::pages;
use super::terms::Terms;
use crate::serve::respond::OwnResponse;

const PERMISSION_DENIED: u8 = 7;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// Clients read the status from these headers and ignore the HTTP one.
pub(super) fn refusal(status: StatusCode, message: &str) -> OwnResponse {
    let code = match status {
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        _ => UNAVAILABLE,
    };
    trailers_only(code, message)
}

/// More proof is needed: how much, and where it is given; without a place, at the token's issuer.
pub(super) fn step_up(terms: &Terms, challenge_url: Option<&str>) -> OwnResponse {
    const MESSAGE: &str = "step-up required";
    let mut facts = vec![("acr_values", terms.acr.clone())];
    facts.extend(challenge_url.map(|url| ("challenge_url", url.to_owned())));
    facts.extend(terms.max_age_seconds.map(|seconds| ("max_age", seconds.to_string())));
    let details = STANDARD_NO_PAD.encode(error_info(MESSAGE, &facts));
    let mut response = trailers_only(UNAUTHENTICATED, MESSAGE);
    let details = HeaderValue::try_from(details).expect("base64 is header text");
    response.headers_mut().insert("grpc-status-details-bin", details);
    response
}

fn trailers_only(code: u8, message: &str) -> OwnResponse {
    let mut response = pages::own(StatusCode::OK, "application/grpc", String::new());
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    headers.insert("grpc-message", HeaderValue::try_from(message).unwrap_or(HeaderValue::from_static("")));
    response
}

/// `google.rpc.Status` with one `google.rpc.ErrorInfo`, in protobuf.
fn error_info(message: &str, facts: &[(&str, String)]) -> Vec<u8> {
    let mut info = [field(1, b"STEP_UP_REQUIRED"), field(2, b"lb")].concat();
    for (name, value) in facts {
        info.extend(field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()));
    }
    let any = [field(1, b"type.googleapis.com/google.rpc.ErrorInfo"), field(2, &info)].concat();
    // Field 1, a varint.
    let code = vec![1 << 3, UNAUTHENTICATED];
    [code, field(2, message.as_bytes()), field(3, &any)].concat()
}

/// A field of bytes: its tag, their count, and they themselves.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let mut encoded = vec![number << 3 | LENGTH_DELIMITED];
    let mut length = bytes.len();
    while length >= 0x80 {
        encoded.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    encoded.push(length as u8);
    encoded.extend_from_slice(bytes);
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::Message;

    use super::*;

    #[derive(Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }

    #[derive(Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    #[derive(Message)]
    struct ErrorInfo {
        #[prost(string, tag = "1")]
        reason: String,
        #[prost(string, tag = "2")]
        domain: String,
        #[prost(map = "string, string", tag = "3")]
        metadata: HashMap<String, String>,
    }

    #[test]
    fn another_reader_of_protobuf_finds_what_is_required_and_where_to_prove_it() {
        let url = format!("/.lb/challenge/{}", "a".repeat(200));
        let terms = Terms { acr: "urn:lb:acr:2".to_owned(), max_age_seconds: Some(300) };
        let response = step_up(&terms, Some(&url));
        assert_eq!(response.headers()["grpc-status"], "16");
        let details = STANDARD_NO_PAD.decode(&response.headers()["grpc-status-details-bin"]).unwrap();
        let status = Status::decode(&*details).unwrap();
        assert_eq!((status.code, status.message.as_str()), (16, "step-up required"));
        assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.ErrorInfo");
        let info = ErrorInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("STEP_UP_REQUIRED", "lb"));
        assert_eq!(info.metadata["challenge_url"], url);
        assert_eq!((&*info.metadata["acr_values"], &*info.metadata["max_age"]), ("urn:lb:acr:2", "300"));
    }
}
