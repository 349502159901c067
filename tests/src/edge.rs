//! The real controller on loopback, L7 alone: for tests that need the whole program but no XDP.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use totp_rs::{Builder, Secret, Totp};

use crate::scraped::{Scraped, text_from};

pub const USER: &str = "alice";
pub const PASSWORD: &str = "correct horse battery staple";
const TOTP_SECRET: [u8; 20] = *b"12345678901234567890";
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const WRITES_WITHIN: Duration = Duration::from_secs(20);
const AUDIT: &str = "audit.jsonl";

/// A running controller. Dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Edge {
    pub address: SocketAddr,
    metrics: SocketAddr,
    instance: String,
    process: Child,
    folder: TempDir,
    /// Those that took its place, one after the other.
    successors: Mutex<Vec<u32>>,
}

impl Edge {
    /// What is lacking to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        program().is_none().then_some("needs the controller; run `cargo xtask test`")
    }

    /// Starts one at `address` with the configuration `text`, to which its folder for state, its metrics and its audit trail
    /// are added.
    pub fn start_at(address: SocketAddr, text: &str) -> Result<Edge> {
        Edge::start_with(address, text, &[])
    }

    /// The same with more arguments of `run`.
    pub fn start_with(address: SocketAddr, text: &str, arguments: &[String]) -> Result<Edge> {
        Edge::start_among(address, text, arguments, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_among(
        address: SocketAddr,
        text: &str,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<Edge> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let folder = TempDir::new()?;
        let (state_dir, audit, metrics) =
            (folder.path().join("state"), folder.path().join(AUDIT), free_metrics_address()?);
        let own =
            format!("state_dir: {}\nmetrics: {metrics}\naudit: {{file: {}}}\n", state_dir.display(), audit.display());
        fs::write(folder.path().join("edge.yaml"), own + text)?;
        // Unique among all processes that test at the same time.
        let instance = format!("lb-test-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let process = spawn(&folder, &instance, address, arguments, environment)?;
        let mut edge = Edge { address, metrics, instance, process, folder, successors: Mutex::default() };
        edge.wait_until_it_listens()?;
        Ok(edge)
    }

    /// Kills whatever runs, and starts it again with the same configuration and state, as [`Edge::start_at`] does.
    pub fn restart(&mut self) -> Result<()> {
        self.kill_all();
        self.process = spawn(&self.folder, &self.instance, self.address, &[], &[])?;
        self.wait_until_it_listens()
    }

    fn kill_all(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for id in self.successors.lock().expect("no holder of this lock panics").drain(..) {
            let _ = kill(Pid::from_raw(id as i32), Signal::SIGKILL);
            // Nobody here is its parent. What has ended has no program any more, reaped or not.
            while fs::read_link(format!("/proc/{id}/exe")).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Of the program that was started first.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// From now on each write to a file of its state, its log and its audit trail fails, as on a disk that is full or
    /// broken: it may write no byte (`RLIMIT_FSIZE`), and ignores the signal that comes with the error.
    pub fn break_disk(&self) -> Result<()> {
        self.limit_file_size("0:unlimited")
    }

    /// Undoes [`Edge::break_disk`].
    pub fn mend_disk(&self) -> Result<()> {
        self.limit_file_size("unlimited:unlimited")
    }

    fn limit_file_size(&self, bytes: &str) -> Result<()> {
        let (process, limit) = (self.process.id().to_string(), format!("--fsize={bytes}"));
        let done = Command::new("prlimit").args(["--pid", &process, &limit]).status().context("prlimit")?;
        ensure!(done.success(), "prlimit {limit}: {done}");
        Ok(())
    }

    /// Its metrics now.
    pub fn metrics(&self) -> Result<Scraped> {
        Scraped::from(self.metrics)
    }

    /// The names of all metrics that it has, as their values are written: of a counter with `_total`.
    pub fn metric_names(&self) -> Result<BTreeSet<String>> {
        let text = text_from(self.metrics)?;
        let name = |line: &str| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        };
        Ok(text.lines().filter_map(name).collect())
    }

    /// The file of its audit trail.
    pub fn audit_file(&self) -> PathBuf {
        self.folder.path().join(AUDIT)
    }

    /// The events of its audit trail that are called `name`, once there are `count` of them. It is written by a thread of
    /// its own, a little after the answer.
    pub fn audited(&self, name: &str, count: usize) -> Result<Vec<Value>> {
        let deadline = Instant::now() + WRITES_WITHIN;
        loop {
            let lines = fs::read_to_string(self.audit_file()).unwrap_or_default();
            let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found: Vec<Value> = events.filter(|line| line["event"]["event"] == name).collect();
            if found.len() >= count {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "of {count} events called {name} there are {found:#?} in\n{lines}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs the controller's command line against it; returns what that printed. Waits for a controller that serves
    /// already and is about to take commands.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        const NOT_RUNNING: Option<i32> = Some(8);
        let deadline = Instant::now() + STARTS_WITHIN;
        let program = find_program()?;
        let run = || Command::new(&program).args(["--instance", &self.instance]).args(arguments).output();
        let mut output = run()?;
        while output.status.code() == NOT_RUNNING && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            output = run()?;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?} failed ({}): {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The controller's command line against it, for what goes on until it is ended.
    pub fn command_line(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(find_program()?);
        command.args(["--instance", &self.instance]).args(arguments);
        Ok(command)
    }

    /// Puts another configuration in place, which may be refused.
    pub fn offer(&self, text: &str) -> Result<()> {
        let (aside, config) = (self.folder.path().join("new"), self.folder.path().join("edge.yaml"));
        fs::write(&aside, format!("state_dir: {}\n{text}", self.state_dir().display()))?;
        Ok(fs::rename(aside, config)?)
    }

    /// Puts another configuration in place, and waits until it is in force.
    pub fn reconfigure(&self, text: &str) -> Result<()> {
        let before = self.configuration_version()?;
        self.offer(text)?;
        let deadline = Instant::now() + STARTS_WITHIN;
        while self.configuration_version()? == before {
            ensure!(Instant::now() < deadline, "the new configuration is not in force; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A command of the controller's against it, for what [`Edge::command`] does not do.
    pub fn tool(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(find_program()?);
        command.args(["--instance", &self.instance]).args(arguments);
        Ok(command)
    }

    /// The file of its configuration.
    pub fn configuration_file(&self) -> PathBuf {
        self.folder.path().join("edge.yaml")
    }

    /// What it tells of itself.
    pub fn controller(&self) -> Result<Value> {
        let mut status: Value = serde_json::from_str(&self.command(&["status", "--json"])?)?;
        Ok(status["controller"].take())
    }

    /// Of the process that serves now.
    pub fn serving_process_id(&self) -> Result<u32> {
        let controller = self.controller()?;
        let id = controller["pid"].as_u64().with_context(|| format!("no process id in {controller}"))?;
        Ok(u32::try_from(id)?)
    }

    /// Puts a new process in its place; of that the process id.
    pub fn upgrade(&self) -> Result<u32> {
        let output = self.tool(&["upgrade"])?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the upgrade failed ({}): {said}; the log:\n{}", output.status, self.log());
        self.note_successor()
    }

    /// For processes that took its place by other means: they end with it.
    pub fn note_successor(&self) -> Result<u32> {
        let id = self.serving_process_id()?;
        self.successors.lock().expect("no holder of this lock panics").push(id);
        Ok(id)
    }

    /// Counts up with every configuration that took effect.
    fn configuration_version(&self) -> Result<u64> {
        let status: serde_json::Value = serde_json::from_str(&self.command(&["status", "--json"])?)?;
        let version = &status["controller"]["config_version"];
        version.as_u64().with_context(|| format!("no version in {status}"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log();
                bail!("the controller does not listen on {} (ended: {ended:?}); it said:\n{log}", self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Somebody else may listen there.
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "the controller ended ({ended:?}); it said:\n{}", self.log());
        Ok(())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.kill_all();
        // The runtime folder that the killed controller could not remove.
        let _ = fs::remove_dir_all(format!("/run/{}", self.instance));
    }
}

fn spawn(
    folder: &TempDir,
    instance: &str,
    address: SocketAddr,
    arguments: &[String],
    environment: &[(&str, String)],
) -> Result<Child> {
    let program = find_program()?;
    let log = fs::File::options().create(true).append(true).open(folder.path().join("log"))?;
    // See `Edge::break_disk`.
    Command::new("sh")
        .args(["-c", "trap '' XFSZ && exec \"$0\" \"$@\""])
        .arg(&program)
        .args(["--instance", instance, "run", "--listen", &address.to_string(), "--config"])
        .arg(folder.path().join("edge.yaml"))
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

/// The controller that `cargo xtask test` has built.
fn program() -> Option<PathBuf> {
    std::env::var_os("LB_CONTROLLER").map(PathBuf::from)
}

/// Alice's code, `steps_ahead` of the present one. The edge takes one step either way.
pub fn totp_code(steps_ahead: i64) -> Result<String> {
    totp_code_of(Secret::from(TOTP_SECRET), steps_ahead)
}

/// The same of an app that was enrolled with this text.
pub fn totp_code_of_text(base32: &str, steps_ahead: i64) -> Result<String> {
    let plain: String = base32.chars().filter(char::is_ascii_alphanumeric).collect();
    totp_code_of(Secret::try_from_base32(plain).map_err(|error| anyhow::anyhow!("{error:?}"))?, steps_ahead)
}

fn totp_code_of(secret: Secret, steps_ahead: i64) -> Result<String> {
    const STEP_SECONDS: u64 = 30;
    let totp: Totp = Builder::new().with_secret(secret).with_account_name(USER).build()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let step = (now / STEP_SECONDS).checked_add_signed(steps_ahead).context("before 1970")?;
    Ok(totp.generate(step * STEP_SECONDS).to_string())
}

/// A service at `address` in front of `backend`, where everything needs a session.
pub fn service(address: SocketAddr, backend: SocketAddr) -> String {
    service_with(address, backend, "  - {path: /**, pool: shop}\n")
}

/// The same with `routes` of the test's own, each a line; their pool is `shop`.
pub fn service_with(address: SocketAddr, backend: SocketAddr, routes: &str) -> String {
    let port = address.port();
    format!(
        "services:
  - {{name: shop, vips: [127.0.0.1], port: {port}}}
pools:
  - name: shop
    backends: [\"{backend}\"]
    health: {{path: /healthz, interval: 1s, timeout: 1s, rise: 1, fall: 3}}
routes:
{routes}"
    )
}

/// The one built-in user.
pub fn alice() -> Result<String> {
    let (password_hash, secret) = (hash_password(&find_program()?)?, Secret::from(TOTP_SECRET).to_base32());
    Ok(format!(
        "users:
  - name: {USER}
    password_hash: '{password_hash}'
    totp_secret: {secret}
"
    ))
}

/// A refund over 500.00 needs a code.
pub const RULES: &str = "rules:
  - id: refund-over-limit
    match: {methods: [POST], paths: [/refunds]}
    body: {facts: {amount: {pointer: /amount, kind: decimal2}}}
    when: body.amount > 500.00
    require: {methods: [totp], max_age: 5m}
";

fn find_program() -> Result<PathBuf> {
    program().context("LB_CONTROLLER is not set; run the tests with `cargo xtask test`")
}

fn hash_password(program: &PathBuf) -> Result<String> {
    let mut command = Command::new(program);
    let mut process = command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    process.stdin.take().context("a pipe was asked for")?.write_all(PASSWORD.as_bytes())?;
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "`lb-controller hash-password` failed ({})", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Metrics may not be where a service is.
fn free_metrics_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0))?.local_addr()?)
}

/// A port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    // Below the ports that the kernel gives to clients: one of theirs, or of a test beside this one, could take it before it
    // is used. Each process begins elsewhere.
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(97).wrapping_add(step) % PORTS.len() as u32;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, (PORTS.start + offset) as u16));
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            bound => return bound.map(|_| address).with_context(|| format!("binding {address}")),
        }
    }
}
