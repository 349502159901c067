//! A service of plain HTTP behind XDP: its connections reach the same workers as those of HTTPS, and are sent there.

use std::process::Command;

use lb_tests::netns::Namespace;
use lb_tests::running::{Controller, METRICS};

#[test]
fn the_kernel_hands_plain_http_to_the_workers_and_they_send_it_to_https() {
    let Some(mut controller) = Controller::new("http") else { return };
    let (edge, client) = (Namespace::new(), Namespace::new());
    client.connect("uplink", &edge, "front");
    client.ip("address add 192.0.2.1/24 dev uplink");
    edge.ip("address add 192.0.2.2/24 dev front");
    client.ip("route add 198.51.100.0/24 via 192.0.2.2");
    controller.configure(&format!(
        "interfaces: [front]\nmetrics: {METRICS}\nservices:\n  - {{name: shop, vips: [198.51.100.10], port: 443}}\n  \
         - {{name: shop-http, vips: [198.51.100.10], port: 80, http: redirect}}\n\
         pools: [{{name: shop, backends: \"127.0.0.1:1\"}}]\nroutes: [{{path: /**, pool: shop, public: true}}]\n"
    ));
    controller.start(&edge);
    controller.serves();
    let asked = |url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", url]);
        let output = client.run(move || curl.output().expect("curl runs"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(asked("http://198.51.100.10/a?b=c"), "308 https://198.51.100.10/a?b=c");
    assert!(asked("https://198.51.100.10/a").starts_with("50"), "HTTPS is served as ever, and has no backend here");
    assert_eq!(asked("http://198.51.100.10:443/"), "000 ", "where HTTPS is spoken, plain HTTP is not");
    let metrics = controller.metrics(&edge);
    assert!(metrics.contains("lb_plain_http_requests_total{result=\"redirected\"} 1\n"), "{metrics}");
    assert!(metrics.contains("lb_xdp_service_packets_total{service=\"shop-http\"}"), "{metrics}");
}
