//! An edge that runs out of what the system gives: it goes on with what it has, and takes more when there is more.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::edge::service_with;
use lb_tests::site::Site;
use lb_tests::visitor::Visitor;
use tokio::net::TcpStream;

const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";

fn limit_descriptors(site: &Site, most: usize) -> Result<()> {
    let (process, limit) = (site.edge.process_id().to_string(), format!("--nofile={most}:"));
    let done = Command::new("prlimit").args(["--pid", &process, &limit]).status().context("prlimit")?;
    ensure!(done.success(), "prlimit {limit}: {done}");
    Ok(())
}

fn open_descriptors(site: &Site) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", site.edge.process_id()))?.count())
}

/// How often it said that it has none left.
fn told(site: &Site) -> usize {
    site.edge.log().matches("cannot accept connections").count()
}

async fn get(site: &Site, visitor: &mut Visitor) -> Result<u16> {
    let answer = tokio::time::timeout(Duration::from_secs(20), visitor.get(&site.url("/"), &[])).await;
    Ok(answer.context("no answer")??.status.as_u16())
}

#[tokio::test]
async fn without_file_descriptors_no_connection_is_lost_and_with_them_all_is_as_before() -> Result<()> {
    let Some(site) = Site::open(|address, backend| Ok(service_with(address, backend, ROUTES))).await? else {
        return Ok(());
    };
    ensure!(get(&site, &mut Visitor::default()).await? == 200);
    let before = open_descriptors(&site)?;
    // Health checks and the admin socket want some as well.
    limit_descriptors(&site, before + 12)?;
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(TcpStream::connect(site.edge.address).await?);
    }
    // The edge says so itself. Its descriptors cannot be counted: a thread that waits in accept(2) has the number of the next
    // one already, of which there is nothing to see, and one that was inherited may stand above the limit.
    site.eventually("there is no descriptor left", async |site| Ok(told(site) > 0)).await?;
    // Whoever comes now waits in the kernel's queue, and is served once there is room.
    let waiting = tokio::spawn({
        let url = site.url("/");
        async move { Visitor::default().get(&url, &[]).await.map(|answer| answer.status.as_u16()) }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let told = told(&site);
    drop(crowd);
    let status = tokio::time::timeout(Duration::from_secs(30), waiting).await.context("no answer")???;
    ensure!(status == 200 || status == 502 || status == 503, "{status}");
    limit_descriptors(&site, 4096)?;
    site.eventually("the backend is known to be well", async |site| {
        Ok(get(site, &mut Visitor::default()).await? == 200)
    })
    .await?;
    let metrics = site.edge.metrics()?;
    let failed = metrics.sum("lb_accept_errors_total");
    ensure!(
        (1..=2).contains(&told) && failed > 10.0,
        "{failed} times without a descriptor are {told} lines: {}",
        site.edge.log()
    );
    ensure!(metrics.sum("lb_requests_in_flight") == 0.0, "requests are thought to be under way");
    ensure!(metrics.sum("lb_backend_in_flight") == 0.0, "requests are thought to be at the backend");
    Ok(())
}
