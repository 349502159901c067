//! What can be wrong when the data plane is loaded: each case has its kind, its remedy, and leaves nothing attached.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;

use lb_datapath::{
    AttachMode, BackendState, BackendStatus, Datapath, Desired, DesiredBackend, DesiredService, LoadErrorKind,
    LoadOptions, LogLevel, MapsOrigin, Ports, VipPrefix, WorkerSocket,
};
use lb_tests::level::has_root;
use lb_tests::lines::Lines;
use lb_tests::netns::Namespace;
use lb_tests::packet::Packet;
use lb_tests::program::{chain, unique_options};

/// Runs `test` in a namespace with a veth called `front`, and unloads what it left.
fn on_edge(test: impl FnOnce(LoadOptions) + Send + 'static) {
    if !has_root("namespaces") {
        return;
    }
    let (edge, peer) = (Namespace::new(), Namespace::new());
    peer.connect("uplink", &edge, "front");
    let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
    edge.run(move || {
        let (root, locks) = (options.pin_root.clone(), options.lock_folder.clone());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(options)));
        lb_datapath::unload(&root, &locks).expect("unloaded");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Loading fails so, with a message that contains all of `parts`, and leaves no pin behind.
fn assert_refused(options: &LoadOptions, kind: LoadErrorKind, parts: &[&str]) {
    let Err(error) = Datapath::load(options) else { panic!("loaded") };
    let text = chain(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn an_absent_interface_is_named_with_those_that_exist() {
    on_edge(|options| {
        let options = LoadOptions { interfaces: vec![String::from("front"), String::from("frnot")], ..options };
        assert_refused(&options, LoadErrorKind::Interface, &["\"frnot\"", "there are: lo, front"]);
        assert!(!options.pin_root.exists(), "nothing is left");
        assert!(!ip("-details link show dev front").contains("xdp"));
    });
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    on_edge(|options| {
        let (first, _) = Datapath::load(&options).expect("loaded");
        let pid = std::process::id().to_string();
        assert_refused(&options, LoadErrorKind::AlreadyRunning, &[&pid, "stop it first"]);
        assert!(first.reader().stats().is_ok());
        assert!(ip("-details link show dev front").contains("xdp"));
    });
}

#[test]
fn an_interface_without_native_xdp_runs_generically_with_a_warning() {
    on_edge(|options| {
        let options = LoadOptions { interfaces: vec![String::from("lo")], ..options };
        let (datapath, report) = Datapath::load(&options).expect("loaded");
        let [interface] = report.interfaces.as_slice() else { panic!("{report:?}") };
        assert_eq!(interface.mode, AttachMode::Generic);
        assert!(interface.warning.as_deref().is_some_and(|warning| warning.contains("slower")), "{interface:?}");
        drop(datapath);
        let (_, report) = Datapath::load(&options).expect("loaded again");
        assert_eq!((report.interfaces[0].mode, report.interfaces[0].replaced), (AttachMode::Generic, true));
    });
}

#[test]
fn an_interface_that_runs_another_program_is_left_alone() {
    on_edge(|options| {
        let other = LoadOptions { pin_root: options.pin_root.with_file_name(other_name(&options)), ..options.clone() };
        let (first, _) = Datapath::load(&other).expect("loaded");
        let name = other.pin_root.file_name().expect("a name").to_string_lossy().into_owned();
        let remedy = format!("lb-controller --instance {name} unload");
        assert_refused(&options, LoadErrorKind::InterfaceBusy, &["\"front\"", "(program lb_process, id ", &remedy]);
        assert!(!options.pin_root.exists(), "nothing is left");
        drop(first);
        lb_datapath::unload(&other.pin_root, &other.lock_folder).expect("unloaded");
    });
}

fn other_name(options: &LoadOptions) -> String {
    format!("{}-other", options.pin_root.file_name().expect("a name").to_string_lossy())
}

#[test]
fn pins_outside_a_bpf_file_system_are_refused() {
    on_edge(|options| {
        let elsewhere = LoadOptions { pin_root: std::env::temp_dir().join("lb-pins"), ..options };
        assert_refused(&elsewhere, LoadErrorKind::Bpffs, &["mount -t bpf bpf /sys/fs/bpf"]);
    });
}

#[test]
fn without_capabilities_the_missing_ones_are_named() {
    on_edge(|options| {
        let refused = thread::spawn(move || {
            caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_BPF).expect("dropped");
            caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN).expect("dropped");
            assert_refused(&options, LoadErrorKind::Capability, &["missing CAP_NET_ADMIN, CAP_BPF", "run as root"]);
        });
        refused.join().expect("refused as expected");
    });
}

#[test]
fn a_pinned_map_of_another_layout_is_not_read() {
    on_edge(|options| {
        drop(Datapath::load(&options).expect("loaded"));
        let maps = only_folder(&options, "maps-");
        std::fs::remove_file(maps.join("LIMITS")).expect("removed");
        std::fs::rename(maps.join("CONTROL"), maps.join("LIMITS")).expect("renamed");
        assert_refused(&options, LoadErrorKind::Layout, &["LIMITS", "lb-controller unload"]);
        assert!(ip("-details link show dev front").contains("xdp"), "what runs goes on");
    });
}

#[test]
fn maps_of_another_version_are_taken_over_and_removed() {
    on_edge(|options| {
        drop(Datapath::load(&options).expect("loaded"));
        let maps = only_folder(&options, "maps-");
        let other = maps.with_file_name("maps-0123456789abcdef");
        std::fs::rename(&maps, &other).expect("renamed");
        let error = lb_datapath::open_pinned(&options.pin_root).err().expect("not ours");
        assert!(error.to_string().contains("another version"), "{error}");
        let (_, report) = Datapath::load(&options).expect("loaded");
        assert_eq!(report.maps, MapsOrigin::Migrated { forgotten: BTreeSet::new() });
        assert!(report.interfaces[0].replaced, "without a gap: {report:?}");
        assert!(!other.exists());
    });
}

fn only_folder(options: &LoadOptions, prefix: &str) -> PathBuf {
    let entries = std::fs::read_dir(&options.pin_root).expect("listed");
    let mut folders = entries.map(|entry| entry.expect("read").path());
    folders.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).expect("there")
}

#[test]
fn an_interface_that_was_made_anew_under_its_old_name_is_attached_anew() {
    on_edge(|options| {
        drop(Datapath::load(&options).expect("loaded"));
        ip("link del front");
        ip("link add front type veth peer name back");
        ip("link set front up");
        let (_, report) = Datapath::load(&options).expect("loaded");
        assert!(!report.interfaces[0].replaced, "{report:?}");
        assert!(ip("-details link show dev front").contains("xdp"));
    });
}

#[test]
fn an_interface_that_is_no_longer_wanted_is_detached_and_a_dot_in_a_name_is_no_matter() {
    on_edge(|options| {
        ip("link add front.7 type veth peer name back");
        ip("link set front.7 up");
        let both = vec![String::from("front"), String::from("front.7")];
        drop(Datapath::load(&LoadOptions { interfaces: both, ..options.clone() }).expect("loaded"));
        let one = LoadOptions { interfaces: vec![String::from("front.7")], ..options };
        let (datapath, _) = Datapath::load(&one).expect("loaded");
        let names: Vec<_> = datapath.reader().interfaces().expect("listed").into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["front.7"]);
        assert!(!ip("-details link show dev front").contains("xdp"));
        assert!(ip("-details link show dev front.7").contains("xdp"));
    });
}

#[test]
fn sockets_of_an_unknown_service_or_with_a_gap_are_refused() {
    on_edge(|options| {
        let (mut datapath, _) = Datapath::load(&options).expect("loaded");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let socket = |service, worker| WorkerSocket { service, worker, socket: listener.as_fd(), ipv6: false };
        let error = datapath.steer_to(&[socket("web", 0)]).expect_err("unknown");
        assert!(error.to_string().contains("\"web\" is not in the maps"), "{error}");
        let web = DesiredService {
            name: String::from("web"),
            vips: vec![VipPrefix::from(IpAddr::from([198, 51, 100, 10]))],
            ports: Ports::One(443),
            ..DesiredService::default()
        };
        datapath.apply(&Desired { services: vec![web], ..Desired::default() }).expect("applied");
        let error = datapath.steer_to(&[socket("web", 0), socket("web", 2)]).expect_err("a gap");
        assert!(error.to_string().contains("no socket for worker 1"), "{error}");
        let error = datapath.steer_to(&[socket("web", 64)]).expect_err("too many");
        assert!(error.to_string().contains("beyond the 64 workers"), "{error}");
    });
}

#[test]
fn status_reads_services_backends_and_sources_from_the_pins_alone() {
    on_edge(|options| {
        let error = lb_datapath::open_pinned(&options.pin_root).err().expect("nothing there");
        assert!(error.to_string().contains("nothing is loaded"), "{error}");
        let backend = |address: &str, state| DesiredBackend {
            pool: String::from("app"),
            address: address.parse().expect("an address"),
            weight: 3,
            state,
        };
        let desired = Desired {
            services: vec![DesiredService {
                name: String::from("web"),
                vips: vec![
                    "2001:db8:100::10".parse().expect("an address"),
                    VipPrefix::from(IpAddr::from([198, 51, 100, 10])),
                ],
                ports: Ports::One(443),
                ..DesiredService::default()
            }],
            backends: vec![
                backend("[2001:db8:9::2]:8080", BackendState::Draining),
                backend("10.0.0.2:8080", BackendState::Down),
            ],
            ..Desired::default()
        };
        let (mut datapath, _) = Datapath::load(&options).expect("loaded");
        datapath.apply(&desired).expect("applied");
        drop(datapath);

        let reader = lb_datapath::open_pinned(&options.pin_root).expect("opened");
        let [web] = reader.services().expect("listed").try_into().expect("one service");
        let endpoints: Vec<_> = web.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!((web.name.as_str(), web.workers), ("web", 0));
        assert_eq!(endpoints, ["198.51.100.10:443", "[2001:db8:100::10]:443"]);
        let backends: Vec<_> = reader.backends().expect("listed");
        let backends: Vec<_> = backends
            .into_iter()
            .map(|BackendStatus { pool, address, weight, state, .. }| DesiredBackend { pool, address, weight, state })
            .collect();
        let expected = [desired.backends[1].clone(), desired.backends[0].clone()];
        assert_eq!(backends, expected, "sorted");
    });
}

#[test]
fn at_level_debug_dropped_packets_are_logged_and_otherwise_nothing_is_made_to_log() {
    on_edge(|options| {
        let (mut silent, _) = Datapath::load(&options).expect("loaded");
        assert!(silent.take_log().is_none());
        drop(silent);
        let talkative = LoadOptions { log_level: LogLevel::Debug, ..options };
        let (mut datapath, _) = Datapath::load(&talkative).expect("loaded");
        let web = DesiredService {
            name: String::from("web"),
            vips: vec![
                VipPrefix::from(IpAddr::from([198, 51, 100, 10])),
                "2001:db8:100::10".parse().expect("an address"),
            ],
            ports: Ports::One(443),
            ..DesiredService::default()
        };
        datapath.apply(&Desired { services: vec![web], ..Desired::default() }).expect("applied");
        let lines = Lines::of("xdp");
        tracing::subscriber::with_default(lines.clone(), || {
            let frame = Packet::new("192.0.2.1:40000", "198.51.100.10:443").ipv4_fragment(5, true).build();
            for _ in 0..4 {
                datapath.try_out(&frame, 1).expect("judged");
            }
            datapath.take_log().expect("a log").flush();
        });
        let lines = lines.seen();
        assert!(lines.iter().all(|line| line.contains("fragment") && line.contains("192.0.2.1")), "{lines:?}");
        assert!((1..=4).contains(&lines.len()), "a sample: {lines:?}");
    });
}
