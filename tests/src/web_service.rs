//! A service of the operator's that the edge calls: it keeps what it was sent, and answers as the test says.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

type Script = dyn Fn(&Call) -> (StatusCode, String) + Send + Sync;

/// It serves, over plain HTTP, until the test's runtime ends.
#[derive(Debug)]
pub struct WebService {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl WebService {
    pub async fn start(script: impl Fn(&Call) -> (StatusCode, String) + Send + Sync + 'static) -> Result<WebService> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let service = WebService { address: listener.local_addr()?, calls: Arc::default() };
        let (calls, script): (_, Arc<Script>) = (service.calls.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, script) = (calls.clone(), script.clone());
                let serve = service_fn(move |request| answer(calls.clone(), script.clone(), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
                // Whoever called and went away is the edge, whose business that is.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(service)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no holder of this lock panics").clone()
    }
}

async fn answer(
    calls: Arc<Mutex<Vec<Call>>>,
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call { headers: head.headers, body };
    let (status, text) = script(&call);
    calls.lock().expect("no holder of this lock panics").push(call);
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}
