//! `lb-controller trace`: what would become of a packet, told by a copy of the programs that nothing in force notices.

use std::net::{TcpListener, UdpSocket};

use lb_tests::packet::Packet;
use lb_tests::stage::{Stage, VIP};
use serde_json::Value;

fn steps(packet: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let steps = packet["steps"].as_array().expect("steps");
    steps.iter().map(|step| (text(&step["step"]), text(&step["outcome"]))).collect()
}

/// Where the way ended; `None` if it went to its end.
fn stopped(packet: &Value) -> Option<String> {
    steps(packet).into_iter().find(|(_, outcome)| outcome == "stopped").map(|(step, _)| step)
}

fn detail(packet: &Value, step: &str) -> String {
    let steps = packet["steps"].as_array().expect("steps");
    let found = steps.iter().find(|one| one["step"] == step).expect("the step");
    found["detail"].as_str().expect("text").to_owned()
}

fn packets(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    let trace = stage.json(&[&["trace", "--json"], arguments].concat());
    trace["packets"].as_array().expect("packets").clone()
}

/// What packets move, without what time moves.
fn counters(stage: &Stage) -> Vec<Value> {
    let datapath = stage.json(&["status", "--json"])["datapath"].clone();
    ["services", "admitted", "dropped", "others", "cpus", "samples", "workers"]
        .map(|name| datapath[name].clone())
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_trace_tells_each_step_and_leaves_counters_limits_and_flows_as_they_were() {
    let Some(mut stage) = Stage::new("trace") else { return };
    // Nobody else moves counters meanwhile: neighbour discovery of a fresh link would.
    stage.client.ip("link set uplink down");
    let before = counters(&stage);

    let denied = packets(&stage, &["--from", "192.0.2.1:1234", "--to", "198.51.100.10:443"]);
    let [packet] = denied.as_slice() else { panic!("{denied:?}") };
    assert_eq!((&packet["verdict"], &packet["reason"]), (&"drop".into(), &"denied_by_list".into()));
    assert_eq!(stopped(packet).as_deref(), Some("lists"));
    assert_eq!(packet["summary"], "192.0.2.1:1234 > 198.51.100.10:443 tcp");
    assert_eq!(packet["service"], "shop");

    // One SYN a second: the copy charges its own limits, from what is in force at the moment.
    for _ in 0..2 {
        let burst = packets(&stage, &["--from", "192.0.2.9:1234", "--to", "198.51.100.10:443", "--times", "2"]);
        let [first, second] = burst.as_slice() else { panic!("{burst:?}") };
        assert_eq!((&first["verdict"], &first["reason"], stopped(first)), (&"pass".into(), &"admitted".into(), None));
        assert!(detail(first, "pick").starts_with("worker "), "{first}");
        assert_eq!((stopped(second).as_deref(), &second["reason"]), (Some("limits"), &"source_syn_limit".into()));
        assert!(detail(second, "limits").contains("1 syns/s"), "{second}");
    }

    let other = packets(&stage, &["--from", "[2001:db8::1]:5", "--to", "[2001:db8::2]:53", "--udp", "--payload", "9"]);
    assert_eq!((stopped(&other[0]).as_deref(), &other[0]["reason"]), (Some("service"), &"no_service".into()));

    let (frame, bare) = (Packet::new("192.0.2.1:7", "198.51.100.10:443").build(), [0xee; 14]);
    let hexes = [packets(&stage, &["--hex", &hex(&frame)]), packets(&stage, &["--hex", &hex(&bare)])];
    assert_eq!(hexes[0][0]["frame_out"], hex(&frame));
    assert_eq!((&hexes[1][0]["reason"], stopped(&hexes[1][0]).as_deref()), (&"not_inspected".into(), Some("parse")));

    assert_eq!(counters(&stage), before, "nothing in force has noticed");
    of_a_capture(&stage, &[&frame, &bare]);
    refused(&stage);

    stage.controller.kill();
    let text = stage.text(&["trace", "--from", "192.0.2.1:1234", "--to", "198.51.100.10:443"]);
    assert!(text.contains("denied_by_list") && text.contains("not reached"), "{text}");
    let left =
        std::fs::read_dir("/sys/fs/bpf").expect("bpffs").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let left: Vec<_> = left.filter(|name| name.starts_with(&format!("{}-trace", stage.controller.instance))).collect();
    assert_eq!(left, [""; 0], "no pins of the copies");
}

fn of_a_capture(stage: &Stage, frames: &[&[u8]]) {
    let mut capture = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    capture.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0]);
    for frame in frames {
        let length = (frame.len() as u32).to_le_bytes();
        capture.extend([[0; 4], [0; 4], length, length].concat());
        capture.extend(*frame);
    }
    let file = stage.controller.path("in.pcap");
    std::fs::write(&file, &capture).expect("written");
    let traced = packets(stage, &["--pcap", file.to_str().expect("UTF-8")]);
    let reasons: Vec<_> = traced.iter().map(|packet| packet["reason"].as_str().expect("text")).collect();
    assert_eq!(reasons, ["denied_by_list", "not_inspected"]);

    std::fs::write(&file, &capture[..capture.len() - 1]).expect("written");
    let output = stage.ask(&["trace", "--pcap", file.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cut short or inconsistent at byte"), "{said}");
}

/// With what to do instead.
fn refused(stage: &Stage) {
    for (arguments, says) in [
        (&["--from", "192.0.2.1:1", "--to", "[::1]:1"][..], "two families"),
        (&["--hex", "00"], "14 to"),
        (&["--from", "192.0.2.1:1"], "--to"),
        (&["--from", "192.0.2.1:1", "--to", "192.0.2.2:2", "--interface", "absent0"], "there are: "),
        (&[], "required"),
    ] {
        let output = stage.ask(&[&["trace"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{arguments:?}: {said}");
    }
    // Of another namespace it knows neither interfaces nor routes.
    let mut elsewhere = stage.controller.command(&["trace", "--from", "192.0.2.1:1", "--to", VIP]);
    let said = String::from_utf8(elsewhere.output().expect("the controller runs").stderr).expect("UTF-8");
    assert!(said.contains("attached to front") && said.contains("nsenter --net --target"), "{said}");
}

#[test]
fn a_forwarded_packet_is_shown_as_it_would_leave_and_its_flow_is_known_the_second_time() {
    let Some(stage) = Stage::new("trace-forward") else { return };
    // Health checks find it: of a backend that is down no flow is remembered.
    stage.client.run(|| {
        let backend = TcpListener::bind("192.0.2.1:1").expect("the backend listens");
        // Until the process ends: checks that nobody takes would fill the listener's queue.
        std::thread::spawn(move || backend.incoming().for_each(drop));
    });
    stage.controller.eventually("the backend is healthy and the way to it known", || {
        let backends = stage.json(&["backends", "--json"]);
        let all = backends.as_array().expect("a list");
        all.iter().any(|backend| {
            backend["pool"] == "dns"
                && backend["ebpf"] == "healthy"
                && backend["l7"]["healthy"] == true
                && !backend["l4"]["way"].is_null()
        })
    });
    for _ in 0..2 {
        let traced = packets(
            &stage,
            &["--from", "192.0.2.9:99", "--to", "198.51.100.53:53", "--udp", "--payload", "40", "--times", "2"],
        );
        let [first, second] = traced.as_slice() else { panic!("{traced:?}") };
        assert_eq!(stopped(first), None, "{first}");
        assert!(["transmit", "redirect"].contains(&first["verdict"].as_str().expect("text")), "{first}");
        assert_eq!((&first["service"], &first["backend"]), (&"dns".into(), &"192.0.2.1:1".into()));
        assert!(detail(first, "pick").starts_with("a new flow"), "the flow of an earlier trace is not known: {first}");
        assert!(detail(second, "pick").starts_with("a known flow"), "{second}");
        let (before, after) = (first["frame"].as_str().expect("text"), first["frame_out"].as_str().expect("text"));
        // 20 bytes of outer IPv4, which carry IPv4, before the packet as it came.
        assert_eq!(after.len(), before.len() + 40, "{after}");
        assert_eq!((&after[24..28], &after[2 * (14 + 9)..2 * (14 + 10)]), ("0800", "04"), "{after}");
        assert_eq!(after[2 * 34..], before[2 * 14..], "{after}");
    }
    assert_eq!(stage.json(&["status", "--json"])["datapath"]["services"][0]["packets"], 0, "live counters");

    // A real packet of that flow: the CPU that judged it knows it from then on, and so does a copy.
    stage.client.ip("address add 192.0.2.9/24 dev uplink");
    stage.client.run(|| {
        let socket = UdpSocket::bind("192.0.2.9:99").expect("a socket");
        socket.send_to(&[7; 40], "198.51.100.53:53").expect("sent");
    });
    stage.controller.eventually("the packet is counted", || {
        stage.json(&["status", "--json"])["datapath"]["services"][0]["packets"] == 1
    });
    let status = stage.json(&["status", "--json"]);
    let cpus = status["datapath"]["cpus"].as_array().expect("CPUs").iter().map(|cpu| cpu["cpu"].to_string());
    let knows = cpus.filter(|cpu| {
        let arguments =
            ["--from", "192.0.2.9:99", "--to", "198.51.100.53:53", "--udp", "--payload", "40", "--cpu", cpu];
        detail(&packets(&stage, &arguments)[0], "pick").starts_with("a known flow")
    });
    assert_eq!(knows.count(), 1);
}
