//! The real controller with XDP, in a namespace of its own and in front of nobody; beside it a client whom a list denies.

use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::netns::Namespace;
use crate::running::{Controller, METRICS};

pub const VIP: &str = "198.51.100.10:443";

pub struct Stage {
    pub controller: Controller,
    pub edge: Namespace,
    pub client: Namespace,
}

impl Stage {
    pub fn new(name: &str) -> Option<Stage> {
        let controller = Controller::new(name)?;
        let (edge, client) = (Namespace::new(), Namespace::new());
        client.connect("uplink", &edge, "front");
        client.ip("address add 192.0.2.1/24 dev uplink");
        edge.ip("address add 192.0.2.2/24 dev front");
        client.ip("route add 198.51.100.0/24 via 192.0.2.2");
        let mut stage = Stage { controller, edge, client };
        stage.configure("");
        stage.start();
        Some(stage)
    }

    /// The configuration, with `more` lines at its end.
    pub fn configure(&self, more: &str) {
        self.controller.configure(&format!(
            "interfaces: [front]\nmetrics: {METRICS}\nlists: {{deny: [192.0.2.1]}}\n\
             services:\n  - {{name: shop, vips: [198.51.100.10], port: 443, limits: {{source: {{syns_per_second: 1, burst_syns: 1}}}}, \
             syn_cookies: off}}\n  - {{name: dns, vips: [198.51.100.53], port: 53, protocol: udp, forward: ipip, pool: dns}}\n\
             pools:\n  - {{name: shop, backends: \"127.0.0.1:1\"}}\n  - {{name: dns, backends: \"192.0.2.1:1\", \
             health: {{kind: tcp, interval: 100ms, timeout: 100ms, rise: 1}}}}\nroutes: [{{path: /**, pool: shop}}]\n{more}"
        ));
    }

    pub fn start(&mut self) {
        self.controller.start(&self.edge);
        self.controller.serves();
    }

    pub fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = self.controller.command(arguments);
        self.edge.run(move || command.output().expect("the controller runs"))
    }

    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).expect("JSON")
    }

    /// SYNs that nobody will answer.
    pub fn knock(&self, times: usize) {
        self.client.run(move || {
            for _ in 0..times {
                let address: SocketAddr = VIP.parse().expect("an address");
                assert!(TcpStream::connect_timeout(&address, Duration::from_millis(20)).is_err(), "denied");
            }
        });
    }

    pub fn metrics(&self) -> String {
        self.controller.metrics(&self.edge)
    }
}
