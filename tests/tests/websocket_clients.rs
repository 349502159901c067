//! A WebSocket client that is not ours, and a backend by the same hand: the edge between them changes nothing.

use anyhow::{Result, ensure};
use lb_tests::edge::service_with;
use lb_tests::level;
use lb_tests::site::Site;
use lb_tests::websocket_peer::WebSocketPeer;
use serde_json::json;

const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";

#[tokio::test(flavor = "multi_thread")]
async fn another_hands_client_and_backend_understand_each_other_through_the_edge() -> Result<()> {
    if level::is_skipped("peers", WebSocketPeer::lacking()) {
        return Ok(());
    }
    let mut peer = WebSocketPeer::start()?;
    let backend = peer.address;
    let Some(site) = Site::open(move |address, _| Ok(service_with(address, backend, ROUTES))).await? else {
        return Ok(());
    };
    let url = site.url("/chat").replace("https://", "wss://");
    for (compresses, subprotocol) in [(false, None), (true, Some("chat")), (true, None), (false, Some("nobody-knows"))]
    {
        let seen = tokio::task::block_in_place(|| peer.go(&url, compresses, subprotocol))?;
        let agreed = subprotocol.filter(|name| *name == "chat");
        let expected = json!({
            "subprotocol": agreed, "compressed": compresses,
            "text": true, "binary": true, "empty": true, "large": true, "even": true, "in_pieces": true,
            "pinged": true, "many": true,
            "closed": [1000, ""],
            "by_client": [3001, "I have seen enough"],
            "by_backend": [4001, "au revoir \u{2603}"],
            // No Close frame came (RFC 6455, section 7.1.5).
            "cut_off": 1006,
        });
        ensure!(seen == expected, "{compresses} {subprotocol:?}: {seen:#}");
    }
    site.eventually("no tunnel is left", async |site| Ok(site.metric("lb_backend_in_flight", "")? == 0.0)).await
}
