//! Forwarded frames, read and built anew by scapy: a second opinion from people who never saw this code.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lb_datapath::BackendState::Healthy;
use lb_datapath::{Desired, Forward, Verdict};
use lb_tests::forwarding::{VIPS, backend, desired, with_backends};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Extension, Packet};
use lb_tests::program::chain;
use serde_json::json;

/// The Python that `cargo xtask setup` has provided; `None`, said loudly, without it or without root.
fn python() -> Option<PathBuf> {
    if !has_root("program runs") {
        return None;
    }
    let python = std::env::var_os("LB_SCAPY_PYTHON").map(PathBuf::from);
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "scapy is not there in CI");
        eprintln!("SKIPPED: needs scapy; run `cargo xtask test`");
    }
    python
}

/// Each shape that a packet may have, in both families.
fn packets() -> Vec<(String, Packet)> {
    let [vip_4, vip_6] = VIPS;
    let families = [
        ("IPv4", Packet::new("192.0.2.1:40000", &format!("{vip_4}:443"))),
        ("IPv6", Packet::new("[2001:db8:1::1]:40000", &format!("[{vip_6}]:443"))),
    ];
    let mut packets = Vec::new();
    for (family, packet) in families {
        let extended = packet.clone().ipv4_options(4).extension(Extension::HopByHop).extension(Extension::Routing);
        let shapes = [
            ("a SYN", packet.clone()),
            ("an ACK with data", packet.clone().tcp_flags(ACK).data(1399)),
            ("a datagram", packet.clone().udp().data(33)),
            ("with options or extension headers", extended.udp().data(1)),
            ("a first fragment", first_fragment(packet.clone().udp().data(24))),
            ("expedited", packet.clone().traffic_class(0xb9).tcp_flags(ACK)),
        ];
        for (shape, packet) in shapes {
            let tagged = packet.clone().vlan(0x8100, 0x6007);
            packets.push((format!("{shape}, {family}, in QinQ"), packet.clone().vlan(0x88a8, 5).vlan(0x8100, 0x2006)));
            packets.push((format!("{shape}, {family}, tagged"), tagged));
            packets.push((format!("{shape}, {family}"), packet));
        }
    }
    packets
}

fn first_fragment(packet: Packet) -> Packet {
    packet.ipv4_fragment(0, true).extension(Extension::Fragment { offset: 0, more: true })
}

#[test]
fn scapy_reads_and_builds_the_same_outer_headers() {
    let Some(python) = python() else { return };
    with_backends(Desired::default(), move |bench| {
        let mut rows = Vec::new();
        for (forward, gue_port) in [(Forward::Ipip, 0), (Forward::Gue, 6080), (Forward::Gue, 9999)] {
            for is_ipv4 in [true, false] {
                let mut desired = desired(forward, &[(backend(2, is_ipv4), Healthy)]);
                desired.services[0].gue_port = gue_port;
                bench.datapath.apply(&desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
                let [source, destination] =
                    if is_ipv4 { ["10.1.0.1", "10.1.0.2"] } else { ["2001:db8:b::1", "2001:db8:b::2"] };
                for (name, packet) in packets() {
                    let mut frame = packet.build();
                    // As on Ethernet; scapy must find that behind what it builds.
                    frame.resize(frame.len().max(60), 0);
                    let (judged, sent) = bench.judge_and_send(&frame);
                    assert_eq!(judged.verdict, Verdict::Redirect, "{name}: {judged:?}");
                    rows.push(json!({
                        "name": format!("{name}, {forward:?} to {destination}"),
                        "frame": hex(&frame),
                        "sent": hex(&sent),
                        "gue_port": gue_port,
                        "source": source,
                        "destination": destination,
                        "next_hop": "02:00:00:00:bb:02",
                        "own": "02:00:00:00:bb:01",
                    }));
                }
            }
        }
        let (read, complaints) = ask(&python, &rows);
        assert_eq!(complaints, "");
        assert_eq!((read, rows.len()), (rows.len().to_string(), 3 * 2 * 36), "scapy read all of them");
    });
}

/// One that finds fault with nothing would prove nothing.
#[test]
fn scapy_finds_a_changed_byte() {
    let Some(python) = python() else { return };
    with_backends(desired(Forward::Gue, &[(backend(2, true), Healthy)]), move |bench| {
        let frame = Packet::new("192.0.2.1:40000", "198.51.100.10:443").data(9).build();
        let (_, sent) = bench.judge_and_send(&frame);
        let row = |sent: &[u8]| {
            json!({
                "name": "row", "frame": hex(&frame), "sent": hex(sent), "gue_port": 6080, "source": "10.1.0.1",
                "destination": "10.1.0.2", "next_hop": "02:00:00:00:bb:02", "own": "02:00:00:00:bb:01",
            })
        };
        assert_eq!(ask(&python, &[row(&sent)]), ("1".to_owned(), String::new()));
        // Addresses, lengths, flags, hops, checksum, ports; not the two bytes of the source port, which are a hash.
        for at in (0..42).step_by(3).chain([24, 25, 40, 41]).filter(|at| ![12, 13, 14, 34, 35].contains(at)) {
            let mut changed = sent.clone();
            changed[at] ^= 1;
            assert!(!ask(&python, &[row(&changed)]).1.is_empty(), "byte {at}");
        }
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many rows scapy read, and what it complains of.
fn ask(python: &PathBuf, rows: &[serde_json::Value]) -> (String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packets_scapy.py");
    let pipe = Stdio::piped;
    let mut process =
        Command::new(python).arg(script).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("Python runs");
    let mut input = process.stdin.take().expect("a pipe");
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = process.wait_with_output().expect("Python ends");
    // It may have ended early, and says why.
    let _ = writer.join().expect("no panic");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (text(&output.stdout), text(&output.stderr))
}
