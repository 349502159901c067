//! An issuer of access tokens on this machine: over TLS, as the gateway demands it, and with one key.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::json;

pub(crate) const AUDIENCE: &str = "https://api.example";

pub(crate) struct Issuer {
    pub(crate) url: String,
    /// The authority of its certificate, in PEM.
    pub(crate) ca: PathBuf,
    key: EncodingKey,
}

impl Issuer {
    /// Serves until the process ends.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Issuer> {
        let tls_key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&tls_key)?;
        let ca = folder.join("issuer.pem");
        std::fs::write(&ca, certificate.pem())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivatePkcs8KeyDer::from(tls_key.serialize_der()).into();
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let signing = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let key = EncodingKey::from_ec_der(signing.serialized_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        jwk.common.key_id = Some("bench".to_owned());
        let metadata = json!({"issuer": url, "jwks_uri": format!("{url}/jwks")}).to_string();
        let keys = json!({ "keys": [jwk] }).to_string();
        let tls = Arc::new(tls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &tls, &metadata, &keys);
            }
        });
        Ok(Issuer { url, ca, key })
    }

    /// An access token of a person, such as providers sign; each `number` makes another.
    pub(crate) fn token(&self, number: usize) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("bench".to_owned());
        header.typ = Some("at+jwt".to_owned());
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "carol", "client_id": "app", "jti": number.to_string(),
            "scope": "orders:read orders:write", "groups": ["staff", "billing"], "acr": "silver",
            "iat": now, "exp": now + 3600, "auth_time": now - 60,
        });
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

/// One request of a connection.
fn answer(stream: TcpStream, tls: &Arc<ServerConfig>, metadata: &str, keys: &str) -> anyhow::Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(tls.clone())?, stream);
    let mut lines = BufReader::new(&mut stream).lines();
    let asked = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = if asked.contains("/jwks") { keys } else { metadata };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}
