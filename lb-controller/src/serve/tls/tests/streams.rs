//! A stream that writes when it is told to, with tokio's own at the other end.

use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ProtocolVersion, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client};

use super::resumption::Stage;
use super::*;
use crate::serve::front::Hello;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// Long enough for what was sent to arrive.
const MOMENT: Duration = Duration::from_millis(100);

type Client = client::TlsStream<TcpStream>;

async fn connected(stage: &Stage, version: &'static SupportedProtocolVersion) -> (TlsStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let edge = stage.edge();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let hello = Hello::read(stream).await.unwrap();
        TlsStream::accept(hello.stream, hello.bytes, edge.current.load_full()).await.unwrap()
    };
    let name = ServerName::try_from("shop.example").unwrap();
    let connect = TlsConnector::from(stage.client(version)).connect(name, stream);
    let (server, client) = tokio::join!(accept, connect);
    (server, client.unwrap())
}

/// Whether bytes are there for the client that it has not read yet.
async fn has_arrived(client: &Client) -> bool {
    let mut byte = [0];
    let peek = tokio::time::timeout(MOMENT, client.get_ref().0.peek(&mut byte)).await;
    peek.is_ok_and(|peeked| peeked.is_ok_and(|bytes| bytes > 0))
}

#[tokio::test]
async fn what_is_written_leaves_with_the_next_flush_and_the_tickets_leave_with_it() {
    for version in VERSIONS {
        let (mut server, mut client) = connected(&Stage::new(), version).await;
        server.write_all(b"one, ").await.unwrap();
        server.write_all(b"two").await.unwrap();
        assert!(!has_arrived(&client).await, "{version:?}");
        assert_eq!(client.get_ref().1.tls13_tickets_received(), 0);
        server.flush().await.unwrap();
        let mut read = [0; 8];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one, two", "{version:?}");
        let tickets = client.get_ref().1.tls13_tickets_received();
        assert_eq!(tickets > 0, version.version == ProtocolVersion::TLSv1_3, "{tickets} with {version:?}");
    }
}

#[tokio::test]
async fn a_shutdown_sends_what_was_written_and_then_the_goodbye() {
    for version in VERSIONS {
        let (mut server, mut client) = connected(&Stage::new(), version).await;
        server.write_all(b"the end").await.unwrap();
        server.shutdown().await.unwrap();
        let mut read = Vec::new();
        // An end without TLS' own goodbye would be an error.
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"the end", "{version:?}");
        client.write_all(b"mine").await.unwrap();
        client.shutdown().await.unwrap();
        read.clear();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"mine", "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_writer_and_loses_nothing() {
    for version in VERSIONS {
        let (mut server, mut client) = connected(&Stage::new(), version).await;
        let mut written = 0;
        while let Ok(done) = tokio::time::timeout(MOMENT, server.write(&[b'x'; 10_000])).await {
            written += done.unwrap();
            assert!(written < 64 << 20, "{version:?}: it takes without end");
        }
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            read.len()
        });
        server.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap(), written, "{version:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_record_end_the_connection_and_the_client_is_told() {
    for version in VERSIONS {
        let (mut server, mut client) = connected(&Stage::new(), version).await;
        client.get_mut().0.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut read = [0; 8];
        let error = server.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{version:?}");
        assert!(has_arrived(&client).await, "{version:?}: no alert");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_off_is_told_from_one_that_ends() {
    for (version, says_goodbye) in VERSIONS.into_iter().flat_map(|version| [(version, true), (version, false)]) {
        let (mut server, mut client) = connected(&Stage::new(), version).await;
        client.write_all(b"all of it").await.unwrap();
        match says_goodbye {
            true => client.shutdown().await.unwrap(),
            false => client.get_mut().0.shutdown().await.unwrap(),
        }
        let mut read = [0; 4];
        server.read_exact(&mut read).await.unwrap();
        let mut rest = Vec::new();
        let ended = server.read_to_end(&mut rest).await.map_err(|error| error.kind());
        assert_eq!([&read, &rest[..]].concat(), b"all of it");
        let expected = if says_goodbye { Ok(5) } else { Err(std::io::ErrorKind::UnexpectedEof) };
        assert_eq!(ended, expected, "{version:?}, {says_goodbye}");
    }
}

#[tokio::test]
async fn whoever_reads_slowly_gets_everything() {
    const LENGTH: usize = 8 * 1024 * 1024;
    for version in VERSIONS {
        let (mut server, mut client) = connected(&Stage::new(), version).await;
        let body: Vec<u8> = (0..LENGTH).map(|place| (place % 249) as u8).collect();
        let write = async {
            server.write_all(&body).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let read = async {
            let mut read = vec![0; LENGTH];
            for piece in read.chunks_mut(LENGTH / 8) {
                // Until nothing more goes into the socket.
                tokio::time::sleep(Duration::from_millis(10)).await;
                client.read_exact(piece).await.unwrap();
            }
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            read
        };
        let ((), read) = tokio::join!(write, read);
        assert!(read == body, "{version:?}");
    }
}

#[tokio::test]
async fn a_request_may_come_with_the_end_of_the_handshake_and_a_goodbye() {
    let (stage, listener) = (Stage::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (edge, address) = (stage.edge(), listener.local_addr().unwrap());
    let accept = async {
        let hello = Hello::read(listener.accept().await.unwrap().0).await.unwrap();
        let mut server = TlsStream::accept(hello.stream, hello.bytes, edge.current.load_full()).await.unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        read
    };
    let connect = async {
        let name = ServerName::try_from("shop.example").unwrap();
        let mut client = rustls::ClientConnection::new(stage.client(&version::TLS13), name).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        stream.write_all(&bytes).await.unwrap();
        while client.is_handshaking() {
            bytes.resize(8 * 1024, 0);
            let read = stream.read(&mut bytes).await.unwrap();
            client.read_tls(&mut &bytes[..read]).unwrap();
            client.process_new_packets().unwrap();
        }
        std::io::Write::write_all(&mut client.writer(), b"GET / HTTP/1.0\r\n\r\n").unwrap();
        client.send_close_notify();
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        stream.write_all(&bytes).await.unwrap();
        stream
    };
    let (read, _client) = tokio::join!(accept, connect);
    assert_eq!(read, b"GET / HTTP/1.0\r\n\r\n");
}
