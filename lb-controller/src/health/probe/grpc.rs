//! The health protocol of gRPC: one unary call of `grpc.health.v1.Health/Check`.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

use super::Stream;

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// A reply is seven bytes.
const LONGEST_REPLY_BYTES: usize = 1024;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(prost::Message)]
struct Reply {
    /// 0 unknown, 1 serving, 2 not serving, 3 no such service.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `scheme` and address stand in the request.
pub(super) async fn ask(
    stream: Box<dyn Stream>,
    (scheme, address): (&str, SocketAddr),
    service: &str,
) -> Result<(), String> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| format!("cannot speak HTTP/2: {error}"))?;
    let call = async {
        let response = sender.send_request(request((scheme, address), service)?).await;
        let response = response.map_err(|error| format!("no answer to {METHOD}: {error}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("{METHOD} answered {}", response.status()));
        }
        // A call that failed has its status in the headers, and no trailers.
        check_status(response.headers())?;
        let body = Limited::new(response.into_body(), LONGEST_REPLY_BYTES).collect().await;
        let body = body.map_err(|error| format!("the reply to {METHOD} broke off: {error}"))?;
        if let Some(trailers) = body.trailers() {
            check_status(trailers)?;
        }
        read_reply(&body.to_bytes())
    };
    tokio::pin!(call);
    tokio::select! {
        healthy = &mut call => healthy,
        ended = connection => match ended {
            Ok(()) => call.await,
            Err(error) => Err(format!("no answer to {METHOD}: {error}")),
        },
    }
}

fn request((scheme, address): (&str, SocketAddr), service: &str) -> Result<Request<Full<Bytes>>, String> {
    let question = Question { service: service.to_owned() };
    let mut body = BytesMut::with_capacity(5 + question.encoded_len());
    body.put_u8(0);
    body.put_u32(question.encoded_len() as u32);
    question.encode(&mut body).map_err(|error| error.to_string())?;
    Request::post(format!("{scheme}://{address}{METHOD}"))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "lb-health")
        .body(Full::new(body.freeze()))
        .map_err(|error| error.to_string())
}

fn check_status(headers: &HeaderMap) -> Result<(), String> {
    match headers.get("grpc-status").map(|status| status.as_bytes()) {
        None | Some(b"0") => Ok(()),
        Some(b"5") => Err("the server knows no such service (gRPC status 5)".to_owned()),
        Some(b"12") => Err("the server does not speak grpc.health.v1 (gRPC status 12)".to_owned()),
        Some(other) => Err(format!("{METHOD} failed with gRPC status {}", other.escape_ascii())),
    }
}

/// One length-prefixed message, not compressed: nobody was told that we could read it otherwise.
pub(crate) fn read_reply(body: &[u8]) -> Result<(), String> {
    let message = match body {
        [0, a, b, c, d, message @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() => message,
        _ => return Err(format!("{} bytes that are no gRPC message", body.len())),
    };
    let reply = Reply::decode(message).map_err(|error| format!("a reply that cannot be read: {error}"))?;
    match reply.status {
        1 => Ok(()),
        2 => Err("the service says NOT_SERVING".to_owned()),
        3 => Err("the server knows no such service".to_owned()),
        other => Err(format!("the service says status {other}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_whole_reply_that_says_serving_is_good() {
        for (what, body, is_good) in [
            ("serving", &[0, 0, 0, 0, 2, 8, 1][..], true),
            ("not serving", &[0, 0, 0, 0, 2, 8, 2], false),
            ("unknown service", &[0, 0, 0, 0, 2, 8, 3], false),
            ("the default, which is written as nothing", &[0, 0, 0, 0, 0], false),
            ("with a field of a later version", &[0, 0, 0, 0, 4, 8, 1, 16, 9], true),
            ("the last value of a field counts", &[0, 0, 0, 0, 4, 8, 1, 8, 2], false),
            ("compressed", &[1, 0, 0, 0, 2, 8, 1], false),
            ("too short", &[0, 0, 0, 0, 3, 8, 1], false),
            ("too long", &[0, 0, 0, 0, 1, 8, 1], false),
            ("empty", &[], false),
        ] {
            assert_eq!(read_reply(body).is_ok(), is_good, "{what}");
        }
    }

    #[test]
    fn the_question_is_framed_as_grpc_wants_it() {
        let request = request(("http", "127.0.0.1:1".parse().unwrap()), "shop").unwrap();
        assert_eq!(request.headers()["te"], "trailers");
        let body =
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(request.into_body().collect());
        assert_eq!(body.unwrap().to_bytes(), b"\0\0\0\0\x06\x0a\x04shop"[..]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_reply(&body);
        }

        #[test]
        fn what_another_writes_is_read(status in any::<i32>()) {
            let reply = Reply { status };
            let mut body = vec![0, 0, 0, 0, reply.encoded_len() as u8];
            reply.encode(&mut body).unwrap();
            prop_assert_eq!(read_reply(&body).is_ok(), status == 1);
        }
    }
}
