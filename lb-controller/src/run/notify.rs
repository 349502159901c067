//! What systemd is told (sd_notify(3)), where it asks: that this process serves, and is the one to watch.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// After an upgrade the process that systemd started drains and ends: the service is this one from now on.
pub(super) fn serving() {
    tell(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// The service is being stopped, and not just this process replaced.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(address) = std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty()) else { return };
    if let Err(error) = send(&address, state) {
        tracing::warn!(%error, address, "systemd could not be told: {}", state.replace('\n', ", "));
    }
}

fn send(address: &str, state: &str) -> std::io::Result<()> {
    let to = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_addresses_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("lb-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
            send(&address, "READY=1\nMAINPID=7").unwrap();
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\nMAINPID=7", "{address}");
        }
    }
}
