//! How the CLI asks a running controller: HTTP over its unix socket.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::instance::Instance;

/// A local answer takes milliseconds; after this the controller hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no controller answers at {}; start one with `lb-controller run --config FILE`", socket.display())]
    NotRunning { socket: PathBuf },
    #[error("{} is not ours to open; run as the user that runs the controller (root)", socket.display())]
    Permission { socket: PathBuf },
    #[error("the controller answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the controller did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Slow,
    #[error("the controller ended, or another took its place; run the command again to go on with that one")]
    Gone,
    #[error("the answer was cut short or not understood; are CLI and controller of one version?")]
    Garbled(#[source] anyhow::Error),
}

/// GETs `path` and reads the JSON answer.
pub fn get<A: DeserializeOwned>(instance: &Instance, path: &str) -> Result<A, AskError> {
    ask(instance, Method::GET, path, Bytes::new())
}

/// POSTs `question` as JSON and reads the JSON answer.
pub fn post<Q: Serialize, A: DeserializeOwned>(instance: &Instance, path: &str, question: &Q) -> Result<A, AskError> {
    let body = serde_json::to_vec(question).map_err(|error| AskError::Garbled(error.into()))?;
    ask(instance, Method::POST, path, Bytes::from(body))
}

fn ask<A: DeserializeOwned>(instance: &Instance, method: Method, path: &str, body: Bytes) -> Result<A, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AskError::Garbled(error.into()))?;
    let exchange = exchange(instance.admin_socket(), method, path, body);
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_WITHIN, exchange).await });
    let (status, bytes) = answer.map_err(|_| AskError::Slow)??;
    if !status.is_success() {
        return Err(AskError::Refused { status, text: String::from_utf8_lossy(&bytes).trim().to_owned() });
    }
    serde_json::from_slice(&bytes).map_err(|error| AskError::Garbled(error.into()))
}

/// POSTs `question` as JSON and gives each line of the answer to `take` as it comes, until the answer ends, `take` returns
/// `false`, or SIGINT comes.
pub fn follow<Q: Serialize>(
    instance: &Instance,
    path: &str,
    question: &Q,
    take: impl FnMut(&[u8]) -> anyhow::Result<bool>,
) -> Result<(), AskError> {
    let body = serde_json::to_vec(question).map_err(|error| AskError::Garbled(error.into()))?;
    let following = async {
        let response = begin(instance.admin_socket(), Method::POST, path, Bytes::from(body));
        let (response, connection) =
            tokio::time::timeout(ANSWER_WITHIN, response).await.map_err(|_| AskError::Slow)??;
        let status = response.status();
        if !status.is_success() {
            let text = response.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
            return Err(AskError::Refused { status, text: String::from_utf8_lossy(&text).trim().to_owned() });
        }
        let ended = tokio::select! {
            ended = each_line(response.into_body(), take) => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        connection.abort();
        ended
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AskError::Garbled(error.into()))?;
    runtime.block_on(following)
}

async fn each_line(mut body: Incoming, mut take: impl FnMut(&[u8]) -> anyhow::Result<bool>) -> Result<(), AskError> {
    let mut begun = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| AskError::Gone)?.into_data() else { continue };
        begun.extend_from_slice(&data);
        let mut taken = 0;
        while let Some(length) = begun[taken..].iter().position(|byte| *byte == b'\n') {
            if !take(&begun[taken..taken + length]).map_err(AskError::Garbled)? {
                return Ok(());
            }
            taken += length + 1;
        }
        begun.drain(..taken);
    }
    Ok(())
}

async fn exchange(socket: PathBuf, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), AskError> {
    let (response, connection) = begin(socket, method, path, body).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| AskError::Garbled(error.into()))?.to_bytes();
    connection.abort();
    Ok((status, bytes))
}

/// The answer as it begins, and what moves its connection.
async fn begin(
    socket: PathBuf,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), AskError> {
    let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => AskError::Permission { socket },
        _ => AskError::NotRunning { socket },
    })?;
    let garbled = |error: hyper::Error| AskError::Garbled(error.into());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "admin")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| AskError::Garbled(error.into()))?;
    let response = sender.send_request(request).await.map_err(garbled)?;
    Ok((response, connection))
}
