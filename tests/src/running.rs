//! The real controller with XDP, in a namespace of the test's choice and with files of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lb_datapath::{Reader, open_pinned};
use tempfile::TempDir;

use crate::level;
use crate::netns::Namespace;

pub const METRICS: &str = "127.0.0.1:9309";

/// A controller that runs, or did. Dropping it ends it, and leaves nothing.
pub struct Controller {
    program: PathBuf,
    pub instance: String,
    folder: TempDir,
    child: Option<Child>,
}

impl Controller {
    /// One that is not started yet; `None` where [`level::controller`] has none.
    pub fn new(name: &str) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let program = level::controller()?;
        let instance = format!("lb-test-{name}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        Some(Self { program, instance, folder: TempDir::new().expect("a folder"), child: None })
    }

    /// Of a file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file whole: a controller that follows it never reads half of it.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).expect("written");
        std::fs::rename(self.path("new"), self.path(name)).expect("renamed");
    }

    /// The configuration: these lines, and where state is kept.
    pub fn configure(&self, text: &str) {
        self.write("lb.yaml", &format!("state_dir: {}\n{text}", self.path("state").display()));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--instance", &self.instance]).args(arguments);
        command
    }

    /// Runs it in `namespace`; it may not serve yet.
    pub fn start(&mut self, namespace: &Namespace) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut run = self.command(&["run", "--workers", "1", "--config"]);
        run.arg(self.path("lb.yaml")).stdin(Stdio::null());
        run.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(namespace.run(move || run.spawn().expect("the controller starts")));
    }

    /// Of the one that runs.
    pub fn process_id(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "not within 30 s: {what}; the controller said:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn serves(&self) {
        self.eventually("the controller serves", || self.log().contains("serving"));
    }

    /// Waits until its maps satisfy `holds`.
    pub fn until(&self, what: &str, holds: impl Fn(&Reader) -> bool) -> Reader {
        let open = || open_pinned(&Path::new("/sys/fs/bpf").join(&self.instance)).ok().filter(|reader| holds(reader));
        let found = std::cell::OnceCell::new();
        self.eventually(what, || found.get().is_some() || open().is_some_and(|reader| found.set(reader).is_ok()));
        found.into_inner().expect("it came about")
    }

    /// What Prometheus would be told, of a configuration with `metrics:` [`METRICS`].
    pub fn metrics(&self, namespace: &Namespace) -> String {
        namespace.run(|| {
            let mut stream = TcpStream::connect(METRICS).expect("metrics are served");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        })
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
        let _ = self.command(&["unload"]).output();
        let _ = std::fs::remove_dir_all(Path::new("/run").join(&self.instance));
    }
}
