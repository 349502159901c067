//! What the real controller shows of dropped packets: live, in a capture, by the second, and after it is gone.

use std::io::Read;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use lb_tests::stage::Stage;
use nix::pty::{OpenptyResult, openpty};
use serde_json::Value;

fn samples(of: &Value) -> &Vec<Value> {
    of["samples"].as_array().expect("a list of samples")
}

#[test]
fn drops_are_shown_counted_and_captured_by_a_running_controller() {
    let Some(stage) = Stage::new("sight") else { return };
    stage.knock(5);
    stage.controller.eventually("five samples", || samples(&stage.json(&["drops", "--json"])).len() >= 5);
    let shown = stage.json(&["drops", "--json", "--source", "192.0.2.0/24", "--reason", "denied_by_list"]);
    let first = &samples(&shown)[0];
    for (field, expected) in [
        ("reason", "denied_by_list"),
        ("verdict", "drop"),
        ("service", "shop"),
        ("interface", "front"),
        ("source", "192.0.2.1"),
        ("destination", "198.51.100.10"),
    ] {
        assert_eq!(first[field], expected, "{first}");
    }
    assert_eq!((first["destination_port"].as_u64(), first["protocol"].as_u64()), (Some(443), Some(6)));
    let dropped = &shown["account"]["dropped"];
    let of = |field: &str| dropped[field].as_u64().expect("a number");
    assert_eq!(of("seen"), of("written") + of("lost") + of("not_chosen"));
    assert_eq!(of("lost"), 0);
    assert!(samples(&stage.json(&["drops", "--json", "--source", "203.0.113.0/24"])).is_empty());
    let line = stage.text(&["drops", "--last", "1"]);
    assert!(line.contains("denied_by_list") && line.contains("> 198.51.100.10:443 tcp"), "{line}");

    let status = stage.json(&["status", "--json"]);
    let services = status["datapath"]["services"].as_array().expect("services");
    let service = services.iter().find(|service| service["name"] == "shop").expect("the service");
    assert!(service["drops"]["list"].as_u64() >= Some(5) && service["drops"]["block"] == 0, "{service}");
    assert_eq!(service["drops"]["list"], service["dropped_packets"]);
    let metrics = stage.metrics();
    for line in [
        "lb_xdp_service_drops_total{service=\"shop\",class=\"list\"}",
        "lb_xdp_samples_total{kind=\"dropped\",fate=\"written\"}",
        "lb_xdp_cpu_dropped_packets_total{cpu=\"0\"}",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    captured(&stage);
    rated(&stage);
    redrawn(&stage);
    followed(&stage);
}

/// A capture that tcpdump reads, in both formats.
fn captured(stage: &Stage) {
    for (name, has_reasons) in [("drops.pcapng", true), ("drops.pcap", false)] {
        let file = stage.controller.path(name);
        let path = file.to_str().expect("UTF-8");
        let said = stage.text(&["capture", "--recent", "--count", "4", "--seconds", "5", "--output", path]);
        assert!(said.starts_with("4 packets written"), "{said}");
        let read = Command::new("tcpdump").args(["-n", "-r", path]).output().expect("tcpdump runs");
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let packets: Vec<_> = text.lines().collect();
        assert_eq!(packets.len(), 4, "{text}");
        assert!(packets.iter().all(|line| line.contains("> 198.51.100.10.443: Flags [S]")), "{text}");
        let bytes = std::fs::read(&file).expect("written");
        let mentions = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
        assert_eq!(mentions(b"drop denied_by_list, to shop"), has_reasons, "{name}");
        assert_eq!(mentions(b"front"), has_reasons, "{name}");
    }
}

fn rated(stage: &Stage) {
    let mut top = stage.controller.command(&["top", "--json", "--interval", "1"]);
    let waiting = stage.edge.start(move || top.output().expect("the controller runs"));
    stage.knock(30);
    let output = waiting.recv().expect("an answer");
    let rates: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(rates["dropped_per_second"].as_f64() > Some(5.0), "{rates}");
    assert_eq!(
        rates["reasons"].as_array().and_then(|all| all.iter().find(|one| one["verdict"] == "drop")).expect("drops")["reason"],
        "denied_by_list"
    );
    let services = rates["services"].as_array().expect("services");
    let shop = services.iter().find(|service| service["service"] == "shop").expect("the service");
    assert!(shop["drops_per_second"]["list"].as_f64() > Some(5.0), "{rates}");
    let screen = stage.text(&["top", "--once", "--interval", "0.2"]);
    assert!(screen.contains("packets/s") && screen.contains("shop") && !screen.contains('\x1b'), "{screen}");
}

/// On a terminal each screen takes the place of the one before.
fn redrawn(stage: &Stage) {
    const CLEAR: &str = "\x1b[H\x1b[2J";
    let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
    let mut top = stage.controller.command(&["top", "--interval", "0.2"]);
    top.stdout(slave);
    let mut top = stage.edge.run(move || top.spawn().expect("the controller runs"));
    let mut shown = String::new();
    let mut terminal = std::fs::File::from(master);
    while shown.matches(CLEAR).count() < 3 {
        let mut bytes = [0; 4096];
        let read = terminal.read(&mut bytes).expect("it goes on");
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    top.kill().expect("ended");
    top.wait().expect("gone");
    let screens: Vec<_> = shown.split(CLEAR).collect();
    for screen in &screens[1..3] {
        assert!(screen.contains("packets/s") && screen.contains("shop") && screen.contains("CPUs"), "{shown:?}");
    }
}

/// Each later drop is told once.
fn followed(stage: &Stage) {
    let mut follow = stage.controller.command(&["drops", "--follow", "--json", "--last", "0"]);
    follow.stdout(Stdio::piped());
    let mut following = stage.edge.run(move || follow.spawn().expect("the controller runs"));
    std::thread::sleep(Duration::from_millis(700));
    stage.knock(3);
    std::thread::sleep(Duration::from_millis(700));
    following.kill().expect("ended");
    following.wait().expect("gone");
    let mut told = String::new();
    following.stdout.take().expect("a pipe").read_to_string(&mut told).expect("UTF-8");
    let numbers: Vec<u64> = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["number"].as_u64().expect("a number"))
        .collect();
    assert!(numbers.len() >= 3, "{told}");
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
}

#[test]
fn what_is_sampled_follows_the_configuration_and_outlives_the_controller() {
    let Some(mut stage) = Stage::new("sight-off") else { return };
    stage.configure("samples: {per_second: 0}\n");
    stage
        .controller
        .eventually("the new configuration", || stage.controller.log().contains("new configuration in force"));
    std::thread::sleep(Duration::from_millis(300));
    let before = stage.json(&["drops", "--json"])["account"]["dropped"]["written"].clone();
    stage.knock(5);
    let after = stage.json(&["drops", "--json"])["account"]["dropped"].clone();
    // The first look after the change finds that nothing is to be written.
    assert_eq!(after["written"], before, "{after}");
    assert!(after["not_chosen"].as_u64() >= Some(5), "{after}");

    stage.controller.kill();
    stage.configure("samples: {per_second: 50}\n");
    stage.start();
    stage.controller.kill();
    // XDP goes on, and so does its ring; the programs look again within some hundred packets of each CPU.
    stage.controller.eventually("samples without a controller", || {
        stage.client.run(|| {
            let socket = UdpSocket::bind("192.0.2.1:999").expect("a socket");
            for _ in 0..300 {
                socket.send_to(&[7; 100], "198.51.100.53:53").expect("sent");
            }
        });
        !samples(&stage.json(&["drops", "--json"])).is_empty()
    });
    let screen = stage.text(&["top", "--once", "--interval", "0.2"]);
    assert!(screen.contains("shop"), "{screen}");
}

#[test]
fn a_packet_that_is_sampled_on_its_way_to_a_backend_arrives_like_the_others() {
    const SENT: u64 = 640;
    let Some(stage) = Stage::new("sight-let-in") else { return };
    stage.client.take_from_xdp("uplink");
    stage.client.ip("address add 192.0.2.9/24 dev uplink");
    stage.configure("samples: {let_in_one_in: 64}\n");
    stage
        .controller
        .eventually("the new configuration", || stage.controller.log().contains("new configuration in force"));
    stage.controller.eventually("the way to the backend is known", || {
        let backends = stage.json(&["backends", "--json"]);
        let all = backends.as_array().expect("a list");
        all.iter().any(|backend| backend["pool"] == "dns" && !backend["l4"]["way"].is_null())
    });
    let before = received(&stage);
    stage.client.run(|| {
        let socket = UdpSocket::bind("192.0.2.9:999").expect("a socket");
        for _ in 0..SENT {
            socket.send_to(&[7; 100], "198.51.100.53:53").expect("sent");
        }
    });
    stage.controller.eventually("all packets at the backend", || received(&stage) >= before + SENT);
    // One in 64 of each CPU; on which of them the packets came is not known.
    stage
        .controller
        .eventually("samples", || samples(&stage.json(&["drops", "--reason", "admitted", "--json"])).len() >= 8);
    for sample in samples(&stage.json(&["drops", "--reason", "admitted", "--json"])) {
        assert_eq!(sample["verdict"], "transmit", "{sample}");
        // As it left: the outer header carries IPv4.
        assert_eq!((&sample["protocol"], &sample["destination"]), (&4.into(), &"192.0.2.1".into()), "{sample}");
    }
    assert!(samples(&stage.json(&["drops", "--json"])).is_empty(), "nothing was dropped");
}

/// Packets that came to the client.
fn received(stage: &Stage) -> u64 {
    let output = stage.client.run(|| Command::new("ip").args(["-s", "-j", "link", "show", "uplink"]).output());
    let links: Value = serde_json::from_slice(&output.expect("ip runs").stdout).expect("JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
}
