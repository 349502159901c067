//! A client over h2 whose streams a test moves itself.

use std::future::Future;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::ServerName;

use super::client::config;
use super::edge::Edge;

/// Runs `test` on a runtime of its own, with a connection to the edge.
pub(crate) fn with_connection<Output>(edge: &Edge, test: impl AsyncFnOnce(SendRequest<Bytes>) -> Output) -> Output {
    block_on(async { test(connect(edge).await).await })
}

pub(crate) fn block_on<Output>(test: impl Future<Output = Output>) -> Output {
    let within = async { tokio::time::timeout(std::time::Duration::from_secs(30), test).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(within).expect("it takes too long")
}

pub(crate) async fn connect(edge: &Edge) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(config(edge, b"h2"));
    let stream = connector.connect(ServerName::try_from("shop.example").unwrap(), stream).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}
