//! Backends that record what they receive, byte for byte, and answer as scripted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Request line and headers, with their line ends.
    pub(crate) head: String,
    /// Decoded when it was chunked.
    pub(crate) body: Vec<u8>,
    /// Counts the origin's connections from 0.
    pub(crate) connection: usize,
}

impl Received {
    pub(crate) fn request_line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    /// All values of a header, by exact lower-case name.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(header, _)| header.to_ascii_lowercase() == name).map(|(_, value)| value).collect()
    }
}

/// A backend. Its threads end with the test.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

/// What a script may do: read what it was sent, write what it likes; returning `false` closes the connection.
type Script = dyn Fn(&Received, &mut TcpStream) -> bool + Send + Sync;

impl Origin {
    pub(crate) fn start(script: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin { address: listener.local_addr().unwrap(), received: Arc::default() };
        let (received, script): (_, Arc<Script>) = (origin.received.clone(), Arc::new(script));
        let connections = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (received, script) = (received.clone(), script.clone());
                let connection = connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(stream, connection, &received, &*script));
            }
        });
        origin
    }

    /// Answers every request with 200 and `text`, and keeps connections open.
    pub(crate) fn answering(text: &'static str) -> Origin {
        Origin::start(move |_, stream| ok(stream, text))
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn request_lines(&self) -> Vec<String> {
        self.received().iter().map(|received| received.request_line().to_owned()).collect()
    }
}

/// Writes a plain 200.
pub(crate) fn ok(stream: &mut TcpStream, text: &str) -> bool {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).is_ok()
}

fn serve(mut stream: TcpStream, connection: usize, received: &Mutex<Vec<Received>>, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((head, body)) = read_request(&mut reader) {
        let request = Received { head, body, connection };
        received.lock().unwrap().push(request.clone());
        if !script(&request, &mut stream) {
            // `reader` holds a second descriptor, so dropping alone would not close.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let value = |name: &str| lower.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut body = Vec::new();
    if value("transfer-encoding:") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = value("content-length:") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    }
    Some((head, body))
}
