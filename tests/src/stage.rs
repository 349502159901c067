//! The real controller with XDP, in a namespace of its own and in front of nobody; beside it a client whom a list denies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::level::has_root;
use crate::netns::Namespace;

pub const VIP: &str = "198.51.100.10:443";
const METRICS: &str = "127.0.0.1:9309";

/// The controller that `cargo xtask test` has built; `None`, said loudly, without it or without root.
fn controller() -> Option<PathBuf> {
    if !has_root("namespaces") {
        return None;
    }
    let program = std::env::var_os("LB_CONTROLLER").map(PathBuf::from);
    if program.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the controller is not built in CI");
        eprintln!("SKIPPED: needs the controller; run `cargo xtask test`");
    }
    program
}

/// A controller that runs, or did. Dropping it ends it, and leaves nothing.
pub struct Stage {
    program: PathBuf,
    pub edge: Namespace,
    pub client: Namespace,
    folder: TempDir,
    pub instance: String,
    running: Option<Child>,
}

impl Stage {
    pub fn new(name: &str) -> Option<Stage> {
        let program = controller()?;
        let (edge, client) = (Namespace::new(), Namespace::new());
        client.connect("uplink", &edge, "front");
        client.ip("address add 192.0.2.1/24 dev uplink");
        edge.ip("address add 192.0.2.2/24 dev front");
        client.ip("route add 198.51.100.0/24 via 192.0.2.2");
        let instance = format!("lb-test-{name}-{}", std::process::id());
        let folder = TempDir::new().expect("a folder");
        let mut stage = Stage { program, edge, client, folder, instance, running: None };
        stage.configure("");
        stage.start();
        Some(stage)
    }

    /// The configuration, with `more` lines at its end.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "interfaces: [front]\nstate_dir: {}\nmetrics: {METRICS}\nlists: {{deny: [192.0.2.1]}}\n\
             services:\n  - {{name: shop, vips: [198.51.100.10], port: 443, limits: {{source: {{syns_per_second: 1, burst_syns: 1}}}}, \
             syn_cookies: off}}\n  - {{name: dns, vips: [198.51.100.53], port: 53, protocol: udp, forward: ipip, pool: dns}}\n\
             pools:\n  - {{name: shop, backends: \"127.0.0.1:1\"}}\n  - {{name: dns, backends: \"192.0.2.1:1\", \
             health: {{kind: tcp, interval: 100ms, timeout: 100ms, rise: 1}}}}\nroutes: [{{path: /**, pool: shop}}]\n{more}",
            self.path("state").display()
        );
        // Aside and renamed: the controller never reads half a file.
        std::fs::write(self.path("new.yaml"), text).expect("written");
        std::fs::rename(self.path("new.yaml"), self.path("lb.yaml")).expect("renamed");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--instance", &self.instance]).args(arguments);
        command
    }

    pub fn start(&mut self) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut run = self.command(&["run", "--config"]);
        run.arg(self.path("lb.yaml")).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.running = Some(self.edge.run(move || run.spawn().expect("the controller runs")));
        self.eventually("the controller serves", || self.log().contains("serving"));
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "not within 30 s: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        self.edge.run(move || command.output().expect("the controller runs"))
    }

    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).expect("JSON")
    }

    /// SYNs that nobody will answer.
    pub fn knock(&self, times: usize) {
        self.client.run(move || {
            for _ in 0..times {
                let address: SocketAddr = VIP.parse().expect("an address");
                assert!(TcpStream::connect_timeout(&address, Duration::from_millis(20)).is_err(), "denied");
            }
        });
    }

    pub fn metrics(&self) -> String {
        self.edge.run(|| {
            let mut stream = TcpStream::connect(METRICS).expect("metrics are served");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        })
    }

    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill();
        let mut unload = self.command(&["unload"]);
        let _ = self.edge.run(move || unload.output());
        let _ = std::fs::remove_dir_all(Path::new("/run").join(&self.instance));
    }
}
