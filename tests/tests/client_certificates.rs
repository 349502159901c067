//! Client certificates before the real controller: which count, and what for.

use std::sync::Arc;

use anyhow::{Result, ensure};
use lb_tests::authority::Authority;
use lb_tests::client::OwnCertificate;
use lb_tests::edge::{Edge, PASSWORD, USER, alice, free_address, service};
use lb_tests::visitor::Visitor;
use lb_tests::{level, origin};
use rcgen::CertificateParams;
use tempfile::TempDir;

const RULES: &str = "client_certificates: {ca: CA, user: common_name}
rules:
  - id: strong
    match: {paths: [/strong]}
    require: {level: 2}
  - id: by-certificate
    match: {paths: [/certificate]}
    require: {methods: [certificate]}
";

fn with(certificate: Arc<OwnCertificate>) -> Visitor {
    let mut visitor = Visitor::default();
    visitor.certificate = Some(certificate);
    visitor
}

#[tokio::test]
async fn a_certificate_of_the_authority_is_a_user_and_a_factor_and_no_other_is() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let (authority, stranger, folder) = (Authority::new()?, Authority::new()?, TempDir::new()?);
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()?)?;
    let (_origin, backend) = origin::start().await?;
    let address = free_address()?;
    let text = tokio::task::spawn_blocking(move || -> Result<String> {
        let service = service(address, backend)
            .replace("routes:\n", "routes:\n  - {path: /machines/**, pool: shop, client_certificate: required}\n");
        Ok([service, alice()?, RULES.replace("CA", &ca.display().to_string())].concat())
    })
    .await??;
    let edge = tokio::task::spawn_blocking(move || Edge::start_at(address, &text)).await??;

    let over = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let visitors = [
        ("nobody's", Visitor::default(), Some((401, 403, 401))),
        ("alice's", with(authority.client(USER, |_| ())?), Some((200, 200, 200))),
        // A certificate that is not trusted ends the handshake.
        ("another authority's", with(stranger.client(USER, |_| ())?), None),
        ("one that is over", with(authority.client(USER, over)?), None),
    ];
    for (name, mut visitor, expected) in visitors {
        let mut statuses = Vec::new();
        for path in ["/orders", "/machines/1", "/certificate"] {
            statuses.push(visitor.get(&edge.url(path), &[]).await.ok().map(|answer| answer.status.as_u16()));
        }
        let expected = expected.map_or(vec![None; 3], |(one, two, three)| vec![Some(one), Some(two), Some(three)]);
        ensure!(statuses == expected, "{name}: {statuses:?}");
    }

    // Beside a password it is a second class; another user's is not.
    for (name, expected) in [(USER, 200), ("bob", 401)] {
        let mut visitor = with(authority.client(name, |_| ())?);
        let form = [("user", USER), ("password", PASSWORD)];
        let answer = visitor.post(&edge.url("/.lb/login"), &[], &form).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        let answer = visitor.get(&edge.url("/strong"), &[]).await?;
        ensure!(answer.status == expected, "{name}'s certificate: {} {}", answer.status, answer.text());
    }
    Ok(())
}
