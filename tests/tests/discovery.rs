//! Backends that are found, by a real name server and in a file: they change under load, and no failure takes them out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::client::Client;
use lb_tests::edge::{Edge, alice, free_address};
use lb_tests::level;
use lb_tests::load::Load;
use lb_tests::name_server::NameServer;
use lb_tests::origin::Origin;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

const HAPPENS_WITHIN: Duration = Duration::from_secs(60);

/// Where backends run: a test that waits for a command must not keep them from answering.
fn elsewhere() -> &'static Handle {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// Backends on 127.0.1.1, 127.0.1.2 and so on, all with one port.
async fn backends(count: u8) -> Result<u16> {
    let first = elsewhere().spawn(TcpListener::bind((Ipv4Addr::new(127, 0, 1, 1), 0))).await??;
    let port = first.local_addr()?.port();
    elsewhere().spawn(Origin::new("1").serve(first));
    for number in 2..=count {
        let listener = elsewhere().spawn(TcpListener::bind((Ipv4Addr::new(127, 0, 1, number), port))).await??;
        elsewhere().spawn(Origin::new(number.to_string()).serve(listener));
    }
    Ok(port)
}

struct Stage {
    edge: Edge,
}

impl Stage {
    /// `discover` is the rest of that section.
    async fn start(discover: &str) -> Result<Stage> {
        let address = free_address()?;
        let text = configuration(address, discover)?;
        Ok(Stage { edge: tokio::task::spawn_blocking(move || Edge::start_at(address, &text)).await?? })
    }

    fn client(&self) -> Client {
        Client { edge: self.edge.address, authority: None, cookie: String::new() }
    }

    /// The last numbers of the addresses that are found and at work.
    fn found(&self) -> Result<Vec<u8>> {
        let listed: Value = serde_json::from_str(&self.edge.command(&["backends", "--json"])?)?;
        let at_work =
            listed.as_array().context("no list")?.iter().filter(|backend| backend["l7"]["state"] != "draining");
        let number = |backend: &Value| -> Option<u8> {
            let address: SocketAddr = backend["address"].as_str()?.parse().ok()?;
            let SocketAddr::V4(address) = address else { return None };
            Some(address.ip().octets()[3])
        };
        let mut numbers: Vec<u8> = at_work.filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn pool(&self) -> Result<Value> {
        Ok(self.edge.controller()?["discovered"][0].take())
    }

    async fn has(&self, numbers: &[u8]) -> Result<()> {
        self.eventually(&format!("the backends are {numbers:?}"), |stage| Ok(stage.found()? == numbers)).await
    }

    async fn eventually(&self, what: &str, is_so: impl Fn(&Stage) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + HAPPENS_WITHIN;
        // A process that is exchanged may leave a question half answered.
        while !is_so(self).unwrap_or(false) {
            let (now, pool) = (self.found(), self.pool());
            ensure!(Instant::now() < deadline, "not within {HAPPENS_WITHIN:?}: {what}; {now:?} {pool:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn configuration(address: SocketAddr, discover: &str) -> Result<String> {
    let port = address.port();
    let text = format!(
        "services: [{{name: shop, vips: [127.0.0.1], port: {port}}}]
overload: {{queueing_delay: 0}}
pools:
  - name: shop
    discover: {{{discover}, drain_for: 2s}}
    health: {{path: /healthz, interval: 500ms, timeout: 400ms, rise: 1, fall: 2}}
routes:
  - {{path: /open/**, pool: shop, public: true}}
  - {{path: /**, pool: shop}}
"
    );
    Ok(text + &alice()?)
}

fn asking(server: &NameServer, what: &str) -> String {
    format!("{what}, servers: [\"{}\"], minimum_ttl: 1s, allow_local: true", server.address)
}

fn skipped() -> bool {
    level::is_skipped("peers", Edge::lacking().or_else(NameServer::lacking))
}

fn a(name: &str, numbers: &[u8]) -> String {
    numbers.iter().map(|number| format!("{name} IN A 127.0.1.{number}\n")).collect()
}

#[tokio::test]
async fn addresses_change_under_load_and_no_failure_of_the_dns_takes_one_out() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let port = backends(4).await?;
    let mut server = NameServer::start(&a("shop", &[1, 2]))?;
    let stage = Stage::start(&asking(&server, &format!("dns: shop.app.example, port: {port}"))).await?;
    stage.has(&[1, 2]).await?;
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    load.goes_on(200)?;

    server.change(&a("shop", &[2, 3]))?;
    stage.has(&[2, 3]).await?;
    load.goes_on(200)?;
    // TTL 0 is asked again after `minimum_ttl`, and not at once and for ever.
    server.change("shop 0 IN A 127.0.1.3\nshop 0 IN A 127.0.1.4\n")?;
    stage.has(&[3, 4]).await?;
    // NXDOMAIN, a name without addresses, a server that knows no such zone, and one that does not answer.
    for (name, records) in [("NXDOMAIN", ""), ("no address", "shop IN TXT \"none\"\n")] {
        server.change(records)?;
        stage.eventually(&format!("{name} is told"), |stage| Ok(stage.pool()?["error"].is_string())).await?;
        ensure!(stage.found()? == [3, 4], "{name}: {:?}", stage.found()?);
        load.goes_on(200)?;
        server.change(&a("shop", &[3, 4]))?;
        stage.eventually("it is found again", |stage| Ok(stage.pool()?["error"].is_null())).await?;
    }
    server.stop();
    stage.eventually("silence is told", |stage| Ok(stage.pool()?["error"].is_string())).await?;
    ensure!(stage.found()? == [3, 4], "silence: {:?}", stage.found()?);
    ensure!(stage.edge.metrics()?.value("lb_discovery_stale{pool=\"shop\"}") == 1.0);
    load.goes_on(200)?;
    server.change(&a("shop", &[1]))?;
    server.run()?;
    stage.has(&[1]).await?;
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn srv_records_bring_ports_weights_and_backups() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let port = backends(3).await?;
    let hosts = a("one", &[1]) + &a("two", &[2]) + &a("three", &[3]);
    let services = format!(
        "_shop._tcp IN SRV 10 3 {port} one\n_shop._tcp IN SRV 10 1 {port} two\n_shop._tcp IN SRV 20 5 {port} three\n\
         _shop._tcp IN SRV 10 1 {port} nowhere\n"
    );
    let mut server = NameServer::start(&(hosts.clone() + &services))?;
    let stage = Stage::start(&asking(&server, "srv: _shop._tcp.app.example")).await?;
    stage.has(&[1, 2, 3]).await?;
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    load.goes_on(800)?;
    let taken = |number: u8| -> Result<u64> {
        let listed: Value = serde_json::from_str(&stage.edge.command(&["backends", "--json"])?)?;
        let address = format!("127.0.1.{number}:{port}");
        let row = listed.as_array().context("no list")?.iter().find(|row| row["address"] == address.as_str());
        row.context("no row")?["l7"]["requests"].as_u64().context("no count")
    };
    let (one, two, three) = (taken(1)?, taken(2)?, taken(3)?);
    ensure!(one > two && two > 0 && three == 0, "{one} {two} {three}");
    // The port is another: another backend.
    server.change(&(hosts + &format!("_shop._tcp IN SRV 10 1 {port} three\n")))?;
    stage.has(&[3]).await?;
    load.goes_on(100)?;
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn a_huge_or_hostile_answer_is_bounded_and_told() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let port = backends(1).await?;
    let many: String = (0..2_000_u32).map(|n| format!("shop IN A 127.1.{}.{}\n", n / 250, n % 250 + 1)).collect();
    let server = NameServer::start(&(many + &a("local", &[1]) + "local IN A 169.254.169.254\n"))?;
    let huge = asking(&server, &format!("dns: shop.app.example, port: {port}, most: 20"));
    let stage = Stage::start(&huge).await?;
    stage.eventually("twenty are taken", |stage| Ok(stage.pool()?["left_out"] == 1_980)).await?;
    ensure!(stage.found()?.len() == 20, "{:?}", stage.found()?);
    // Loopback and the cloud's metadata: not without being told.
    let careful = huge.replace("shop.app", "local.app").replace(", allow_local: true", "");
    let stage = Stage::start(&careful).await?;
    stage.eventually("it is told", |stage| Ok(stage.pool()?["error"].is_string())).await?;
    ensure!(stage.found()?.is_empty(), "{:?}", stage.found()?);
    let error = stage.pool()?["error"].to_string();
    ensure!(error.contains("loopback address; `allow_local`"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_of_backends_is_followed_and_a_broken_one_is_not_taken() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let port = backends(3).await?;
    let folder = tempfile::TempDir::new()?;
    let file = folder.path().join("backends.json");
    let write = |text: String| -> Result<()> {
        std::fs::write(folder.path().join("new"), text)?;
        Ok(std::fs::rename(folder.path().join("new"), &file)?)
    };
    // It is not there yet: the edge begins, and has nothing.
    let stage = Stage::start(&format!("file: {}", file.display())).await?;
    stage.eventually("it is told", |stage| Ok(stage.pool()?["error"].is_string())).await?;
    write(format!("[\"127.0.1.1:{port}\", {{\"address\": \"127.0.1.2:{port}\", \"weight\": 2}}]"))?;
    stage.has(&[1, 2]).await?;
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    load.goes_on(200)?;
    for broken in
        [String::new(), "[]".to_owned(), format!("[\"127.0.1.3:{port}\""), format!("- 127.0.1.3:{port}\n- x\n")]
    {
        write(broken.clone())?;
        stage.eventually(&format!("{broken:?} is told"), |stage| Ok(stage.pool()?["error"].is_string())).await?;
        ensure!(stage.found()? == [1, 2], "{broken:?}: {:?}", stage.found()?);
        write(format!("- 127.0.1.1:{port}\n- 127.0.1.2:{port}\n"))?;
        stage.eventually("it is read again", |stage| Ok(stage.pool()?["error"].is_null())).await?;
    }
    write(format!("- 127.0.1.2:{port}\n- 127.0.1.3:{port}\n"))?;
    stage.has(&[2, 3]).await?;
    load.goes_on(200)?;
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    let shown = stage.edge.command(&["backends"])?;
    ensure!(shown.contains("file "), "{shown}");
    Ok(())
}

#[tokio::test]
async fn an_edge_that_starts_or_is_upgraded_without_a_name_server_has_the_backends_it_had() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let port = backends(3).await?;
    let mut server = NameServer::start(&a("shop", &[1, 2]))?;
    let mut stage = Stage::start(&asking(&server, &format!("dns: shop.app.example, port: {port}"))).await?;
    stage.has(&[1, 2]).await?;
    server.stop();
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    load.goes_on(200)?;
    stage.edge.upgrade()?;
    load.goes_on(200)?;
    stage.has(&[1, 2]).await?;
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    stage.edge.restart()?;
    stage.has(&[1, 2]).await?;
    ensure!(stage.pool()?["error"].is_string(), "{}", stage.pool()?);
    // Of what is found then, nothing old is left but what drains.
    server.change(&a("shop", &[2, 3]))?;
    server.run()?;
    stage.has(&[2, 3]).await
}

#[tokio::test]
async fn names_change_and_backends_die_while_processes_are_exchanged() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let port = backends(3).await?;
    let dying = elsewhere().spawn(TcpListener::bind((Ipv4Addr::new(127, 0, 1, 9), port))).await??;
    let dying = elsewhere().spawn(Origin::new("9").serve(dying));
    let mut server = NameServer::start(&a("shop", &[1, 2, 9]))?;
    let stage = Stage::start(&asking(&server, &format!("dns: shop.app.example, port: {port}"))).await?;
    stage.has(&[1, 2, 9]).await?;
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    load.goes_on(200)?;
    // A listener that closes refuses whoever comes; requests are sent to another backend.
    dying.abort();
    stage.edge.upgrade()?;
    load.goes_on(200)?;
    server.change(&a("shop", &[2, 3]))?;
    stage.edge.upgrade()?;
    stage.has(&[2, 3]).await?;
    load.goes_on(200)?;
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    Ok(())
}
