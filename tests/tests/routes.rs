//! Routes through the running program: which takes a request, what its backend then receives, and what never gets there.

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{alice, service_with};
use lb_tests::origin::{self, Origin};
use lb_tests::site::{DOMAIN, Site};
use lb_tests::visitor::{Answer, Visitor};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

type Headers<'a> = &'a [(&'a str, &'a str)];

const RULES: &str = "rules:
  - {id: admin, match: {paths: [/api/admin/**]}, deny: nobody}
  - {id: inner, match: {paths: [/v2/**]}, deny: nobody}
";

/// A site with these routes, all public, to the pool `shop` and to `next`, which is another origin.
async fn site(routes: &'static str) -> Result<Option<(Site, Arc<Origin>)>> {
    let (next, address) = origin::start().await?;
    let configure = move |edge: SocketAddr, backend: SocketAddr| {
        let service = service_with(edge, backend, routes);
        let pool = format!(
            "  - {{name: next, backends: \"{address}\", health: {{path: /healthz, interval: 1s, timeout: 1s, rise: 1}}}}\n"
        );
        let service = service.replacen("routes:\n", &format!("{pool}routes:\n"), 1);
        Ok([&service, &alice()?, RULES].concat())
    };
    let Some(site) = Site::open(configure).await? else { return Ok(None) };
    Ok(Some((site, next)))
}

async fn get(site: &Site, target: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    Visitor::default().get(&site.url(target), headers).await
}

/// What of the requests at `origin` its health checks are not.
fn targets(origin: &Origin) -> Vec<String> {
    origin.received().into_iter().map(|received| received.target).filter(|target| target != "/healthz").collect()
}

#[tokio::test]
async fn the_narrowest_route_takes_a_request_and_explain_says_which() -> Result<()> {
    let routes = "  - {path: /**, pool: shop, public: true, response_headers: {set: {x-route: any}}}
  - {path: \"/users/{user}\", pool: shop, public: true, response_headers: {set: {x-route: user}}}
  - {path: /users/me, pool: shop, public: true, response_headers: {set: {x-route: me}}}
  - {path: /users/me, methods: [POST], pool: shop, public: true, response_headers: {set: {x-route: post-me}}}
  - {path: /beta, headers: {x-beta: \"*\"}, pool: shop, public: true, response_headers: {set: {x-route: beta}}}
  - {path: /beta, query: {v: \"2*\"}, headers: {x-beta: \"*\"}, pool: shop, public: true, response_headers: {set: {x-route: beta-2}}}
  - {host: \"*.test\", path: /**, pool: shop, public: true, response_headers: {set: {x-route: test}}}
  - {host: shop.test, path: /only/**, pool: shop, response_headers: {set: {x-route: only}}}
";
    let Some((site, _)) = site(routes).await? else { return Ok(()) };
    let rows: [(&str, &str, Headers<'_>, u16, &str); 4] = [
        ("below a suffix of the host", "/users/7", &[], 200, "test"),
        ("the host's own path", "/only/x", &[], 401, ""),
        ("the same in another spelling", "/x/../%6Fnly//x/", &[], 401, ""),
        ("a path that only begins alike", "/onlyx", &[], 200, "test"),
    ];
    for (name, target, headers, status, route) in rows {
        let answer = get(&site, target, headers).await?;
        ensure!(answer.status.as_u16() == status && answer.header("x-route") == route, "{name}: {answer:?}");
    }
    // The server's address is a host of its own, for which no host's route is.
    let by_address = async |method: &str, target: &str, headers: &[(&str, &str)]| {
        Visitor::default().send(method, &site.edge.url(target), headers, String::new()).await
    };
    let rows: [(&str, &str, Headers<'_>, &str); 9] = [
        ("GET", "/users/7", &[], "user"),
        ("GET", "/users/me", &[], "me"),
        ("POST", "/users/me", &[], "post-me"),
        ("GET", "/users/me/x", &[], "any"),
        ("GET", "/beta", &[], "any"),
        ("GET", "/beta", &[("x-beta", "")], "beta"),
        ("GET", "/beta?v=21", &[("x-beta", "1")], "beta-2"),
        ("GET", "/beta?v=1", &[("x-beta", "1")], "beta"),
        ("GET", "/beta?v=2&v=2", &[("x-beta", "1")], "beta"),
    ];
    for (method, target, headers, route) in rows {
        let answer = by_address(method, target, headers).await?;
        ensure!(answer.header("x-route") == route, "{method} {target} {headers:?}: {}", answer.header("x-route"));
    }
    let address = site.edge.url("/users/me");
    let text = site.edge.command(&["explain", &address, "-X", "POST"])?;
    ensure!(text.contains("route       */users/me POST (pool shop, public)"), "{text}");
    let metric = site.metric("lb_requests_total", "route=\"*/users/me POST\"")?;
    ensure!(metric == 1.0, "{metric}");
    Ok(())
}

#[tokio::test]
async fn rules_judge_the_path_that_came_and_the_backend_receives_the_one_its_route_makes() -> Result<()> {
    let routes = "  - {path: /api/**, pool: shop, public: true, rewrite: {path: /v2/**, host: \"app.internal:8080\"}}
  - {path: \"/u/{user}/o/{order}\", pool: shop, public: true, rewrite: {path: \"/orders/{order}/of-{user}\"}}
  - path: /h
    pool: shop
    public: true
    request_headers: {remove: [x-debug, cookie], set: {x-region: eu}, add: {x-list: b}}
    response_headers: {remove: [x-powered-by], set: {strict-transport-security: max-age=1}}
  - {path: /v2/**, pool: shop, public: true}
";
    let Some((site, _)) = site(routes).await? else { return Ok(()) };
    for (target, received) in [
        ("/api/orders/1?a=b%20c&d", "/v2/orders/1?a=b%20c&d"),
        ("/api", "/v2"),
        ("/api/", "/v2/"),
        ("/x/..//api/%41;p=1/b", "/v2/A;p=1/b"),
        ("/api/admin%2Dx", "/v2/admin-x"),
        ("/u/a%20b/o/7?x", "/orders/7/of-a%20b?x"),
    ] {
        let answer = get(&site, target, &[]).await?;
        let last = site.origin.received().pop().context("nothing arrived")?;
        ensure!(answer.status == 200 && last.target == received, "{target}: {} {}", answer.status, last.target);
        let is_api = received.starts_with("/v2");
        let host = if is_api { "app.internal:8080".to_owned() } else { site.authority() };
        ensure!(last.headers["host"] == host.as_str(), "{target}: {:?}", last.headers);
        ensure!(last.headers["x-forwarded-host"] == site.authority().as_str(), "{target}: {:?}", last.headers);
    }
    let before = site.origin.received().len();
    for (what, target) in [
        ("a rule on the client's path", "/api/admin"),
        ("in another spelling", "/api//x/../%61dmin/1"),
        ("a path that a rewrite leads to is a path like any other", "/v2/orders/1"),
        ("two readings", "/api/a%2f..%2fadmin"),
    ] {
        let answer = get(&site, target, &[]).await?;
        ensure!(answer.status == 403 || answer.status == 400, "{what}: {}", answer.status);
    }
    ensure!(site.origin.received().len() == before, "what rules refused went on");

    let headers = [("x-debug", "1"), ("cookie", "a=b"), ("x-region", "us"), ("x-list", "a")];
    let answer = get(&site, "/h", &headers).await?;
    let last = site.origin.received().pop().context("nothing arrived")?;
    let all = |name: &str| {
        last.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    ensure!(all("x-debug").is_empty() && all("cookie").is_empty(), "{:?}", last.headers);
    ensure!(all("x-region") == ["eu"] && all("x-list") == ["a", "b"], "{:?}", last.headers);
    ensure!(answer.header("strict-transport-security") == "max-age=1", "{:?}", answer.headers);
    Ok(())
}

#[tokio::test]
async fn a_route_redirects_to_nowhere_but_where_the_file_says_and_answers_what_it_says() -> Result<()> {
    let routes = "  - {path: /old/**, public: true, redirect: {to: /new/**}}
  - {path: \"/p/{id}\", public: true, redirect: {to: \"https://other.example/items/{id}\", status: 302, query: drop}}
  - {path: /away/**, public: true, redirect: {to: \"https://other.example\", status: 301}}
  - {path: /top/**, public: true, redirect: {to: /**, status: 307}}
  - {path: /closed, redirect: {to: /new}}
  - {path: /robots.txt, public: true, respond: {body: \"User-agent: *\", content_type: text/plain}, response_headers: {set: {cache-control: max-age=60}}}
  - {path: /teapot, public: true, respond: {status: 418}}
  - {path: /api/admin/**, public: true, respond: {body: secret}}
";
    let Some((site, _)) = site(routes).await? else { return Ok(()) };
    let rows = [
        ("/old/a%20b/?x=1", 308, "/new/a%20b/?x=1"),
        ("/old", 308, "/new"),
        ("/p/7?x=1", 302, "https://other.example/items/7"),
        ("/away/a?b=c", 301, "https://other.example/away/a?b=c"),
        // A path of the client's alone never becomes a host.
        ("/top//evil.example/", 307, "/evil.example/"),
        ("/top/%2e%2e//evil.example", 404, ""),
        ("/top/", 307, "/"),
        ("/top/..;/x", 400, ""),
        ("/top/%5cevil.example", 400, ""),
        ("/p/@evil.example", 302, "https://other.example/items/@evil.example"),
        ("/p/x%0d%0aset-cookie:a", 400, ""),
        ("/closed", 401, ""),
    ];
    for (target, status, location) in rows {
        let answer = get(&site, target, &[("host-override", "evil.example")]).await?;
        let is_so = answer.status.as_u16() == status && answer.header("location") == location;
        ensure!(is_so, "{target}: {} {:?}", answer.status, answer.header("location"));
        ensure!(answer.header("set-cookie").is_empty(), "{target}");
    }
    let robots = get(&site, "/robots.txt", &[]).await?;
    ensure!(robots.status == 200 && robots.text() == "User-agent: *", "{robots:?}");
    ensure!(robots.header("content-type") == "text/plain" && robots.header("cache-control") == "max-age=60");
    let head = Visitor::default().send("HEAD", &site.url("/robots.txt"), &[], String::new()).await?;
    ensure!(head.status == 200 && head.body.is_empty() && head.header("content-length") == "13", "{head:?}");
    ensure!(get(&site, "/teapot", &[]).await?.status == 418);
    let denied = get(&site, "/api/admin/x", &[]).await?;
    ensure!(
        denied.status == 403 && !denied.text().contains("secret"),
        "a rule does not hold where a route answers itself"
    );
    let mut alice = site.alice().await?;
    let closed = alice.get(&site.url("/closed"), &[]).await?;
    ensure!(closed.status == 308 && closed.header("cache-control") == "no-store", "{closed:?}");
    ensure!(targets(&site.origin).is_empty(), "{:?}", targets(&site.origin));
    let counted = site.metric("lb_requests_total", "route=\"*/robots.txt\"")?;
    ensure!(counted == 2.0, "{counted}");
    Ok(())
}

#[tokio::test]
async fn an_answer_from_a_file_is_that_file_until_it_changes_and_one_that_went_away_is_told_at_its_place() -> Result<()>
{
    const PAGE: &str = "<!doctype html><title>Closed</title>\n";
    let folder = tempfile::tempdir()?;
    let (page, odd) = (folder.path().join("closed.html"), folder.path().join("odd.webp"));
    std::fs::write(&page, PAGE)?;
    std::fs::write(&odd, [0, 255, 13, 10, 0])?;
    let routes = format!(
        "  - {{path: /, public: true, respond: {{status: 503, file: {}}}}}\n  - {{path: /odd, public: true, respond: {{file: {}}}}}\n",
        page.display(),
        odd.display()
    );
    let Some(site) = Site::open(move |edge, backend| Ok(service_with(edge, backend, &routes))).await? else {
        return Ok(());
    };
    let is_page = |answer: &Answer| answer.status == 503 && answer.text() == PAGE;
    let answer = get(&site, "/?x", &[]).await?;
    ensure!(is_page(&answer) && answer.header("content-type") == "text/html; charset=utf-8", "{answer:?}");
    let head = Visitor::default().send("HEAD", &site.url("/"), &[], String::new()).await?;
    ensure!(head.status == 503 && head.body.is_empty(), "{head:?}");
    for name in ["content-type", "content-length"] {
        ensure!(head.header(name) == answer.header(name) && !head.header(name).is_empty(), "{name}: {head:?}");
    }
    let answer = get(&site, "/odd", &[]).await?;
    ensure!(answer.body[..] == [0, 255, 13, 10, 0] && answer.header("content-type") == "image/webp", "{answer:?}");

    std::fs::remove_file(&page)?;
    let file = site.edge.configuration_file();
    let told = site.edge.tool(&["check"])?.arg(&file).output()?;
    let said = String::from_utf8_lossy(&told.stderr);
    let text = std::fs::read_to_string(&file)?;
    let line = 1 + text.lines().position(|line| line.contains("closed.html")).context("no such line")?;
    let place = format!("edge.yaml:{line}:");
    ensure!(told.status.code() == Some(3) && said.contains(&place) && said.contains("No such file"), "{said}");
    ensure!(is_page(&get(&site, "/", &[]).await?), "what went away took the answer along");

    std::fs::write(folder.path().join("aside"), "open again")?;
    std::fs::rename(folder.path().join("aside"), &page)?;
    site.eventually("the file's new text is the answer", async |site| {
        Ok(get(site, "/", &[]).await?.text() == "open again")
    })
    .await
}

#[tokio::test]
async fn a_mirror_receives_copies_of_what_was_let_through_and_holds_nobody_up() -> Result<()> {
    let routes =
        "  - {path: /all/**, pool: shop, rewrite: {path: /in/**}, mirror: {pool: next, percent: 100, max_body: 1KiB}}
  - {path: /half/**, pool: shop, public: true, mirror: {pool: next, percent: 50}}
  - {path: /api/admin/**, pool: shop, public: true, mirror: {pool: next, percent: 100}}
";
    let Some((site, next)) = site(routes).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let body = r#"{"amount": 1}"#;
    let sent = alice.send("POST", &site.url("/all/echo?x=1"), &[("lb-mirrored", "forged")], body.to_owned()).await?;
    ensure!(sent.status.as_u16() < 300, "{} {}", sent.status, sent.text());
    site.eventually("the copy arrives", async |_| Ok(!targets(&next).is_empty())).await?;
    let here = site.origin.received().into_iter().find(|one| one.target == "/in/echo?x=1").context("the request")?;
    let copy = next.received().into_iter().find(|one| one.target == "/in/echo?x=1").context("the copy")?;
    ensure!(copy.body == body && here.body == body, "{copy:?}");
    ensure!(copy.headers["lb-mirrored"] == "1" && !here.headers.contains_key("lb-mirrored"), "{:?}", here.headers);
    let keys = Visitor::default().get(&site.url("/.lb/jwks.json"), &[]).await?.json()?;
    for (received, audience) in [(&here, "shop"), (&copy, "next")] {
        let token = received.headers.get("lb-assertion").context("no assertion")?.to_str()?;
        let claims = lb_tests::assertion::verify(token, &keys)?;
        ensure!(claims["aud"] == audience, "{claims}");
        ensure!(claims["htu"].as_str().is_some_and(|url| url.ends_with("/all/echo")), "{claims}");
    }
    // Too large; refused; nobody logged in.
    let large = "x".repeat(2_000);
    ensure!(alice.send("POST", &site.url("/all/echo"), &[], large).await?.status.as_u16() < 300);
    ensure!(get(&site, "/api/admin/x", &[]).await?.status == 403);
    ensure!(get(&site, "/all/echo", &[]).await?.status == 401);
    for _ in 0..10 {
        ensure!(get(&site, "/half/1", &[]).await?.status == 200);
    }
    site.eventually("as many copies as there should be are counted", async |site| {
        let of = |result: &str| site.metric("lb_mirrored_requests_total", &format!("result=\"{result}\""));
        Ok(of("sent")? == 6.0 && of("left_out")? == 1.0)
    })
    .await?;
    ensure!(targets(&next).len() == 6, "{:?}", targets(&next));
    ensure!(targets(&site.origin).iter().filter(|target| *target == "/half/1").count() == 10);
    // A pool that is gone costs nothing but its copies.
    drop(next);
    Ok(())
}

#[tokio::test]
async fn whoever_is_sent_to_a_share_stays_there_and_shares_are_as_their_weights() -> Result<()> {
    let routes = "  - {path: /**, public: true, split: [{pool: shop, weight: 50}, {pool: next, weight: 50}]}
  - {path: /one/**, public: true, split: [{pool: shop, weight: 0}, {pool: next, weight: 1}]}
";
    let Some((site, next)) = site(routes).await? else { return Ok(()) };
    for number in 0..40 {
        let mut visitor = site.alice().await?;
        let target = format!("/login-{number}");
        for _ in 0..3 {
            ensure!(visitor.get(&site.url(&target), &[]).await?.status == 200);
        }
        let of = |origin: &Origin| targets(origin).iter().filter(|one| **one == target).count();
        ensure!([of(&site.origin), of(&next)].contains(&3), "{target}: {} and {}", of(&site.origin), of(&next));
    }
    let (here, there) = (targets(&site.origin).len(), targets(&next).len());
    // With forty fair coins fewer than five of a side come up once in ten million times.
    ensure!(here + there == 120 && here >= 15 && there >= 15, "{here} and {there}");
    ensure!(get(&site, "/one/x", &[]).await?.status == 200);
    ensure!(targets(&next).contains(&"/one/x".to_owned()));
    let explained: Value = serde_json::from_str(&site.edge.command(&["explain", &site.url("/one/x"), "--json"])?)?;
    ensure!(explained["route"]["leads_to"] == json!("one of the pools shop (0), next (1)"), "{explained}");
    ensure!(explained["request"]["host"] == DOMAIN);
    Ok(())
}

#[tokio::test]
async fn a_request_that_names_another_method_is_refused_or_is_that_method() -> Result<()> {
    let routes = "  - {path: /**, pool: shop, public: true}\n";
    let Some((site, _)) = site(routes).await? else { return Ok(()) };
    let form = ("content-type", "application/x-www-form-urlencoded");
    let post = async |target: &str, headers: &[(&str, &str)]| {
        let headers = [&[form], headers].concat();
        Visitor::default().send("POST", &site.url(target), &headers, "_method=DELETE".to_owned()).await
    };
    let rows: [(&str, &str, Headers<'_>, u16, &str); 6] = [
        ("in a header", "/a", &[("x-http-method-override", "DELETE")], 400, "DELETE"),
        ("in another spelling", "/a", &[("X_Http_Method.Override", "delete")], 400, "DELETE"),
        ("in the query", "/a?_method=PUT", &[], 400, "PUT"),
        ("as PHP reads it", "/a?.method=PUT", &[], 400, "PUT"),
        ("its own", "/a?_method=post", &[("x-http-method", "POST")], 200, "POST"),
        ("in the form, which rules must see to", "/a", &[], 200, "POST"),
    ];
    for (name, target, headers, status, _) in rows {
        let answer = post(target, headers).await?;
        ensure!(answer.status.as_u16() / 100 == status / 100, "{name}: {} {}", answer.status, answer.text());
        ensure!(answer.status.as_u16() != 400 || answer.problem() == "method-override", "{name}: {}", answer.text());
    }
    site.reconfigure("rules:", "method_override: apply\nrules:")?;
    for (name, target, headers, _, method) in rows {
        let answer = post(target, headers).await?;
        ensure!(answer.status.as_u16() < 500 && answer.problem() != "method-override", "{name}: {}", answer.text());
        let last = site.origin.received().pop().context("nothing arrived")?;
        ensure!(last.method == method, "{name}: {}", last.method);
        ensure!(!last.headers.keys().any(|header| header.as_str().contains("method")), "{name}: {:?}", last.headers);
    }
    let safe = post("/a", &[("x-http-method-override", "GET")]).await?;
    ensure!(safe.problem() == "method-override", "{} {}", safe.status, safe.text());
    Ok(())
}
