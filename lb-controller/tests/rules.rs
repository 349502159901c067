//! What rules make of requests, on the running program: `lb-controller run --listen`, with curl for a client.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lb-controller");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// An edge of its own, ended with the test.
struct Edge {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
    instance: String,
}

/// What curl got.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Edge {
    /// `rest` is the configuration beside pools and users; files of `tests/data` may be named as they are.
    fn start(name: &str, rest: &str) -> Edge {
        let folder = tempfile::tempdir().unwrap();
        for file in ["places.mmdb", "networks.mmdb"] {
            fs::copy(Path::new(DATA).join(file), folder.path().join(file)).unwrap();
        }
        fs::write(folder.path().join("lb.yaml"), configuration(backend(), rest)).unwrap();
        let address = free_address();
        let instance = format!("lb-rules-{name}-{}", std::process::id());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["--instance", &instance, "run", "--listen", &address.to_string(), "--config"])
            .arg(folder.path().join("lb.yaml"))
            .stderr(log)
            .spawn()
            .unwrap();
        let edge = Edge { child, folder, address, instance };
        edge.eventually("the edge answers", || edge.curl(&["/open"]).status == 200);
        edge.eventually("it takes commands", || edge.command(&["threat", "show"]).status.success());
        edge
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another file in place, as one should: by renaming.
    fn replace(&self, name: &str, content: &[u8]) {
        fs::write(self.file("aside"), content).unwrap();
        fs::rename(self.file("aside"), self.file(name)).unwrap();
    }

    fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(30), "{what}: not within 30 s\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The first argument is a path; the others are curl's.
    fn curl(&self, arguments: &[&str]) -> Answer {
        let url = format!("https://shop.example:{}{}", self.address.port(), arguments[0]);
        let resolve = format!("shop.example:{}:{}", self.address.port(), self.address.ip());
        let output = Command::new("curl")
            .args(["-sk", "--max-time", "20", "-D", "-", "--resolve", &resolve, &url])
            .args(&arguments[1..])
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Logs alice in; gives the file with her cookies.
    fn log_in(&self, jar: &str) -> String {
        let jar = self.file(jar).display().to_string();
        let answer = self.curl(&["/.lb/login", "-c", &jar, "-b", &jar, "-d", "user=alice&password=password"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        jar
    }

    fn status(&self, jar: &str, path: &str) -> u16 {
        self.curl(&[path, "-b", jar]).status
    }

    fn command(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM).args(["--instance", &self.instance]).args(arguments).output().unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(format!("/run/{}", self.instance));
    }
}

fn configuration(backend: SocketAddr, rest: &str) -> String {
    format!(
        "state_dir: state
pools: {{name: shop, backends: \"{backend}\", health: {{kind: tcp, interval: 100ms, timeout: 100ms, rise: 1}}}}
routes:
  - {{path: /open/**, pool: shop, public: true}}
  - {{path: /vault/**, pool: shop, labels: {{sensitivity: high}}}}
  - {{path: /**, pool: shop}}
trusted_proxies: [127.0.0.0/8]
users:
  - name: alice
    groups: [staff]
    password_hash: {}
    totp_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ
{rest}",
        password_hash()
    )
}

/// Of `password`, as cheap as Argon2 allows.
fn password_hash() -> String {
    use base64::Engine as _;
    let (salt, params) = (b"sixteen bytes ok", argon2::Params::new(8, 1, 1, None).unwrap());
    let mut hash = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(b"password", salt, &mut hash)
        .unwrap();
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
    format!("$argon2id$v=19$m=8,t=1,p=1${}${}", encode(salt), encode(&hash))
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Answers every request with 200 and closes the connection.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            });
        }
    });
    address
}

#[test]
fn a_limit_answers_429_and_says_when_to_come_again() {
    let edge = Edge::start("limit", "rules: [{id: slowly, match: {paths: [/export]}, limit: {rate: 2/h, by: user}}]");
    let jar = edge.log_in("jar");
    assert_eq!([edge.status(&jar, "/export"), edge.status(&jar, "/export")], [200, 200]);
    let refused = edge.curl(&["/export", "-b", &jar]);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.body.contains("urn:lb:problem:rate-limited"), "{refused:?}");
    let after = refused.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect("it says when");
    assert!((1790..=1800).contains(&after.trim().parse::<u64>().unwrap()), "{after}");
    assert_eq!(edge.status(&jar, "/other"), 200, "what the rule is not about is not limited");
}

#[test]
fn a_rule_ends_all_sessions_of_a_user_and_the_user_may_log_in_again() {
    let edge = Edge::start("revoke", "rules: [{id: out, match: {paths: [/stolen]}, revoke: true}]");
    let (laptop, phone) = (edge.log_in("laptop"), edge.log_in("phone"));
    assert_eq!([edge.status(&laptop, "/"), edge.status(&phone, "/")], [200, 200]);
    assert_eq!(edge.status(&laptop, "/stolen"), 401);
    assert_eq!([edge.status(&laptop, "/"), edge.status(&phone, "/")], [401, 401], "both are over");
    // Sessions of the second in which they ended are ended too.
    std::thread::sleep(Duration::from_millis(1100));
    let again = edge.log_in("again");
    assert_eq!(edge.status(&again, "/"), 200);
}

#[test]
fn the_threat_level_tightens_rules_at_once_and_ends_by_itself() {
    let rules = "rules: [{id: guarded, when: 'threat >= \"high\"', require: {methods: [totp]}}]";
    let edge = Edge::start("threat", rules);
    let jar = edge.log_in("jar");
    assert_eq!(edge.status(&jar, "/"), 200);
    let set = edge.command(&["threat", "set", "high", "--for", "3s", "--json"]);
    assert!(set.status.success(), "{set:?}");
    assert!(String::from_utf8_lossy(&set.stdout).contains("\"level\": \"high\""), "{set:?}");
    assert_eq!(edge.status(&jar, "/"), 401, "a code is asked for");
    edge.eventually("the level ends by itself", || edge.status(&jar, "/") == 200);
    let shown = edge.command(&["threat", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("normal"), "{shown:?}");
    let refused = edge.command(&["threat", "set", "high", "--for", "2d"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("to a day"), "{refused:?}");
}

#[test]
fn labels_sets_and_failed_logins_are_facts() {
    let rules = "
sets: {office: {file: office.txt}}
rules:
  - {id: vault, when: 'route.labels.sensitivity == \"high\"', require: {methods: [totp]}}
  - {id: office, match: {paths: [/staff]}, when: '!(client.address in sets.office)', deny: from the office only}
  - {id: guessed, match: {paths: [/account]}, when: 'signals.failed_logins_10m > 1', require: {methods: [totp]}}
  - {id: page, match: {paths: [/list]}, when: 'request.query[\"all\"] == \"1\"', deny: too much, on_missing: skip}
";
    let folder = tempfile::tempdir().unwrap();
    let office = folder.path().join("office.txt");
    fs::write(&office, "192.0.2.0/24\n").unwrap();
    let edge = Edge::start("labels", &rules.replace("office.txt", &office.display().to_string()));
    let jar = edge.log_in("jar");
    assert_eq!([edge.status(&jar, "/"), edge.status(&jar, "/vault/1")], [200, 401]);
    let staff = |address: &str| edge.curl(&["/staff", "-b", &jar, "-H", &format!("X-Forwarded-For: {address}")]).status;
    assert_eq!([staff("192.0.2.7"), staff("198.51.100.7")], [200, 403]);
    fs::write(folder.path().join("aside"), "198.51.100.0/24\n").unwrap();
    fs::rename(folder.path().join("aside"), &office).unwrap();
    edge.eventually("the set is followed", || [staff("192.0.2.7"), staff("198.51.100.7")] == [403, 200]);

    assert_eq!(edge.status(&jar, "/account"), 200);
    for _ in 0..3 {
        edge.curl(&["/.lb/login", "-d", "user=alice&password=wrong"]);
        std::thread::sleep(Duration::from_millis(2200));
    }
    assert_eq!(edge.status(&jar, "/account"), 401, "after failures the next visit proves more");
    assert_eq!([edge.status(&jar, "/list?all=0"), edge.status(&jar, "/list?%61ll=1")], [200, 403]);
}

#[test]
fn places_are_facts_and_a_new_database_is_taken_in() {
    let rules = "
geo: {country: places.mmdb, asn: networks.mmdb}
rules:
  - {id: abroad, match: {paths: [/pay]}, when: 'client.country != \"DE\"', deny: from home only, on_missing: deny}
  - {id: network, match: {paths: [/asn]}, when: 'client.asn != 64496', deny: another network}
  - {id: travel, match: {paths: [/travel]}, when: session.impossible_travel, require: {methods: [totp]}, on_missing: skip}
";
    let edge = Edge::start("places", rules);
    let jar = edge.log_in("jar");
    let from =
        |path: &str, address: &str| edge.curl(&[path, "-b", &jar, "-H", &format!("X-Forwarded-For: {address}")]).status;
    let (berlin, sydney, nowhere) = ("192.0.2.7", "198.51.100.7", "203.0.113.7");
    assert_eq!([from("/pay", berlin), from("/pay", sydney), from("/pay", nowhere)], [200, 403, 403]);
    assert_eq!(
        [from("/asn", berlin), from("/asn", sydney)],
        [200, 403],
        "what is not known is not let in by a rule that denies"
    );
    assert_eq!([from("/travel", berlin), from("/travel", sydney)], [200, 401], "nobody travels so fast");
    assert_eq!(from("/travel", berlin), 200, "the owner is where they were");
    edge.replace("places.mmdb", b"nonsense");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(from("/pay", berlin), 200, "a broken database is not taken");
    edge.replace("places.mmdb", &fs::read(Path::new(DATA).join("moved.mmdb")).unwrap());
    edge.eventually("the new database is in force", || [from("/pay", berlin), from("/pay", sydney)] == [403, 200]);
}

#[test]
fn check_runs_the_tests_in_the_file_and_explain_takes_a_curl_command() {
    let rules = "
rates: {exports: {match: {paths: [/export/**]}, by: user, within: 10m}}
rules:
  - id: refund-over-limit
    match: {methods: [POST], paths: [/refunds]}
    body: {facts: {amount: {pointer: /amount, kind: decimal2}}}
    when: body.amount > 500.00
    require: {methods: [totp], max_age: 5m}
  - {id: bulk, match: {paths: [/export/**]}, when: rate.exports > 20, require: {level: 2}}
  - {id: night, match: {paths: [/admin]}, when: '!time.within(\"Europe/Berlin\", \"Mon-Fri 08:00-18:00\")', deny: closed}
tests:
  - {name: small, request: 'curl https://h/refunds --json ''{\"amount\": 5}''', user: alice, expect: {decision: allow}}
  - name: large
    request: curl https://h/refunds -F amount=501
    user: alice
    factors: {totp: 6m}
    expect: {decision: challenge, rule: refund-over-limit, methods: [totp]}
  - {name: fresh, request: curl https://h/refunds -d amount=501, user: alice, factors: {totp: 4m}, expect: {decision: allow}}
  - {name: bulk, request: curl h/export/a, user: alice, facts: {rate.exports: 21}, expect: {decision: challenge, rule: bulk}}
  - {name: night, request: curl h/admin, user: alice, at: 2026-11-30T18:00:00+01:00, expect: {decision: deny, rule: night}}
  - {name: day, request: curl h/admin, user: alice, at: 2026-11-30T17:59:59+01:00, expect: {decision: allow}}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.yaml");
    let check = |text: &str| {
        fs::write(&file, configuration(free_address(), text)).unwrap();
        Command::new(PROGRAM).arg("check").arg(&file).output().unwrap()
    };
    let good = check(rules);
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("6 tests passed"), "{good:?}");

    let explained = Command::new(PROGRAM)
        .args(["explain", "--json", "--user", "alice", "--factor", "totp=10m", "--config"])
        .arg(&file)
        .args(["--", "curl", "-X", "POST", "https://h/refunds", "--json", "{\"amount\": 900}"])
        .output()
        .unwrap();
    let explained: serde_json::Value =
        serde_json::from_slice(&explained.stdout).unwrap_or_else(|_| panic!("{explained:?}"));
    assert_eq!((explained["decision"].as_str(), explained["methods"][0].as_str()), (Some("challenge"), Some("totp")));

    let bad = check(&rules.replace("body.amount > 500.00", "body.amount > 600.00"));
    assert_eq!(bad.status.code(), Some(3), "{bad:?}");
    let (shown, why) = (String::from_utf8_lossy(&bad.stdout), String::from_utf8_lossy(&bad.stderr));
    assert!(shown.contains("large") && shown.contains("expected challenge, got allow"), "{shown}");
    assert!(why.contains("1 of 6 tests"), "{why}");
}
