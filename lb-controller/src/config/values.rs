//! Values with units, and other texts that several sections have in common.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use lb_common::vip::BadVip;
use lb_datapath::{Ports, VipPrefix};

use super::section::Complaint;

/// `250ms`, `30s`, `5m`, `12h`, `7d`, within `allowed`.
pub(super) fn duration(allowed: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, Complaint> {
    move |text| {
        let complaint =
            || Complaint::new(format!("`{text}` is no duration"), "write a number and a unit: 250ms, 30s, 5m, 12h, 7d");
        let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| complaint())?;
        let unit_ms = match unit.trim_start() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if number == 0 => 1,
            _ => return Err(complaint()),
        };
        let duration = Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(complaint)?);
        if allowed.contains(&duration) {
            return Ok(duration);
        }
        Err(format!("from {} to {} is allowed here", shown(*allowed.start()), shown(*allowed.end())).into())
    }
}

/// In the largest unit that divides it.
fn shown(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units.iter().find(|(_, unit_ms)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms));
    unit.map_or_else(|| format!("{ms}ms"), |(name, unit_ms)| format!("{}{name}", ms / unit_ms))
}

/// `64KiB`, `1MiB`, `2GiB`, or plain bytes.
pub(super) fn size_bytes(text: &str) -> Result<u64, Complaint> {
    let complaint =
        || Complaint::new(format!("`{text}` is no size"), "write a number and a unit: 512B, 64KiB, 1MiB, 2GiB");
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| complaint())?;
    let unit_bytes = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return Err(complaint()),
    };
    number.checked_mul(unit_bytes).ok_or_else(complaint)
}

/// A whole number within `allowed`.
pub(super) fn number(allowed: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, Complaint> {
    move |text| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| plain && allowed.contains(number));
        number
            .ok_or_else(|| format!("`{text}` is no whole number from {} to {}", allowed.start(), allowed.end()).into())
    }
}

/// `20%`, from 0% to 100%.
pub(super) fn percent(text: &str) -> Result<u8, Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no share"), "write it with its sign, from 0% to 100%");
    let digits = text.strip_suffix('%').ok_or_else(complaint)?.trim_end();
    number(0..=100)(digits).map(|percent| percent as u8).map_err(|_| complaint())
}

/// YAML 1.2 has two booleans; `yes` and `on` are texts.
pub(super) fn boolean(text: &str) -> Result<bool, Complaint> {
    text.parse().map_err(|_| Complaint::new(format!("`{text}` is neither true nor false"), "write `true` or `false`"))
}

/// An origin as browsers write it: `https://host`, with a port unless it is 443.
pub(super) fn origin(text: &str) -> Result<String, Complaint> {
    const HELP: &str = "write it as browsers send it, such as https://app.shop.example";
    let authority = text.strip_prefix("https://").ok_or_else(|| Complaint::new("this is no https:// origin", HELP))?;
    let host = lb_policy::canonical_host(authority)
        .map_err(|error| Complaint::new(format!("this is no origin: {error}"), HELP))?;
    let port = authority.strip_prefix(&*host);
    let is_plain = match port {
        Some("") => true,
        Some(port) => port != ":443" && port.starts_with(':'),
        None => false,
    };
    if is_plain { Ok(text.to_owned()) } else { Err(Complaint::new("no browser writes an origin like this", HELP)) }
}

/// Names end up in metrics, logs and kernel maps.
pub(super) fn name(text: &str) -> Result<String, Complaint> {
    const MOST_BYTES: usize = 64;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > MOST_BYTES || !text.bytes().all(plain) {
        return Err(format!("a name has 1 to {MOST_BYTES} letters, digits, `-`, `_` or `.`").into());
    }
    Ok(text.to_owned())
}

/// A name that conditions can write after a dot.
pub(super) fn is_identifier(text: &str) -> bool {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts_well && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Complaint> {
    let help = "write `192.0.2.1:8080` or `[2001:db8::1]:8080`; in YAML, brackets and colons want quotes";
    let address: SocketAddr =
        text.parse().map_err(|_| Complaint::new(format!("`{text}` is no address with a port"), help))?;
    if address.port() == 0 {
        return Err("port 0 is no port to connect to".into());
    }
    Ok(address)
}

/// One unicast address, or a prefix of such.
pub(super) fn vip(text: &str) -> Result<VipPrefix, Complaint> {
    let vip: VipPrefix = text.parse().map_err(|bad| match bad {
        BadVip::Unreadable => format!("`{text}` is no IPv4 or IPv6 address or prefix").into(),
        BadVip::HostBits { network, length_bits } => {
            let help = format!("the block is `{network}/{length_bits}`");
            Complaint::new(format!("`{text}` has bits beyond its prefix"), help)
        }
    })?;
    let is_mapped = vip.network().is_ipv4() && text.contains(':');
    if is_mapped || !vip.is_unicast() {
        let help = "a VIP is one unicast address, or a prefix of such";
        return Err(Complaint::new(format!("`{text}` cannot be a VIP"), help));
    }
    Ok(vip)
}

/// `443`, `5000-5999` or `any`.
pub(super) fn ports(text: &str) -> Result<Ports, Complaint> {
    let port = |text: &str| number(1..=65_535)(text).map(|port| port as u16);
    match text.split_once('-') {
        _ if text == "any" => Ok(Ports::Any),
        None => port(text).map(Ports::One),
        Some((first, last)) => match (port(first.trim())?, port(last.trim())?) {
            (first, last) if first < last => Ok(Ports::Range(first, last)),
            _ => Err(Complaint::new(format!("`{text}` is no range of ports"), "write the smaller port first")),
        },
    }
}

/// A CIDR block, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Complaint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let help = "write `10.0.0.0/8` or `2001:db8::/32`";
    let network: IpNet = text.parse().map_err(|_| Complaint::new(format!("`{text}` is no address block"), help))?;
    if network.trunc() != network {
        let help = format!("the block is `{}`", network.trunc());
        return Err(Complaint::new(format!("`{text}` has bits beyond its prefix"), help));
    }
    Ok(network)
}

/// Those in front of this host who speak for their clients.
pub(super) fn peers(text: &str) -> Result<IpNet, Complaint> {
    let network = network(text)?;
    if is_everybody(&network) {
        let help = "list the addresses of the load balancers in front of this host";
        return Err(Complaint::new(format!("`{text}` would let anybody send in any client's name"), help));
    }
    Ok(network)
}

/// All of a family; or an IPv6 block so wide that it holds the form in which IPv4 addresses are looked up.
fn is_everybody(network: &IpNet) -> bool {
    const LEAST_BITS: u8 = 8;
    network.prefix_len() < LEAST_BITS
        || matches!(network, IpNet::V6(v6) if v6.addr().is_unspecified() && v6.prefix_len() < 96)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_carry_their_unit() {
        let any = || duration(Duration::ZERO..=Duration::MAX);
        let durations = [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("5 m", Some(300_000)),
            ("12h", Some(43_200_000)),
            ("7d", Some(604_800_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("m", None),
            ("-5m", None),
            ("1.5h", None),
            ("5min", None),
            ("99999999999999999d", None),
        ];
        for (text, expected_ms) in durations {
            assert_eq!(any()(text).ok(), expected_ms.map(Duration::from_millis), "{text}");
        }
        let sizes = [
            ("0", Some(0)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("1 MiB", Some(1 << 20)),
            ("3GiB", Some(3 << 30)),
            ("64KB", None),
            ("", None),
        ];
        for (text, expected) in sizes {
            assert_eq!(size_bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_told_the_range() {
        let seconds = Duration::from_secs;
        let complaint = duration(seconds(30)..=seconds(3600))("5s").unwrap_err();
        assert_eq!(complaint.message, "from 30s to 1h is allowed here");
        let complaint = number(1..=10)("11").unwrap_err();
        assert_eq!(complaint.message, "`11` is no whole number from 1 to 10");
        assert!(number(0..=10)("+1").is_err());
    }
}
