//! Interfaces that are taken, that go away, come back and change their names.

use std::time::{Duration, Instant};

use lb_datapath::{Datapath, Desired, LoadErrorKind, LoadOptions};
use lb_tests::level::has_root;
use lb_tests::lines::Lines;
use lb_tests::netns::Namespace;
use lb_tests::program::{chain, unique_options};
use lb_tests::veth;

/// Runs `test` in a namespace with two pairs of interfaces, `front` and `front-peer`, `back` and `back-peer`.
fn on_edge(test: impl FnOnce(LoadOptions) + Send + 'static) {
    if !has_root("namespaces") {
        return;
    }
    Namespace::new().run(move || {
        pair("front");
        pair("back");
        let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
        let (root, locks) = (options.pin_root.clone(), options.lock_folder.clone());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(options)));
        lb_datapath::unload(&root, &locks).expect("unloaded");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn pair(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}-peer"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {name}-peer up"));
}

fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn has_xdp(interface: &str) -> bool {
    ip(&format!("-details link show dev {interface}")).contains("xdp")
}

fn load(options: &LoadOptions) -> Datapath {
    let (mut datapath, _) = Datapath::load(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    datapath.apply(&Desired::default()).expect("applied");
    datapath
}

/// Tends until `is_so`.
fn await_tended(datapath: &mut Datapath, what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        datapath.tend().expect("tended");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn of_several_interfaces_one_that_is_taken_leaves_the_others_free() {
    on_edge(|options| {
        let _foreign = veth::take_from_xdp("back").expect("attached");
        let both = vec![String::from("front"), String::from("back")];
        let options = LoadOptions { interfaces: both, ..options };
        let Err(error) = Datapath::load(&options) else { panic!("loaded") };
        assert_eq!(error.kind(), LoadErrorKind::InterfaceBusy);
        let text = chain(&error);
        for part in ["\"back\"", "(program pass, id ", "`bpftool link detach id "] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        assert!(!has_xdp("front") && has_xdp("back"), "neither attached nor detached");
        assert!(!options.pin_root.exists(), "nothing is left");
    });
}

#[test]
fn a_restart_that_finds_a_new_interface_taken_leaves_the_old_one_as_it_was() {
    on_edge(|options| {
        drop(load(&options));
        let before = ip("-details link show dev front");
        let _foreign = veth::take_from_xdp("back").expect("attached");
        let both = vec![String::from("front"), String::from("back")];
        let Err(error) = Datapath::load(&LoadOptions { interfaces: both, ..options.clone() }) else { panic!("loaded") };
        assert_eq!(error.kind(), LoadErrorKind::InterfaceBusy);
        assert_eq!(ip("-details link show dev front"), before, "the same program goes on");
        let reader = lb_datapath::open_pinned(&options.pin_root).expect("the maps go on");
        assert_eq!(reader.interfaces().expect("listed").len(), 1);
    });
}

#[test]
fn an_interface_that_goes_away_is_told_of_and_attached_when_it_is_back() {
    on_edge(|options| {
        let mut datapath = load(&options);
        let lines = Lines::of("lb_datapath");
        tracing::subscriber::with_default(lines.clone(), || {
            let seen = |text: &str| lines.seen().iter().filter(|line| line.contains(text)).count();
            ip("link del front");
            await_tended(&mut datapath, "its going is told", || seen("is gone") == 1);
            datapath.tend().expect("tended");
            assert_eq!(seen("is gone"), 1, "once");
            pair("front");
            await_tended(&mut datapath, "it is attached again", || has_xdp("front"));
            assert_eq!(seen("the interface is back"), 1);
        });
        drop(datapath);
        let (_, report) = Datapath::load(&options).expect("loaded");
        assert!(report.interfaces[0].replaced, "the new link is pinned like any other: {report:?}");
    });
}

#[test]
fn a_renamed_interface_stays_attached_until_another_has_its_name() {
    on_edge(|options| {
        let mut datapath = load(&options);
        let lines = Lines::of("lb_datapath");
        tracing::subscriber::with_default(lines.clone(), || {
            let seen = |text: &str| lines.seen().iter().filter(|line| line.contains(text)).count();
            ip("link set front down");
            ip("link set front name other");
            await_tended(&mut datapath, "the new name is told", || seen("now=\"other\"") == 1);
            assert!(has_xdp("other"), "packets are judged as before");
            ip("link set other name front");
            datapath.tend().expect("tended");
            assert!(has_xdp("front") && seen("the interface is back") == 0, "it was never away");

            ip("link set front name other");
            ip("link set back down");
            ip("link set back name front");
            await_tended(&mut datapath, "the name decides", || has_xdp("front"));
            assert!(!has_xdp("other"), "what has lost the name is let go");
        });
    });
}

#[test]
fn an_interface_that_is_back_and_taken_is_told_of_once_and_attached_when_it_is_free() {
    on_edge(|options| {
        let mut datapath = load(&options);
        let lines = Lines::of("lb_datapath");
        tracing::subscriber::with_default(lines.clone(), || {
            let seen = |text: &str| lines.seen().iter().filter(|line| line.contains(text)).count();
            ip("link del front");
            pair("front");
            let foreign = veth::take_from_xdp("front").expect("attached");
            await_tended(&mut datapath, "it is told of", || seen("its packets are not judged") == 1);
            datapath.tend().expect("tended");
            assert_eq!(seen("its packets are not judged"), 1, "{:?}", lines.seen());
            assert!(seen("(program pass, id ") == 1, "{:?}", lines.seen());
            drop(foreign);
            await_tended(&mut datapath, "it is attached", || has_xdp("front"));
            assert_eq!(seen("XDP attached to it"), 1, "{:?}", lines.seen());
        });
    });
}
