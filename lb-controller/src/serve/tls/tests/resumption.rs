//! Sessions that are resumed, by rustls itself at both ends and without a network.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::super::beginning;
use super::super::records::Records;
use super::*;

const HOUR: u64 = 3600;

/// Edges and a client that trusts them.
pub(super) struct Stage {
    dir: tempfile::TempDir,
    clock: Clock,
    config: TlsConfig,
    files: CertificateFiles,
}

impl Stage {
    pub(super) fn new() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path(), "shop", &["shop.example"], -1, 99);
        let config = TlsConfig { ticket_keys: Some(dir.path().join("secrets")), ..TlsConfig::default() };
        let stage = Stage { clock: Clock::fixed(now()), config, files, dir };
        stage.write_secrets(&["a"]);
        stage
    }

    /// Each secret is one letter, 32 times.
    fn write_secrets(&self, letters: &[&str]) {
        use base64::Engine as _;
        let line = |letter: &&str| base64::engine::general_purpose::STANDARD.encode(letter.repeat(32)) + "\n";
        let path = self.dir.path().join("aside");
        fs::write(&path, letters.iter().map(line).collect::<String>()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(path, self.dir.path().join("secrets")).unwrap();
    }

    pub(super) fn edge(&self) -> Arc<Tls> {
        self.edge_in(self.dir.path())
    }

    fn edge_in(&self, state_dir: &Path) -> Arc<Tls> {
        let first = prepare_first(wanted(std::slice::from_ref(&self.files)), self.clock.now()).unwrap();
        let store = CertificateStore::new(first, self.clock.clone());
        Tls::new(&self.config, state_dir, store, Arc::default(), PlainHttp::default(), self.clock.clone()).unwrap()
    }

    pub(super) fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.files.certificate).unwrap()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = Resumption::in_memory_sessions(8);
        Arc::new(client)
    }

    fn after(&self, seconds: u64) {
        self.clock.set(self.clock.now() + seconds);
    }
}

/// Shakes hands, reading whatever comes after; how that went.
fn connect(client: &Arc<ClientConfig>, edge: &Tls) -> HandshakeKind {
    let name = ServerName::try_from("shop.example").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = Records::new(edge.current.load_full()).unwrap();
    let mut began = None;
    for _ in 0..8 {
        let mut incoming = server.kept().to_vec();
        while client.wants_write() {
            client.write_tls(&mut incoming).unwrap();
        }
        beginning::within(&mut began, || server.receive(&mut incoming, |_| 0)).unwrap();
        client.read_tls(&mut server.outbox.waiting()).unwrap();
        server.outbox.advance(server.outbox.waiting().len());
        client.process_new_packets().unwrap();
    }
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    server.session.handshake_kind().unwrap()
}

#[test]
fn a_fleet_resumes_each_others_sessions_until_their_keys_are_two_periods_old() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let stage = Stage::new();
        let (first, second) = (stage.edge(), stage.edge());
        // At the beginning of a period, so that rows can count in periods.
        stage.clock.set(stage.clock.now() / (12 * HOUR) * 12 * HOUR + 1);
        let rows = [
            (0, HandshakeKind::Resumed, "at once"),
            (11 * HOUR, HandshakeKind::Resumed, "in the same period"),
            (23 * HOUR, HandshakeKind::Resumed, "in the next one"),
            (25 * HOUR, HandshakeKind::Full, "after two"),
        ];
        for (seconds, expected, what) in rows {
            let client = stage.client(version);
            stage.clock.set(stage.clock.now().next_multiple_of(12 * HOUR) + 1);
            [&first, &second].into_iter().for_each(|edge| edge.look());
            assert_eq!(connect(&client, &first), HandshakeKind::Full, "a new client");
            stage.after(seconds);
            [&first, &second].into_iter().for_each(|edge| edge.look());
            assert_eq!(connect(&client, &second), expected, "{what}, {version:?}");
        }
        // An edge whose clock goes a minute behind, at the turn of a period.
        let client = stage.client(version);
        stage.clock.set(stage.clock.now().next_multiple_of(12 * HOUR) + 1);
        first.look();
        assert_eq!(connect(&client, &first), HandshakeKind::Full);
        stage.clock.set(stage.clock.now() - 60);
        second.tickets.look();
        assert_eq!(connect(&client, &second), HandshakeKind::Resumed, "{version:?}");
    }
}

#[test]
fn secrets_change_by_hand_too_and_a_broken_file_changes_nothing() {
    let stage = Stage::new();
    let edge = stage.edge();
    let old = stage.client(&rustls::version::TLS13);
    assert_eq!(connect(&old, &edge), HandshakeKind::Full);
    fs::write(stage.dir.path().join("secrets"), "nonsense\n").unwrap();
    edge.look();
    assert_eq!(connect(&old, &edge), HandshakeKind::Resumed, "what is refused changes nothing");
    stage.write_secrets(&["b", "a"]);
    edge.look();
    assert_eq!(connect(&old, &edge), HandshakeKind::Resumed, "the old secret opens, the new one seals");
    stage.write_secrets(&["c", "b"]);
    edge.look();
    assert_eq!(connect(&old, &edge), HandshakeKind::Resumed);
    let unused = stage.client(&rustls::version::TLS13);
    assert_eq!(connect(&unused, &edge), HandshakeKind::Full);
    stage.write_secrets(&["e", "d"]);
    edge.look();
    assert_eq!(connect(&unused, &edge), HandshakeKind::Full, "its secret is gone");
}

#[test]
fn an_edge_of_its_own_goes_on_after_a_restart_and_forgets_old_keys() {
    let mut stage = Stage::new();
    stage.config.ticket_keys = None;
    let edge = stage.edge();
    let client = stage.client(&rustls::version::TLS13);
    assert_eq!(connect(&client, &edge), HandshakeKind::Full);
    drop(edge);
    let file = stage.dir.path().join("ticket-keys");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(&file).unwrap();
    let edge = stage.edge();
    assert_eq!(connect(&client, &edge), HandshakeKind::Resumed, "restarted");
    stage.after(13 * HOUR);
    edge.look();
    assert!(fs::read_to_string(&file).unwrap().starts_with(&first), "yesterday's still opens");
    assert_eq!(connect(&client, &edge), HandshakeKind::Resumed);
    stage.after(12 * HOUR);
    edge.look();
    assert!(!fs::read_to_string(&file).unwrap().contains(&first), "forgotten");
    let other = stage.edge_in(tempfile::tempdir().unwrap().path());
    assert_eq!(connect(&client, &other), HandshakeKind::Full, "another host's");
    // A file that a crash has cut short is no reason not to start.
    fs::write(&file, &first[..first.len() / 2]).unwrap();
    assert_eq!(connect(&client, &stage.edge()), HandshakeKind::Full);
}

#[test]
fn no_chain_of_tickets_outlives_its_full_handshake_by_two_periods() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let stage = Stage::new();
        let edge = stage.edge();
        let client = stage.client(version);
        let begun = stage.clock.now();
        assert_eq!(connect(&client, &edge), HandshakeKind::Full);
        while stage.clock.now() + 3 * HOUR <= begun + 24 * HOUR {
            stage.after(3 * HOUR);
            edge.look();
            assert_eq!(connect(&client, &edge), HandshakeKind::Resumed, "{version:?}");
        }
        stage.after(3 * HOUR);
        edge.look();
        assert_eq!(connect(&client, &edge), HandshakeKind::Full, "{version:?}");
        assert_eq!(connect(&client, &edge), HandshakeKind::Resumed, "and begins anew");
    }
}

#[test]
fn other_authorities_of_client_certificates_end_every_session() {
    let stage = Stage::new();
    let clients: Arc<ClientAuthorities> = Arc::default();
    let first = prepare_first(wanted(std::slice::from_ref(&stage.files)), stage.clock.now()).unwrap();
    let store = CertificateStore::new(first, stage.clock.clone());
    let edge =
        Tls::new(&stage.config, stage.dir.path(), store, clients.clone(), PlainHttp::default(), stage.clock.clone())
            .unwrap();
    let client = stage.client(&rustls::version::TLS13);
    assert_eq!(connect(&client, &edge), HandshakeKind::Full);
    assert_eq!(connect(&client, &edge), HandshakeKind::Resumed);
    // Whoever was not asked for a certificate is asked now, instead of going on without.
    clients.load(Some(&stage.files.certificate)).unwrap();
    assert_eq!(connect(&client, &edge), HandshakeKind::Full);
    assert_eq!(connect(&client, &edge), HandshakeKind::Resumed);
    clients.load(None).unwrap();
    assert_eq!(connect(&client, &edge), HandshakeKind::Full);
}

#[test]
fn tls_1_3_alone_is_spoken_where_it_is_the_least() {
    let mut stage = Stage::new();
    stage.config.minimum_version = TlsVersion::V1_3;
    let edge = stage.edge();
    let old = ClientConnection::new(stage.client(&rustls::version::TLS12), "shop.example".try_into().unwrap());
    let mut bytes = Vec::new();
    old.unwrap().write_tls(&mut bytes).unwrap();
    let mut server = Records::new(edge.current.load_full()).unwrap();
    assert!(server.receive(&mut bytes, |_| 0).is_err());
    assert!(server.outbox.waiting().starts_with(&[21]), "an alert says why");
    assert_eq!(connect(&stage.client(&rustls::version::TLS13), &edge), HandshakeKind::Full);
    stage.config.minimum_version = TlsVersion::V1_2;
    edge.apply(&stage.config, stage.dir.path()).unwrap();
    assert_eq!(connect(&stage.client(&rustls::version::TLS12), &edge), HandshakeKind::Full);
}

#[test]
fn the_post_quantum_exchange_is_agreed_on_with_who_offers_it_and_costs_others_no_round_trip() {
    use rustls::NamedGroup;
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let stage = Stage::new();
    let edge = stage.edge();
    let rows: [(&[&'static dyn rustls::crypto::SupportedKxGroup], NamedGroup); 4] = [
        (&[X25519MLKEM768, X25519], NamedGroup::X25519MLKEM768),
        (&[X25519], NamedGroup::X25519),
        (&[SECP256R1], NamedGroup::secp256r1),
        (&[X25519, X25519MLKEM768], NamedGroup::X25519),
    ];
    for (groups, expected) in rows {
        let mut client = (*stage.client(&rustls::version::TLS13)).clone();
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups.to_vec();
        client = {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&stage.files.certificate).unwrap()).unwrap();
            let mut other = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            other.alpn_protocols = std::mem::take(&mut client.alpn_protocols);
            other
        };
        let name = ServerName::try_from("shop.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = Records::new(edge.current.load_full()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.receive(&mut bytes, |_| 0).unwrap();
        let server = server.session;
        assert_eq!(server.negotiated_key_exchange_group().map(|group| group.name()), Some(expected));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full), "{expected:?}");
    }
}
