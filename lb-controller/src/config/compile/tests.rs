use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use lb_datapath::{Limits, Rate, Rates};

/// Each file of `tests/mistakes` is one row: its name says what holds, above the line is a configuration, below what is
/// said of it.
#[test]
fn every_mistake_is_shown_at_its_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/compile/tests/mistakes");
    let rows: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    for row in rows {
        let text = fs::read_to_string(&row).unwrap();
        let (source, expected) = text.split_once("-----\n").unwrap();
        match compile("lb.yaml", source, Path::new("/etc/lb")) {
            Ok(config) => panic!("{}: accepted as {config:?}", row.display()),
            Err(diagnostics) => assert_eq!(format!("{diagnostics}\n"), expected, "{}", row.display()),
        }
    }
}

/// Of `password`; made by `lb-controller hash-password`.
const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn there_is_room_for_so_many_backends_in_all_pools_together_and_for_none_more() {
    use lb_common::maps::MAX_BACKENDS;
    let pool = |name: &str, backends: usize| {
        let address = |number: usize| format!("\"10.{}.{}.{}:80\"", number >> 16, (number >> 8) & 255, number & 255);
        let addresses: Vec<String> = (1..=backends).map(address).collect();
        format!("  - {{name: {name}, backends: [{}]}}\n", addresses.join(", "))
    };
    let compiled = |second: usize| {
        let pools = pool("a", MAX_BACKENDS - 100) + &pool("b", second);
        let source = format!("pools:\n{pools}routes: [{{path: /, pool: a}}, {{path: /b, pool: b}}]\n");
        compile("lb.yaml", &source, Path::new("/etc/lb"))
    };
    assert_eq!(compiled(100).unwrap().pools[1].backends.len(), 100);
    let said = compiled(101).unwrap_err().to_string();
    assert!(said.starts_with("error: at most 16384 backends in all pools together\n --> lb.yaml:3:"), "{said:.100}");
}

#[test]
fn the_example_is_short_and_good() {
    let example = include_str!("../../../../examples/demo.yaml");
    assert!(example.lines().count() <= 25);
    let source = example
        .replace("password_hash: filled in by the demo", &format!("password_hash: {PASSWORD_HASH}"))
        .replace("totp_secret: filled in by the demo", "totp_secret: gezd gnbv gy3t qojq gezd gnbv gy3t qojq");
    let config = compile("demo.yaml", &source, Path::new("/etc/lb")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.services[0].vips.len(), 2);
    assert_eq!(config.pools[0].health.interval, Duration::from_millis(250));
    assert_eq!(config.routes.iter().map(|route| &*route.label).collect::<Vec<_>>(), ["*/open/**", "*/**"]);
    assert_eq!(config.users[0].totp_secret.as_deref(), Some(&b"12345678901234567890"[..]));
    assert_eq!(config.rules.rule_ids().collect::<Vec<_>>(), ["refund-over-limit"]);
    assert!(!format!("{config:?}").contains("argon2id"), "secrets are not for logs");
}

const LEAST: &str = "pools: {name: shop, backends: \"10.0.0.1:80\"}\nroutes: {path: /**, pool: shop}\n";

#[test]
fn the_manual_shows_what_is_accepted_and_the_defaults_as_they_are() {
    let manual = include_str!("../../../../docs/configuration.md");
    let blocks: Vec<&str> = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    // The files that the manual names, as it shows them.
    let folder = tempfile::tempdir().unwrap();
    let texts = manual.split("```yaml title=\"texts.yaml\"\n").nth(1).and_then(|rest| rest.split("```").next());
    std::fs::write(folder.path().join("texts.yaml"), texts.unwrap()).unwrap();
    std::fs::write(folder.path().join("logo.svg"), "<svg/>").unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["edge.internal".to_owned()]).unwrap();
    for (name, text) in [
        ("backends.pem", pair.cert.pem()),
        ("edge.pem", pair.cert.pem()),
        ("edge.key", pair.signing_key.serialize_pem()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    std::fs::write(folder.path().join("collector.pem"), "read when it is used").unwrap();
    std::fs::write(folder.path().join("otlp.headers"), "authorization: Bearer secret\n").unwrap();
    let configs: Vec<Config> = blocks
        .iter()
        .map(|block| if block.starts_with("rules:") { [LEAST, block].concat() } else { (*block).to_owned() })
        .map(|source| compile("lb.yaml", &source, folder.path()).unwrap_or_else(|errors| panic!("{errors}")))
        .collect();
    assert_eq!(configs.len(), 5);
    assert_eq!(format!("{:?}", configs[0].step_up), format!("{:?}", crate::config::StepUpConfig::default()));
    assert_eq!(configs[0].pools[0].health, crate::config::HealthConfig::default());
    assert_eq!(configs[0].state_dir, Path::new(DEFAULT_STATE_DIR));
}

#[test]
fn what_is_left_out_has_a_sound_default() {
    let config = compile("lb.yaml", LEAST, Path::new("/etc/lb")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.state_dir, Path::new("/var/lib/lb"));
    assert_eq!(config.pools[0].backends, [crate::config::BackendConfig::from(SocketAddr::from(([10, 0, 0, 1], 80)))]);
    assert!(!config.routes[0].public, "a session is needed unless the route says otherwise");
    assert!(config.trusted_proxies.is_empty(), "nobody is believed unless the file says so");
    assert!(config.rules.is_empty() && config.services.is_empty() && config.metrics.is_none());
}

/// The limits of a service, and of new flows, in a file with these two sections of limits.
fn limits_of(defaults: &str, own: &str) -> Result<(Limits, Rate), Diagnostics> {
    let source = format!("{LEAST}{defaults}\nservices: [{{name: s, vips: 198.51.100.1, port: 443, limits: {own}}}]\n");
    compile("lb.yaml", &source, Path::new("")).map(|config| (config.services[0].limits, config.new_flows))
}

const fn rate(per_second: u64, burst: u64) -> Rate {
    Rate { per_second, burst }
}

#[test]
fn a_verified_source_always_has_a_limit_of_its_own() {
    for (own, expected) in [
        ("{per_source: 50}", rate(50, 5)),
        ("{source: {packets_per_second: 50}}", rate(50, 5)),
        ("{per_service: 4000}", rate(1000, 100)),
        ("{per_source: 50, per_verified_source: 70}", rate(70, 7)),
        ("{per_source: 50, verified: {packets_per_second: 70, burst_packets: 1}}", rate(70, 1)),
    ] {
        let (limits, _) = limits_of("", own).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(limits.verified, expected, "{own}");
    }
    for unlimited in ["{per_verified_source: 0}", "{verified: {packets_per_second: 0}}"] {
        assert!(limits_of("", unlimited).is_err(), "{unlimited}");
    }
}

#[test]
fn a_service_says_what_it_has_otherwise_than_the_rest() {
    let defaults = "limits: {source: {packets_per_second: 1000, syns_per_second: 20, burst_syns: 60}, \
                    network: {bytes_per_second: 10MiB}, verified: {packets_per_second: 7}, new_flows_per_second: 5000}";
    let own = "{source: {packets_per_second: 0, bytes_per_second: 1MiB, burst_bytes: 2MiB}, per_service: 4000}";
    let (limits, new_flows) = limits_of(defaults, own).unwrap_or_else(|errors| panic!("{errors}"));
    let mib = 1 << 20;
    assert_eq!(limits.source, Rates { packets: rate(0, 0), syns: rate(20, 60), bytes: rate(mib, 2 * mib) });
    assert_eq!(limits.network, Rates { bytes: rate(10 * mib, mib), ..Rates::default() });
    assert_eq!(limits.service, Rates::of_packets(rate(4000, 400)));
    assert_eq!((limits.verified, new_flows), (rate(7, 0), rate(5000, 500)));
}

#[test]
fn relative_files_start_at_the_folder_of_the_configuration() {
    let source = "pools: {name: shop, backends: \"10.0.0.1:80\"}\nroutes: {path: /**, pool: shop}\n\
                  state_dir: state\ncertificates: [{certificate: a.pem, key: /keys/a.pem}]\n";
    let config = compile("lb.yaml", source, Path::new("/etc/lb")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.state_dir, Path::new("/etc/lb/state"));
    assert_eq!(config.certificates[0].certificate, Path::new("/etc/lb/a.pem"));
    assert_eq!(config.certificates[0].key, Path::new("/keys/a.pem"));
}

/// As issue after issue of parsers shows, a small file can stand for a huge one, or for a deep one.
#[test]
fn a_bomb_is_refused_quickly() {
    let laughs = (1..12).map(|level| format!("l{level}: &l{level} [{}]\n", format!("*l{}, ", level - 1).repeat(10)));
    let laughs = format!("l0: &l0 [lol]\n{}", laughs.collect::<String>());
    let sources =
        [laughs, "[".repeat(100_000), format!("{}x", "a: {".repeat(50_000)), "- ".repeat(50_000), "? ".repeat(50_000)];
    for source in sources {
        let begin = std::time::Instant::now();
        assert!(compile("lb.yaml", &source, Path::new("")).is_err());
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", &source[..20]);
    }
}

#[test]
fn thousands_of_rules_are_no_bomb() {
    let mut source =
        "pools: {name: shop, backends: \"10.0.0.1:80\"}\nroutes: {path: /**, pool: shop}\nrules:\n".to_owned();
    for number in 0..2_000 {
        source += &format!(
            "  - id: rule-{number}\n    match: {{hosts: [h{}.example], methods: [POST], paths: [/p{number}/**]}}\n    \
             body: {{facts: {{amount: {{pointer: /amount, kind: decimal2}}}}}}\n    when: body.amount > {number}.50 && session.user != \"root\"\n    \
             require: {{methods: [totp], max_age: 5m}}\n",
            number % 100
        );
    }
    let config = compile("lb.yaml", &source, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.rules.len(), 2_000);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_reading_panic(source in "([a-z]{1,8}|pools|rules|when|id|[:\\[\\]{}\"'|>&*!%@#,~\\-\n ]|  |: |- |\\PC){0,40}") {
        if let Err(diagnostics) = compile("lb.yaml", &source, Path::new("/etc/lb")) {
            proptest::prop_assert!(diagnostics.to_string().starts_with("error: "));
        }
    }
}

/// A pair of a certificate for `name` and its key, both in PEM.
fn pair_for(name: &str) -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

#[test]
fn files_of_tls_to_backends_belong_together_and_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let ((certificate, key), (_, other)) = (pair_for("edge.internal"), pair_for("edge.internal"));
    write("edge.pem", &certificate);
    let source = LEAST.replace(
        "backends:",
        "tls: {ca: edge.pem, client_certificate: edge.pem, client_key: edge.key, server_name: \"::1\"}, backends:",
    );
    for (what, key, says) in [
        ("another key", &*other, "this key and the certificate make no pair"),
        ("no key", &certificate, "cannot be read"),
        ("its key", &key, ""),
    ] {
        write("edge.key", key);
        match compile("lb.yaml", &source, folder.path()) {
            Ok(config) => {
                assert_eq!(config.taken_in.len(), 3, "a change of any of them is a change of the configuration");
                let tls = config.pools[0].tls.as_ref().unwrap();
                assert!(tls.identity.is_some() && tls.authorities.len() == 1, "{what}");
                assert!(!format!("{config:?}").contains(key.lines().nth(1).unwrap()), "secrets are not for logs");
                assert!(says.is_empty(), "{what}");
            }
            Err(errors) => assert!(!says.is_empty() && errors.to_string().contains(says), "{what}: {errors}"),
        }
    }
}
