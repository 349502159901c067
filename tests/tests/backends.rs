//! Pools of the whole program: who takes requests, who stays where, and what is known of each backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, RULES, alice, free_address, totp_code};
use lb_tests::level;
use lb_tests::origin::Origin;
use lb_tests::site::DOMAIN;
use lb_tests::visitor::{NAVIGATION, Visitor};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Where backends run: a test that waits for a command must not keep them from answering a health check.
fn elsewhere() -> &'static Handle {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// Serves a backend called `name` at `address`.
async fn serve(address: SocketAddr, name: String) -> Result<(SocketAddr, JoinHandle<Result<()>>)> {
    let bound = elsewhere().spawn(TcpListener::bind(address)).await??;
    Ok((bound.local_addr()?, elsewhere().spawn(Origin::new(name).serve(bound))))
}

/// Backends that say their names, and an edge in front of them.
struct Pool {
    edge: Edge,
    backends: Vec<(SocketAddr, JoinHandle<Result<()>>)>,
}

impl Pool {
    /// `pool` is the rest of the pool's section; `{0}`, `{1}` stand for addresses of backends.
    async fn start(count: usize, pool: &str, more: &str) -> Result<Option<Pool>> {
        if level::is_skipped("peers", Edge::lacking()) {
            return Ok(None);
        }
        let mut backends = Vec::new();
        for number in 0..count {
            backends.push(serve((Ipv4Addr::LOCALHOST, 0).into(), number.to_string()).await?);
        }
        let pool = backends.iter().enumerate().fold(pool.to_owned(), |pool, (number, (address, _))| {
            pool.replace(&format!("{{{number}}}"), &address.to_string())
        });
        let address = free_address()?;
        let text = format!(
            "services: [{{name: shop, vips: [127.0.0.1], port: {}}}]\npools:\n  - name: shop\n{pool}{more}",
            address.port()
        );
        let edge = tokio::task::spawn_blocking(move || Edge::start_at(address, &text)).await??;
        Ok(Some(Pool { edge, backends }))
    }

    fn url(&self, path: &str) -> String {
        format!("https://{DOMAIN}:{}{path}", self.edge.address.port())
    }

    /// The name of the backend that answered.
    async fn ask(&self, visitor: &mut Visitor, path: &str) -> Result<String> {
        let answer = visitor.get(&self.url(path), &[]).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(answer.json()?["backend"].as_str().context("no backend's answer")?.to_owned())
    }

    /// How many of `count` visitors each backend answered.
    async fn shares(&self, count: usize) -> Result<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            *shares.entry(self.ask(&mut Visitor::default(), "/whoever").await?).or_default() += 1;
        }
        Ok(shares)
    }

    /// What `lb-controller backends --json` says of each, in the order of the configuration.
    fn states(&self) -> Result<Vec<String>> {
        let listed: Vec<Value> = serde_json::from_str(&self.edge.command(&["backends", "--json"])?)?;
        let state = |(address, _): &(SocketAddr, _)| {
            let found = listed.iter().find(|backend| backend["address"] == address.to_string());
            found.map_or_else(String::new, |backend| backend["l7"]["state"].as_str().unwrap_or_default().to_owned())
        };
        Ok(self.backends.iter().map(state).collect())
    }

    async fn until(&self, expected: &[&str]) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let states = self.states()?;
            if states == expected {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{states:?} instead of {expected:?}; the log:\n{}", self.edge.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nobody answers there any more, and connections end.
    async fn end(&mut self, number: usize) {
        let (_, serving) = &mut self.backends[number];
        serving.abort();
        let _ = serving.await;
    }

    async fn bring_back(&mut self, number: usize) -> Result<()> {
        self.backends[number] = serve(self.backends[number].0, number.to_string()).await?;
        Ok(())
    }
}

const HEALTH: &str = "    health: {path: /healthz, interval: 500ms, timeout: 500ms, rise: 1, fall: 2}\n";
const PUBLIC: &str = "routes: [{path: /**, pool: shop, public: true}]\n";

#[tokio::test]
async fn requests_are_shared_by_weight_and_shown_so() -> Result<()> {
    let pool =
        format!("    backends: [{{address: \"{{0}}\", weight: 3}}, \"{{1}}\"]\n    balance: round_robin\n{HEALTH}");
    let Some(pool) = Pool::start(2, &pool, PUBLIC).await? else { return Ok(()) };
    let shares = pool.shares(40).await?;
    ensure!(shares == BTreeMap::from([("0".to_owned(), 30), ("1".to_owned(), 10)]), "{shares:?}");
    pool.until(&["serving", "serving"]).await?;
    let metrics = pool.edge.metrics()?;
    let requests =
        metrics.value(&format!("lb_backend_requests_total{{pool=\"shop\",backend=\"{}\"}}", pool.backends[0].0));
    ensure!(requests == 30.0, "{requests}");
    Ok(())
}

#[tokio::test]
async fn the_zone_is_preferred_then_all_then_the_backup() -> Result<()> {
    let pool = format!(
        "    backends:\n      - {{address: \"{{0}}\", zone: here}}\n      - {{address: \"{{1}}\", zone: there}}\n      \
         - {{address: \"{{2}}\", backup: true}}\n{HEALTH}"
    );
    let Some(mut pool) = Pool::start(3, &pool, &format!("zone: here\n{PUBLIC}")).await? else { return Ok(()) };
    let reach = |pool: &Pool, reach: &str| -> Result<f64> {
        Ok(pool.edge.metrics()?.value(&format!("lb_pool_reach{{pool=\"shop\",reach=\"{reach}\"}}")))
    };
    pool.until(&["serving", "standby", "standby"]).await?;
    ensure!(reach(&pool, "near")? == 1.0);
    for (ended, expected, states, name) in
        [(0, "1", ["down", "serving", "standby"], "all_zones"), (1, "2", ["down", "down", "serving"], "backups")]
    {
        pool.end(ended).await;
        pool.until(&states).await?;
        ensure!(pool.shares(4).await?.into_keys().collect::<Vec<_>>() == [expected]);
        ensure!(reach(&pool, name)? == 1.0, "{name}");
    }
    pool.bring_back(0).await?;
    pool.until(&["serving", "down", "standby"]).await?;
    ensure!(pool.shares(4).await?.into_keys().collect::<Vec<_>>() == ["0"]);
    Ok(())
}

/// Who is at the backend stays there through a challenge, also one that is met with the request that it held back.
#[tokio::test]
async fn a_client_stays_with_its_backend_over_login_and_step_up_until_it_is_down() -> Result<()> {
    let pool = format!("    backends: [\"{{0}}\", \"{{1}}\", \"{{2}}\"]\n    sticky: {{cookie: at}}\n{HEALTH}");
    let routes = "routes: [{path: /open/**, pool: shop, public: true}, {path: /**, pool: shop}]\n";
    let more = [routes, &alice()?, RULES].concat();
    let Some(mut pool) = Pool::start(3, &pool, &more).await? else { return Ok(()) };
    let mut alice = Visitor::default();
    let first = pool.ask(&mut alice, "/open/x").await?;
    let login = [("user", lb_tests::edge::USER), ("password", lb_tests::edge::PASSWORD)];
    ensure!(alice.post(&pool.url("/.lb/login"), &[], &login).await?.status == 200);
    for _ in 0..6 {
        ensure!(pool.ask(&mut alice, "/orders").await? == first, "after the login");
    }
    let (refunds, json, refund) =
        (pool.url("/refunds"), [("content-type", "application/json")], r#"{"amount": 900.00}"#);
    let challenge = alice.send("POST", &refunds, &json, refund.into()).await?;
    ensure!(challenge.problem() == "step-up", "{} {}", challenge.status, challenge.text());
    let url = pool.url(challenge.json()?["challenge_url"].as_str().context("no challenge_url")?);
    ensure!(alice.post(&url, &[], &[("code", &totp_code(0)?)]).await?.status == 200);
    let answer = alice.send("POST", &refunds, &json, refund.into()).await?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    ensure!(answer.json()?["backend"] == *first, "the proved request went elsewhere: {}", answer.text());
    ensure!(answer.header("set-cookie").is_empty() || !answer.header("set-cookie").contains("at="));

    let number: usize = first.parse()?;
    pool.end(number).await;
    let mut states = ["serving"; 3];
    states[number] = "down";
    pool.until(&states).await?;
    let second = pool.ask(&mut alice, "/orders").await?;
    ensure!(second != first);
    pool.bring_back(number).await?;
    pool.until(&["serving"; 3]).await?;
    for _ in 0..6 {
        ensure!(pool.ask(&mut alice, "/orders").await? == second, "it has a new place and stays there");
    }
    Ok(())
}

#[tokio::test]
async fn a_drain_moves_the_clients_of_its_backend_and_nobody_else() -> Result<()> {
    let pool = |drain: bool| {
        format!(
            "    backends: [{{address: \"{{0}}\", drain: {drain}}}, \"{{1}}\"]\n    sticky: {{cookie: at}}\n{HEALTH}"
        )
    };
    let Some(shop) = Pool::start(2, &pool(false), PUBLIC).await? else { return Ok(()) };
    let mut visitors: Vec<Visitor> = vec![Visitor::default(); 12];
    let mut owners = Vec::new();
    for visitor in &mut visitors {
        owners.push(shop.ask(visitor, "/x").await?);
    }
    ensure!(BTreeSet::from_iter(&owners).len() == 2, "{owners:?}");
    let text = format!(
        "services: [{{name: shop, vips: [127.0.0.1], port: {}}}]\npools:\n  - name: shop\n{}{PUBLIC}",
        shop.edge.address.port(),
        pool(true).replace("{0}", &shop.backends[0].0.to_string()).replace("{1}", &shop.backends[1].0.to_string())
    );
    shop.edge.reconfigure(&text)?;
    shop.until(&["draining", "serving"]).await?;
    for (visitor, owner) in visitors.iter_mut().zip(&owners) {
        let answer = visitor.get(&shop.url("/x"), NAVIGATION).await?;
        let moved = answer.header("set-cookie").contains("at=");
        ensure!(answer.json()?["backend"] == "1" && moved == (owner == "0"), "{owner}: {:?}", answer.headers);
    }
    Ok(())
}

#[tokio::test]
async fn a_route_has_its_own_limit_which_ends_with_the_response() -> Result<()> {
    let pool = format!("    backends: \"{{0}}\"\n{HEALTH}");
    let routes = "routes:\n  - {path: /slow, pool: shop, public: true, max_requests: 1}\n  - {path: /**, pool: shop, public: true}\n";
    let Some(shop) = Pool::start(1, &pool, routes).await? else { return Ok(()) };
    let url = shop.url("/slow");
    // The response begins at once and ends two seconds later.
    let first = tokio::spawn(async move { Visitor::default().get(&url, &[]).await });
    let in_flight = format!("lb_backend_in_flight{{pool=\"shop\",backend=\"{}\"}}", shop.backends[0].0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while shop.edge.metrics()?.value(&in_flight) < 1.0 {
        ensure!(Instant::now() < deadline, "the first request is not under way");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let second = Visitor::default().get(&shop.url("/slow"), &[]).await?;
    ensure!(second.status == 503 && second.problem() == "overloaded", "{} {}", second.status, second.text());
    ensure!(second.header("retry-after") == "1", "{:?}", second.headers);
    ensure!(shop.ask(&mut Visitor::default(), "/other").await? == "0", "other routes go on");
    ensure!(first.await??.status == 200);
    ensure!(Visitor::default().get(&shop.url("/slow"), &[]).await?.status == 200, "its place was given back");
    Ok(())
}
