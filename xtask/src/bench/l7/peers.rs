//! The proxies and their configurations: one worker, TLS 1.3, keepalive to the backend, an access log.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Home;
use super::subject::{Running, Subject, ensure_free};
use crate::paths::{Profile, Workspace};
use crate::setup::peers as installed;

pub(super) const OURS: &str = "lb";
pub(super) const NGINX: &str = "nginx";
/// In the order of the table.
pub(super) const NAMES: [&str; 4] = [OURS, NGINX, "haproxy", "envoy"];

pub(super) const BACKEND_PORT: u16 = 18_080;
pub(super) const DIRECT_PORT: u16 = 18_081;
const FIRST_PORT: u16 = 18_440;
/// What a proxy of ours has its metrics at, above where it listens.
const METRICS_ABOVE: u16 = 100;

/// nginx with two answers, on the CPUs of the load. The short one is no file: what the backend spends on it the load lacks, and
/// a proxy that waits for the load does its work in smaller portions than a busy one.
pub(super) fn backend(home: &Home) -> Result<Running> {
    file_server(home, "backend", BACKEND_PORT, &home.load_cpus)
}

/// The same where a proxy would be, to be asked without one: from the CPU of the load, what answers is as far away.
pub(super) fn in_place_of_a_proxy(home: &Home) -> Result<Running> {
    file_server(home, "direct", DIRECT_PORT, home.proxy_cpu)
}

fn file_server(home: &Home, name: &str, port: u16, cpus: &str) -> Result<Running> {
    ensure_free(port)?;
    let files = home.path("files");
    fs::create_dir_all(&files).with_context(|| format!("creating {}", files.display()))?;
    for (name, bytes) in [("1m", 1 << 20), ("healthz", 2)] {
        home.write(&format!("files/{name}"), &"x".repeat(bytes))?;
    }
    let server = format!(
        // All of 127/8, for thousands of backends; nobody else is answered.
        "server {{ listen {port} reuseport; allow 127.0.0.0/8; deny all; root {}; access_log off; \
         keepalive_requests 1000000000; keepalive_timeout 600s; location = /1k {{ return 200 {}; }} }}",
        Home::text(&files),
        "x".repeat(1 << 10)
    );
    let configuration = home.write(&format!("{name}.conf"), &nginx_conf(home, name, 1, &server))?;
    let nginx = installed::nginx(&home.workspace);
    let command = pinned(cpus, &nginx, &["-c", &Home::text(&configuration)]);
    Running::start(command, port, &home.path(&format!("{name}.log")))
}

pub(super) fn all(workspace: &Workspace, home: &Home) -> Result<Vec<Subject>> {
    (FIRST_PORT..).zip(NAMES).map(|(port, name)| start(workspace, home, name, port)).collect()
}

pub(super) fn ours(workspace: &Workspace, home: &Home) -> Result<Subject> {
    Variant::plain(home, OURS, FIRST_PORT).start(workspace, home)
}

/// This proxy or nginx, as the table has it or with more of something.
#[derive(Clone)]
pub(super) struct Variant {
    /// One of [`NAMES`].
    pub(super) proxy: &'static str,
    pub(super) name: &'static str,
    pub(super) port: u16,
    /// As taskset takes them.
    pub(super) cpus: String,
    pub(super) workers: u32,
    /// Besides those that everybody has.
    pub(super) routes: u32,
    /// Of the pool that is asked, all of which are the same server.
    pub(super) backends: u32,
    pub(super) is_checked: bool,
    /// Where one that counts its branches writes to, as the compiler's runtime takes it.
    pub(super) counts: Option<String>,
}

impl Variant {
    pub(super) fn plain(home: &Home, proxy: &'static str, port: u16) -> Variant {
        let cpus = home.proxy_cpu.to_owned();
        Variant { proxy, name: proxy, port, cpus, workers: 1, routes: 0, backends: 1, is_checked: true, counts: None }
    }

    pub(super) fn start(&self, workspace: &Workspace, home: &Home) -> Result<Subject> {
        ensure_free(self.port)?;
        let (program, arguments) = match self.proxy {
            NGINX => nginx(workspace, home, self)?,
            _ => lb(workspace, home, self)?,
        };
        let (cpus, counts) = (self.cpus.clone(), self.counts.clone());
        Subject::new(self.name, self.port, home.path(&format!("{}.log", self.name)), move || {
            let mut command = pinned(&cpus, &program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            command.envs(counts.iter().map(|file| ("LLVM_PROFILE_FILE", file)));
            command
        })
    }

    /// All over 127/8.
    fn backend_addresses(&self) -> impl Iterator<Item = String> {
        (1..=self.backends).map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            format!("127.{b}.{c}.{d}:{BACKEND_PORT}")
        })
    }
}

fn start(workspace: &Workspace, home: &Home, name: &'static str, port: u16) -> Result<Subject> {
    ensure_free(port)?;
    let invocation = match name {
        OURS | NGINX => return Variant::plain(home, name, port).start(workspace, home),
        "haproxy" => haproxy(workspace, home, port)?,
        _ => envoy(workspace, home, port)?,
    };
    let ((program, arguments), cpu) = (invocation, home.proxy_cpu);
    Subject::new(name, port, home.path(&format!("{name}.log")), move || {
        pinned(cpu, &program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

type Invocation = (std::path::PathBuf, Vec<String>);

/// With what makes it more than a proxy turned on: routes, rules, rates, sessions, metrics and the access log.
fn lb(workspace: &Workspace, home: &Home, variant: &Variant) -> Result<Invocation> {
    let Variant { name, port, workers, routes, .. } = variant;
    let routes = (0..*routes)
        .map(|number| format!("  - {{host: h{}.example, path: /part{number}/items/*, pool: files}}\n", number % 100));
    let backends: Vec<String> = variant.backend_addresses().map(|address| format!("\"{address}\"")).collect();
    let configuration = format!(
        "state_dir: {state}
metrics: 127.0.0.1:{metrics_port}
certificates: {{certificate: {certificate}, key: {key}}}
pools:
  - {{name: files, backends: [{backends}]{health}}}
routes:
{routes}  - {{host: shop.example, path: /**, pool: files}}
  - {{path: /admin/**, pool: files}}
  - {{path: /**, pool: files, public: true}}
rates: {{downloads: {{match: {{paths: [/**]}}, by: source, within: 10m}}}}
rules:
  - {{id: many-downloads, when: rate.downloads > 1000000000, limit: {{rate: 5/m, by: source}}}}
  - {{id: curl, when: 'request.headers[\"user-agent\"].contains(\"curl\")', require: {{level: 1}}, on_missing: skip}}
  - {{id: admins, match: {{paths: [/admin/**]}}, require: {{level: 2, max_age: 15m}}}}
",
        state = Home::text(&home.path(&format!("{name}.state"))),
        metrics_port = port + METRICS_ABOVE,
        certificate = Home::text(&home.path("cert.pem")),
        key = Home::text(&home.path("key.pem")),
        // Checks of thousands would be what is measured; nginx makes none.
        health = if variant.is_checked { ", health: {path: /healthz}" } else { ", health: {kind: tcp, interval: 1h}" },
        backends = backends.join(", "),
        routes = routes.collect::<String>(),
    );
    let configuration = home.write(&format!("{name}.yaml"), &configuration)?;
    let (listen, workers) = (format!("127.0.0.1:{port}"), workers.to_string());
    let arguments = ["run", "--config", &Home::text(&configuration), "--instance", &format!("lb-bench-{name}")]
        .into_iter()
        .chain(["--listen", &listen, "--workers", &workers])
        .map(str::to_owned)
        .collect();
    Ok((workspace.binary("lb-controller", Profile::Release), arguments))
}

/// What it has to find a route and a backend with among thousands: a tree of locations, and two backends at random instead of a
/// look at all of them.
fn nginx(workspace: &Workspace, home: &Home, variant: &Variant) -> Result<Invocation> {
    let Variant { name, port, .. } = variant;
    let servers: String = variant.backend_addresses().map(|address| format!("server {address}; ")).collect();
    let locations =
        (0..variant.routes).map(|number| format!("    location /part{number}/items/ {{ proxy_pass http://files; }}\n"));
    let server = format!(
        "upstream files {{ {balance}{servers}keepalive {kept}; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_protocols TLSv1.3;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    keepalive_requests 1000000000;
    access_log {log} combined buffer=32k flush=1s;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
{locations}    location / {{ proxy_pass http://files; }}
  }}",
        balance = if variant.backends > 1 { "random two least_conn; " } else { "" },
        kept = 256.max(2 * variant.backends),
        locations = locations.collect::<String>(),
        certificate = Home::text(&home.path("cert.pem")),
        key = Home::text(&home.path("key.pem")),
        log = Home::text(&home.path(&format!("{name}.access.log"))),
    );
    let configuration = home.write(&format!("{name}.conf"), &nginx_conf(home, name, variant.workers, &server))?;
    Ok((installed::nginx(workspace), vec!["-c".to_owned(), Home::text(&configuration)]))
}

fn nginx_conf(home: &Home, name: &str, workers: u32, http: &str) -> String {
    let temporary = |what: &str| format!("{what}_temp_path {};", Home::text(&home.path(&format!("{name}.{what}"))));
    let temporaries = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temporary).concat();
    format!(
        "daemon off;
worker_processes {workers};
pid {pid};
error_log {log} warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 65536; }}
http {{
  {temporaries}
  sendfile on;
  tcp_nopush on;
  {http}
}}
",
        pid = Home::text(&home.path(&format!("{name}.pid"))),
        log = Home::text(&home.path(&format!("{name}.error.log"))),
    )
}

fn haproxy(workspace: &Workspace, home: &Home, port: u16) -> Result<Invocation> {
    let configuration = format!(
        "global
  nbthread 1
  maxconn 8192
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3
  default_backend files
backend files
  server one 127.0.0.1:{BACKEND_PORT} pool-max-conn 256
",
        both = Home::text(&home.path("both.pem")),
    );
    let configuration = home.write("haproxy.cfg", &configuration)?;
    Ok((installed::haproxy(workspace), vec!["-db".to_owned(), "-f".to_owned(), Home::text(&configuration)]))
}

fn envoy(workspace: &Workspace, home: &Home, port: u16) -> Result<Invocation> {
    let listener = serde_json::json!({
        "name": "tls",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {
                        "alpn_protocols": ["h2", "http/1.1"],
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                        "tls_certificates": [{
                            "certificate_chain": {"filename": home.path("cert.pem")},
                            "private_key": {"filename": home.path("key.pem")},
                        }],
                    },
                },
            },
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "tls",
                    "codec_type": "AUTO",
                    "access_log": [{
                        "name": "envoy.access_loggers.file",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                            "path": home.path("envoy.access.log"),
                        },
                    }],
                    "route_config": {
                        "virtual_hosts": [{
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "files"}}],
                        }],
                    },
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                    }],
                },
            }],
        }],
    });
    let endpoint = serde_json::json!({"socket_address": {"address": "127.0.0.1", "port_value": BACKEND_PORT}});
    let configuration = serde_json::json!({
        "static_resources": {
            "listeners": [listener],
            "clusters": [{
                "name": "files",
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": {
                    "cluster_name": "files",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
                },
            }],
        },
    });
    // JSON is YAML.
    let configuration = home.write("envoy.yaml", &serde_json::to_string_pretty(&configuration)?)?;
    let arguments = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "-c"];
    let arguments = arguments.into_iter().map(str::to_owned).chain([Home::text(&configuration)]);
    Ok((installed::envoy(workspace), arguments.collect()))
}

fn pinned(cpus: &str, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cpus]).arg(program).args(arguments);
    command
}
