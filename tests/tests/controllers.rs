//! The real controller's life under traffic that it forwards: killed, restarted, stopped, met by a second one, unloaded.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lb_tests::level::controller;
use lb_tests::steady::{BACKENDS, Network, PORT, Tally, VIP};
use tempfile::TempDir;

/// Exit codes (see `lb-controller --help`).
const INTERFACE: i32 = 6;
const ALREADY_RUNNING: i32 = 9;

struct Stage {
    program: PathBuf,
    network: Network,
    folder: TempDir,
    instance: String,
}

/// A controller, which ends with this.
struct Running(Child);

impl Running {
    /// As by the kernel that is out of memory: it gets no chance to say good-bye.
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.end();
    }

    fn end(&mut self) {
        self.0.wait().expect("ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ask(&self.instance, &["unload"]);
    }
}

impl Stage {
    fn new(name: &str) -> Option<Self> {
        let program = controller()?;
        let folder = TempDir::new().expect("a folder");
        let [one, other] = BACKENDS.map(|address| format!("\"{address}:{PORT}\""));
        let text = format!(
            "interfaces: [front]\nstate_dir: {}\n\
             services: [{{name: echo, vips: [\"{VIP}\"], port: {PORT}, protocol: [tcp, udp], forward: l2, pool: app}}]\n\
             pools: [{{name: app, backends: [{one}, {other}], health: {{kind: tcp, interval: 1s}}}}]\n",
            folder.path().join("state").display()
        );
        std::fs::write(folder.path().join("lb.yaml"), text).expect("written");
        let instance = format!("lb-test-{name}-{}", std::process::id());
        Some(Self { program, network: Network::new(), folder, instance })
    }

    fn command(&self, instance: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--instance", instance]).args(arguments);
        command
    }

    fn run_command(&self, instance: &str, log: &Path) -> Command {
        let config = self.folder.path().join("lb.yaml");
        let mut command = self.command(instance, &["run", "--workers", "1", "--config"]);
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        command.arg(config).stdin(Stdio::null()).stdout(log.try_clone().expect("duplicated")).stderr(log);
        command
    }

    /// Starts it and waits until it serves.
    fn start(&self) -> Running {
        let log = self.folder.path().join("log");
        let served = self.said().matches("serving").count();
        let mut command = self.run_command(&self.instance, &log);
        let mut running = Running(self.network.edge.run(move || command.spawn().expect("the controller starts")));
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.said().matches("serving").count() == served {
            assert!(running.0.try_wait().expect("watched").is_none(), "it ended: {}", self.said());
            assert!(Instant::now() < deadline, "it does not serve: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs a command to its end.
    fn ask(&self, instance: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(instance, arguments);
        self.network.edge.run(move || command.output().expect("the controller runs"))
    }

    /// A controller that must not start: its exit code and what it said.
    fn refused(&self, instance: &str) -> (Option<i32>, String) {
        let log = self.folder.path().join("refused");
        let mut command = self.run_command(instance, &log);
        let status = self.network.edge.run(move || command.status().expect("the controller runs"));
        (status.code(), std::fs::read_to_string(log).expect("a log"))
    }

    fn process_id(&self) -> u32 {
        let output = self.ask(&self.instance, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["controller"]["pid"].as_u64().unwrap_or_default() as u32
    }

    /// Gives the first backend another weight, and waits until the maps have it.
    fn weigh(&self, weight: u8) {
        let [one, other] = BACKENDS.map(|address| format!("{address}:{PORT}"));
        let file = self.folder.path().join("lb.yaml");
        let text = std::fs::read_to_string(&file).expect("the configuration");
        let begin = text.find("backends: [").expect("a list");
        let end = begin + text[begin..].find("], health").expect("its end");
        let list = format!("backends: [{{address: \"{one}\", weight: {weight}}}, \"{other}\"");
        std::fs::write(self.folder.path().join("new"), text[..begin].to_owned() + &list + &text[end..])
            .expect("written");
        std::fs::rename(self.folder.path().join("new"), file).expect("renamed");
        let deadline = Instant::now() + Duration::from_secs(30);
        let is_there = || {
            let output = self.ask(&self.instance, &["backends", "--json"]);
            let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let mut all = listed.as_array().into_iter().flatten();
            all.any(|row| row["address"] == one.as_str() && row["l4"]["weight"] == weight)
        };
        while !is_there() {
            assert!(Instant::now() < deadline, "the maps do not follow to {weight}: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn packets(&self) -> u64 {
        let output = self.ask(&self.instance, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["datapath"]["services"][0]["packets"].as_u64().expect("counted")
    }
}

#[test]
fn killed_restarted_stopped_and_unloaded_it_loses_no_packet_before_the_unload() {
    let Some(stage) = Stage::new("life") else { return };
    let mut running = stage.start();
    let traffic = stage.network.steady();
    let mut counted = 0;
    for _ in 0..3 {
        traffic.flows_on();
        running.kill();
        traffic.flows_on();
        let packets = stage.packets();
        assert!(packets >= counted + 200, "counted on without a controller: {packets} after {counted}");
        counted = packets;
        running = stage.start();
        assert!(stage.said().contains("eBPF maps of the earlier run go on"), "{}", stage.said());
    }
    let stopped = stage.ask(&stage.instance, &["stop"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    running.end();
    traffic.flows_on();
    let Tally { sent, lost, answers } = traffic.finish();
    assert!(sent > 1000 && answers > 100, "{sent} datagrams and {answers} answers are no steady traffic");
    assert_eq!(lost, Vec::<u64>::new(), "of {sent} datagrams");
    assert_eq!(stage.network.client.retransmitted(), 0, "TCP segments were lost");
    assert!(stage.packets() >= sent, "every packet was counted");

    let unloaded = stage.ask(&stage.instance, &["unload"]);
    assert!(unloaded.status.success(), "{}", String::from_utf8_lossy(&unloaded.stderr));
    let link = stage.network.edge.run(|| {
        let output = Command::new("ip").args(["-details", "link", "show", "front"]).output().expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    assert!(!link.contains("xdp"), "{link}");
    for folder in ["/sys/fs/bpf", "/run"] {
        assert!(!Path::new(folder).join(&stage.instance).exists(), "left in {folder}");
    }
}

#[test]
fn exchanged_under_traffic_or_killed_on_the_way_there_it_loses_no_packet_and_the_maps_follow() {
    let Some(stage) = Stage::new("exchange") else { return };
    let mut running = stage.start();
    let traffic = stage.network.steady();
    let log = stage.folder.path().join("takeover");
    for (turn, pause_ms) in [150, 500, 1_000, 1_600].into_iter().enumerate() {
        let mut run = stage.run_command(&stage.instance, &log);
        run.arg("--takeover");
        let mut taker = Running(stage.network.edge.run(move || run.spawn().expect("the controller starts")));
        std::thread::sleep(Duration::from_millis(pause_ms));
        taker.kill();
        if stage.process_id() != running.0.id() {
            // It was done before it was killed: nobody is there to be taken over from.
            running.end();
            running = stage.start();
        }
        traffic.flows_on();
        stage.weigh(turn as u8 + 2);
    }
    assert!(!stage.said().contains("no longer follow"), "{}", stage.said());
    for weight in [7, 8] {
        let upgraded = stage.ask(&stage.instance, &["upgrade"]);
        assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
        traffic.flows_on();
        stage.weigh(weight);
    }
    running.end();
    let Tally { sent, lost, answers } = traffic.finish();
    assert!(stage.ask(&stage.instance, &["stop"]).status.success());
    assert!(sent > 1000 && answers > 100, "{sent} datagrams and {answers} answers are no steady traffic");
    assert_eq!(lost, Vec::<u64>::new(), "of {sent} datagrams");
    assert_eq!(stage.network.client.retransmitted(), 0, "TCP segments were lost");
}

#[test]
fn a_second_controller_is_refused_by_name_and_by_interface_and_disturbs_nothing() {
    let Some(stage) = Stage::new("two") else { return };
    let mut running = stage.start();
    let traffic = stage.network.steady();
    let (code, said) = stage.refused(&stage.instance);
    assert_eq!(code, Some(ALREADY_RUNNING), "{said}");
    assert!(said.contains(&stage.instance) && said.contains("stop it with `lb-controller stop`"), "{said}");
    let other = format!("{}-b", stage.instance);
    let text = std::fs::read_to_string(stage.folder.path().join("lb.yaml")).expect("the configuration");
    let of_its_own = text.replace("/state\n", "/another-state\n");
    std::fs::write(stage.folder.path().join("lb.yaml"), of_its_own).expect("written");
    let (code, said) = stage.refused(&other);
    assert_eq!(code, Some(INTERFACE), "{said}");
    let remedy = format!("lb-controller --instance {} unload", stage.instance);
    assert!(said.contains("program lb_process") && said.contains(&remedy), "{said}");
    for folder in ["/sys/fs/bpf", "/run"] {
        assert!(!Path::new(folder).join(&other).exists(), "left in {folder}");
    }
    traffic.flows_on();
    let Tally { sent, lost, .. } = traffic.finish();
    assert_eq!(lost, Vec::<u64>::new(), "of {sent} datagrams");
    running.kill();
}

#[test]
fn an_interface_that_is_made_anew_is_attached_by_the_controller_that_has_given_up_its_privileges() {
    let Some(stage) = Stage::new("anew") else { return };
    let _running = stage.start();
    let Network { client, edge, .. } = &stage.network;
    edge.ip("link del front");
    edge.connect("front", client, "uplink");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !stage.said().contains("the interface is back, and XDP attached to it") {
        assert!(Instant::now() < deadline, "{}", stage.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    edge.ip("address add 10.8.0.1/24 dev front");
    client.ip("address add 10.8.0.2/24 dev uplink");
    client.ip(&format!("route add {VIP} via 10.8.0.1"));
    client.leave_no_checksum_to("uplink");
    let Tally { sent, lost, .. } = stage.network.steady().finish();
    assert_eq!(lost, Vec::<u64>::new(), "of {sent} datagrams");
}
