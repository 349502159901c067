//! Point 3: TLS, HTTP/1.1 and h2, both backends, streams, WebSocket, and headers that cannot be forged.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::Step;
use crate::demo::place::Host;
use crate::demo::scene::Scene;
use crate::demo::topology::MACHINE_ADDRESS;
use crate::run;

pub(super) const STEPS: &[Step] = &[
    Step { number: "3.1", sentence: "TLS 1.3 and TLS 1.2 are spoken, nothing older", run: tls_versions },
    Step { number: "3.2", sentence: "the certificate of the first start names the VIPs", run: certificate },
    Step { number: "3.3", sentence: "HTTP/1.1 and h2 are spoken", run: http_versions },
    Step { number: "3.4", sentence: "both backends take part", run: both_backends },
    Step { number: "3.5", sentence: "a body streams both ways at once over HTTP/1.1", run: stream_http1 },
    Step { number: "3.6", sentence: "a body streams both ways at once over h2", run: stream_http2 },
    Step { number: "3.7", sentence: "a WebSocket message goes through and comes back", run: websocket },
    Step {
        number: "3.8",
        sentence: "the backend learns the client's address, and what clients forge is gone",
        run: headers,
    },
];

fn tls_versions(scene: &mut Scene) -> Result<()> {
    for version in [["--tlsv1.3", "--tls-max", "1.3"], ["--tlsv1.2", "--tls-max", "1.2"]] {
        scene.curl(Host::Machine).with(&version).get("/open/hello")?.expect_status(200)?;
    }
    // Without the cipher setting Debian's OpenSSL would refuse by itself and prove nothing.
    let old = ["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"];
    ensure!(scene.curl(Host::Machine).with(&old).get("/open/hello").is_err(), "TLS 1.1 was accepted");
    Ok(())
}

fn certificate(scene: &mut Scene) -> Result<()> {
    let certificate = scene.home.join("state/self-signed.crt").display().to_string();
    for edge in [Some(scene.place.edge()), scene.place.edge_v6()].into_iter().flatten() {
        let checking = ["--no-insecure", "--cacert", &certificate];
        scene.curl(Host::Machine).to(edge).with(&checking).get("/open/hello")?.expect_status(200)?;
    }
    Ok(())
}

fn http_versions(scene: &mut Scene) -> Result<()> {
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = scene.curl(Host::Machine).with(&[flag]).get("/open/hello")?.expect_status(200)?;
        ensure!(answer.http_version == version, "asked with {flag}, answered in HTTP/{}", answer.http_version);
    }
    Ok(())
}

fn both_backends(scene: &mut Scene) -> Result<()> {
    let names = backends_seen(scene, 20)?;
    ensure!(names.len() == 2, "20 requests were all answered by {names:?}");
    Ok(())
}

/// Makes `requests` requests, all of which must succeed; returns the names of the backends that answered.
pub(super) fn backends_seen(scene: &Scene, requests: usize) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for _ in 0..requests {
        let answer = scene.curl(Host::Machine).get("/open/who")?.expect_status(200)?.json()?;
        names.insert(answer["backend"].as_str().unwrap_or_default().to_owned());
    }
    Ok(names)
}

fn stream_http1(scene: &mut Scene) -> Result<()> {
    peer(scene, &["stream", "--path", "/open/stream"])
}

fn stream_http2(scene: &mut Scene) -> Result<()> {
    peer(scene, &["stream", "--path", "/open/stream", "--http2"])
}

fn websocket(scene: &mut Scene) -> Result<()> {
    peer(scene, &["websocket", "--path", "/open/ws"])
}

fn peer(scene: &Scene, arguments: &[&str]) -> Result<()> {
    let mut peer = scene.peer(Host::Machine);
    run::output(peer.args(arguments).args(["--edge", &scene.place.edge().to_string()]))?;
    Ok(())
}

fn headers(scene: &mut Scene) -> Result<()> {
    const FORGED: &str = "203.0.113.66";
    let mut curl = scene.curl(Host::Machine);
    for name in ["X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Lb-Assertion", "lb_assertion", "X-Original-URL"] {
        curl = curl.with(&["--header", &format!("{name}: {FORGED}")]);
    }
    let answer = curl.with(&["--header", &format!("Forwarded: for={FORGED}")]).get("/open/who")?.expect_status(200)?;
    ensure!(!answer.body.contains(FORGED), "the backend received a forged header: {}", answer.body);
    let received = answer.json()?;
    let has = |name: &str, part: &str| received["headers"][name].to_string().contains(part);
    for (name, part) in [
        ("x-forwarded-for", MACHINE_ADDRESS),
        ("forwarded", MACHINE_ADDRESS),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", &scene.place.edge().ip().to_string()),
    ] {
        ensure!(has(name, part), "the backend's {name} is {}, not {part}", received["headers"][name]);
    }
    Ok(())
}
