//! A service that answers every call as it is told, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::*;

pub(crate) const SECRET: &[u8] = b"a secret of both sides, long enough";

pub(crate) struct Service {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: EndpointConfig,
    calls: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Service {
    /// Answers each call with `status` and `body`, after `delay`.
    pub(crate) async fn answering(status: u16, body: &str, delay: Duration) -> Service {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let calls: Arc<Mutex<Vec<(HeaderMap, Bytes)>>> = Arc::default();
        let (seen, body) = (calls.clone(), Bytes::copy_from_slice(body.as_bytes()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, body) = (seen.clone(), body.clone());
                let answer = move |request: Request<Incoming>| {
                    let (seen, body) = (seen.clone(), body.clone());
                    async move {
                        let (parts, sent) = request.into_parts();
                        let sent = sent.collect().await.unwrap().to_bytes();
                        seen.lock().unwrap().push((parts.headers, sent));
                        tokio::time::sleep(delay).await;
                        http::Response::builder().status(status).body(Full::new(body))
                    }
                };
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        let config = endpoint(&url, Duration::from_millis(500));
        Service { endpoint: Endpoint::new(&config).unwrap(), config, calls }
    }

    /// What it was asked: headers and body of each call.
    pub(crate) fn calls(&self) -> Vec<(HeaderMap, Bytes)> {
        self.calls.lock().unwrap().clone()
    }
}

pub(crate) fn endpoint(url: &str, timeout: Duration) -> EndpointConfig {
    EndpointConfig { url: url.parse().unwrap(), secret: SECRET.to_vec().into(), timeout, ca: None }
}
