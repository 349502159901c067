//! The real controller in a namespace of its own: what a start that fails leaves behind, which is nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use lb_tests::level::controller;
use lb_tests::netns::Namespace;
use tempfile::TempDir;

/// Exit code for a kernel that refused (see `lb-controller --help`).
const KERNEL: i32 = 7;

/// An edge that the controller can be started on, again and again.
struct Stage {
    program: PathBuf,
    edge: Namespace,
    _peer: Namespace,
    folder: TempDir,
    instance: String,
}

impl Stage {
    fn new(name: &str, vip: &str) -> Option<Stage> {
        let program = controller()?;
        let folder = TempDir::new().expect("a folder");
        let text = format!(
            "interfaces: [front]\nstate_dir: {}\nservices: [{{name: shop, vips: [\"{vip}\"], port: 443}}]\n\
             pools: [{{name: shop, backends: \"127.0.0.1:1\"}}]\nroutes: [{{path: /**, pool: shop}}]\n",
            folder.path().join("state").display()
        );
        std::fs::write(folder.path().join("lb.yaml"), text).expect("written");
        let (edge, peer) = (Namespace::new(), Namespace::new());
        peer.connect("uplink", &edge, "front");
        let instance = format!("lb-test-{name}-{}", std::process::id());
        Some(Stage { program, edge, _peer: peer, folder, instance })
    }

    /// Runs the controller with at most `files` open files, for `seconds`: one that starts would serve for ever.
    fn start(&self, files: u32, seconds: u32) -> (Option<i32>, String) {
        let mut run = Command::new("prlimit");
        run.arg(format!("--nofile={files}")).args(["timeout", &seconds.to_string()]).arg(&self.program);
        run.args(["--instance", &self.instance, "run", "--config"]).arg(self.folder.path().join("lb.yaml"));
        let output = self.edge.run(move || run.output().expect("the controller runs"));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn holds_nothing(&self, vip: &str, after: &str) {
        let shown = |arguments: &'static [&'static str]| {
            let output = self.edge.run(move || Command::new("ip").args(arguments).output().expect("ip runs"));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(!shown(&["-details", "link", "show", "front"]).contains("xdp"), "XDP is detached after: {after}");
        assert!(!shown(&["route", "show", "table", "local"]).contains(vip), "the VIP is not local after: {after}");
        for folder in ["/sys/fs/bpf", "/run"] {
            let left = Path::new(folder).join(&self.instance);
            assert!(!left.exists(), "{} is left after: {after}", left.display());
        }
    }

    fn unload(&self) {
        let mut unload = Command::new(&self.program);
        unload.args(["--instance", &self.instance, "unload"]);
        assert!(self.edge.run(move || unload.status().expect("the controller runs")).success());
    }
}

#[test]
fn a_start_that_fails_while_writing_the_maps_detaches_again() {
    const VIP: &str = "2001:db8:100::10";
    let Some(stage) = Stage::new("maps", VIP) else { return };
    // Without a loopback the kernel takes no local route of an IPv6 VIP, and that is set after attaching.
    stage.edge.ip("link set lo down");
    let (code, said) = stage.start(1024, 20);
    assert_eq!(code, Some(KERNEL), "{said}");
    assert!(said.contains("ip link set lo up"), "the remedy is told: {said}");
    stage.holds_nothing(VIP, &said);
}

#[test]
fn however_few_files_may_be_open_a_start_that_fails_leaves_nothing() {
    const VIP: &str = "198.51.100.10";
    /// `timeout` ended a controller that had started.
    const STARTED: i32 = 124;
    let Some(stage) = Stage::new("files", VIP) else { return };
    let start = |files: u32| {
        let (code, said) = stage.start(files, 20);
        let started = code == Some(STARTED);
        if started {
            stage.unload();
        }
        stage.holds_nothing(VIP, if started { "unload" } else { &said });
        (started, said.contains("XDP attached"))
    };
    // A start takes a second or two: most that fail before anything is attached are passed over.
    const STRIDE: u32 = 16;
    let enough = (20..400).step_by(STRIDE as usize).find(|files| start(*files) != (false, false));
    let enough = enough.expect("with 400 files it starts");
    let outcomes: Vec<_> = (enough - STRIDE + 1..400).map(start).take_while(|(started, _)| !started).collect();
    let failed_attached = outcomes.iter().filter(|(_, attached)| *attached).count();
    assert!(failed_attached >= 5, "only {failed_attached} starts failed after attaching");
}
