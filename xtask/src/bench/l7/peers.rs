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
/// In the order of the table.
pub(super) const NAMES: [&str; 4] = [OURS, "nginx", "haproxy", "envoy"];

pub(super) const BACKEND_PORT: u16 = 18_080;
const FIRST_PORT: u16 = 18_440;
const METRICS_PORT: u16 = 18_090;

/// nginx serving two files, on the CPUs of the load.
pub(super) fn backend(home: &Home) -> Result<Running> {
    ensure_free(BACKEND_PORT)?;
    let files = home.path("files");
    fs::create_dir_all(&files).with_context(|| format!("creating {}", files.display()))?;
    for (name, bytes) in [("1k", 1 << 10), ("1m", 1 << 20), ("healthz", 2)] {
        home.write(&format!("files/{name}"), &"x".repeat(bytes))?;
    }
    let server = format!(
        "server {{ listen 127.0.0.1:{BACKEND_PORT} reuseport; root {}; access_log off; keepalive_requests 1000000000; }}",
        Home::text(&files)
    );
    let configuration = home.write("backend.conf", &nginx_conf(home, "backend", &server))?;
    let nginx = installed::nginx(&home.workspace);
    Running::start(
        pinned(&home.load_cpus, &nginx, &["-c", &Home::text(&configuration)]),
        BACKEND_PORT,
        &home.path("backend.log"),
    )
}

pub(super) fn all(workspace: &Workspace, home: &Home) -> Result<Vec<Subject>> {
    (FIRST_PORT..)
        .zip(NAMES)
        .map(|(port, name)| {
            ensure_free(port)?;
            let (program, arguments) = match name {
                OURS => lb(workspace, home)?,
                "nginx" => nginx(workspace, home, port)?,
                "haproxy" => haproxy(workspace, home, port)?,
                _ => envoy(workspace, home, port)?,
            };
            let arguments: Vec<String> =
                arguments.into_iter().map(|argument| argument.replace("PORT", &port.to_string())).collect();
            let cpu = home.proxy_cpu;
            let log = home.path(&format!("{name}.log"));
            Subject::new(name, port, log, move || {
                pinned(cpu, &program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
            })
        })
        .collect()
}

type Invocation = (std::path::PathBuf, Vec<String>);

/// With what makes it more than a proxy turned on: routes, rules, rates, sessions, metrics and the access log.
fn lb(workspace: &Workspace, home: &Home) -> Result<Invocation> {
    let configuration = format!(
        "state_dir: {state}
metrics: 127.0.0.1:{METRICS_PORT}
certificates: {{certificate: {certificate}, key: {key}}}
pools:
  - {{name: files, backends: \"127.0.0.1:{BACKEND_PORT}\", health: {{path: /healthz}}}}
routes:
  - {{host: shop.example, path: /**, pool: files}}
  - {{path: /admin/**, pool: files}}
  - {{path: /**, pool: files, public: true}}
rates: {{downloads: {{match: {{paths: [/**]}}, by: source, within: 10m}}}}
rules:
  - {{id: many-downloads, when: rate.downloads > 1000000000, limit: {{rate: 5/m, by: source}}}}
  - {{id: curl, when: 'request.headers[\"user-agent\"].contains(\"curl\")', require: {{level: 1}}, on_missing: skip}}
  - {{id: admins, match: {{paths: [/admin/**]}}, require: {{level: 2, max_age: 15m}}}}
",
        state = Home::text(&home.path("state")),
        certificate = Home::text(&home.path("cert.pem")),
        key = Home::text(&home.path("key.pem")),
    );
    let configuration = home.write("lb.yaml", &configuration)?;
    let arguments = ["run", "--config", &Home::text(&configuration), "--instance", "lb-bench"];
    let arguments = arguments.into_iter().chain(["--listen", "127.0.0.1:PORT", "--workers", "1"]);
    Ok((workspace.binary("lb-controller", Profile::Release), arguments.map(str::to_owned).collect()))
}

fn nginx(workspace: &Workspace, home: &Home, port: u16) -> Result<Invocation> {
    let server = format!(
        "upstream files {{ server 127.0.0.1:{BACKEND_PORT}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_protocols TLSv1.3;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    keepalive_requests 1000000000;
    access_log {log} combined buffer=32k flush=1s;
    location / {{
      proxy_pass http://files;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}",
        certificate = Home::text(&home.path("cert.pem")),
        key = Home::text(&home.path("key.pem")),
        log = Home::text(&home.path("nginx.access.log")),
    );
    let configuration = home.write("nginx.conf", &nginx_conf(home, "nginx", &server))?;
    Ok((installed::nginx(workspace), vec!["-c".to_owned(), Home::text(&configuration)]))
}

fn nginx_conf(home: &Home, name: &str, http: &str) -> String {
    let temporary = |what: &str| format!("{what}_temp_path {};", Home::text(&home.path(&format!("{name}.{what}"))));
    let temporaries = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temporary).concat();
    format!(
        "daemon off;
worker_processes 1;
pid {pid};
error_log {log} warn;
events {{ worker_connections 8192; }}
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
