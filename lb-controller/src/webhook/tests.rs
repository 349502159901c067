use serde_json::json;

use super::testing::{SECRET, Service, endpoint};
use super::*;

#[tokio::test]
async fn a_call_is_signed_so_that_its_receiver_can_tell_who_made_it() {
    let service = Service::answering(200, "{}", Duration::ZERO).await;
    let reply = service.endpoint.post_json("msg_1", 1700, &json!({"to": "+49"})).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"{}"[..]));
    let (headers, body) = service.calls().remove(0);
    assert_eq!(&body[..], br#"{"to":"+49"}"#);
    let signed = [b"msg_1.1700.", &body[..]].concat();
    let signature = headers["webhook-signature"].to_str().unwrap().strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), &signed, &signature).unwrap();
}

#[tokio::test]
async fn slow_large_and_absent_services_cost_a_bounded_time_and_never_answer() {
    let slow = Service::answering(200, "{}", Duration::from_secs(5)).await;
    let error = slow.endpoint.post_json("1", 1, &json!({})).await.unwrap_err();
    assert!(matches!(error, WebhookError::TooSlow { within_ms: 500, .. }), "{error}");
    let large = Service::answering(200, &"x".repeat(LONGEST_REPLY_BYTES + 1), Duration::ZERO).await;
    let error = large.endpoint.post_json("1", 1, &json!({})).await.unwrap_err();
    assert!(matches!(error, WebhookError::BadReply { .. }), "{error}");
    let closed = Endpoint::new(&endpoint("http://127.0.0.1:1/", Duration::from_secs(1))).unwrap();
    let error = closed.post_json("1", 1, &json!({})).await.unwrap_err();
    assert!(matches!(error, WebhookError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let service = Service::answering(307, "", Duration::ZERO).await;
    assert_eq!(service.endpoint.post_form("a=b".to_owned()).await.unwrap().status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(service.calls().len(), 1);
}

#[test]
fn authorities_that_are_none_are_told() {
    let config =
        |ca: &str| EndpointConfig { ca: Some(ca.into()), ..endpoint("https://a.example/", Duration::from_secs(1)) };
    assert!(format!("{:#}", Endpoint::new(&config("")).err().unwrap()).contains("no certificate authority"));
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(format!("{:#}", Endpoint::new(&config(damaged)).err().unwrap()).contains("`ca`"));
}
