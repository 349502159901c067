//! An interface and its driver, as far as they matter to XDP.

use std::collections::BTreeSet;
use std::fs;

use super::Finding;
use crate::genl::{Channels, Generic};
use crate::interface;
use crate::link::{self, LinkFacts};

/// Bits of the features that the family `netdev` tells (`NETDEV_XDP_ACT_*`).
const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const TRANSMIT: u64 = 4;
const FRAGMENTS: u64 = 32;

/// The largest MTU with which a driver runs XDP without fragments, on 4 KiB pages, as its source has it.
const LARGEST_MTU_BYTES: [(&str, u32); 5] =
    [("ena", 3498), ("i40e", 3046), ("ice", 3046), ("mlx5_core", 3498), ("virtio_net", 3506)];

/// Bonds hand XDP to their members in these modes (bonding.c, `bond_xdp_check`).
const BOND_MODES: [&str; 4] = ["balance-rr", "active-backup", "balance-xor", "802.3ad"];

/// All that was asked about one interface; `None` where the kernel did not say.
#[derive(Debug, Default)]
struct Facts {
    name: String,
    link: LinkFacts,
    driver: Option<String>,
    bond_mode: Option<String>,
    master: Option<(String, Option<String>)>,
    xdp_features: Option<u64>,
    offloads: Option<BTreeSet<String>>,
    channels: Option<Channels>,
    cpus: u32,
}

/// What is good and what is not about attaching to the interface.
pub fn examine(name: &str) -> Vec<Finding> {
    match facts(name) {
        Some(facts) => judge(&facts),
        None => vec![Finding::bad("interface", "absent", format!("there is no interface {name:?}; see `ip link`"))],
    }
}

fn facts(name: &str) -> Option<Facts> {
    let index = interface::present_index(name)?;
    let link = link::facts(index).ok().flatten()?;
    let generic = Generic::open().ok();
    let generic = generic.as_ref();
    let master = link.master.map(|index| {
        let kind = link::facts(index).ok().flatten().and_then(|facts| facts.kind);
        (interface::name_of(index), kind)
    });
    Some(Facts {
        name: name.to_owned(),
        driver: link.kind.clone().or_else(|| driver(name)),
        bond_mode: fs::read_to_string(format!("/sys/class/net/{name}/bonding/mode")).ok(),
        master,
        xdp_features: generic.and_then(|generic| generic.xdp_features(index).ok()),
        offloads: generic.and_then(|generic| generic.features(index).ok()),
        channels: generic.and_then(|generic| generic.channels(index).ok()),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
        link,
    })
}

/// Of hardware; /sys shows the network namespace it was mounted in, which is where hardware usually is.
fn driver(name: &str) -> Option<String> {
    let path = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        Finding::good("driver", facts.driver.clone().unwrap_or_else(|| String::from("unknown"))),
        place(facts),
        native(facts),
        mtu(facts),
        queues(facts),
    ];
    findings.extend(offloads(facts));
    findings
}

/// Whether this is the interface to attach to.
fn place(facts: &Facts) -> Finding {
    if let Some((master, Some(kind))) = &facts.master
        && kind == "bond"
    {
        return Finding::bad(
            "place",
            format!("a member of bond {master}"),
            format!("the bond gives XDP to its members itself: name {master} instead of {}", facts.name),
        );
    }
    match facts.link.kind.as_deref() {
        Some("bond") => bond(facts.bond_mode.as_deref()),
        Some(kind @ ("vlan" | "macvlan" | "ipvlan" | "bridge" | "dummy")) => Finding::warning(
            "place",
            format!("a {kind} interface"),
            "it has no driver of its own, so XDP runs generically, several times slower: name the interface beneath it; \
             VLAN tags are understood there",
        ),
        _ => Finding::good("place", "attached to itself"),
    }
}

fn bond(mode: Option<&str>) -> Finding {
    // Such as `802.3ad 4`.
    let Some(mode) = mode.and_then(|mode| mode.split_whitespace().next()) else {
        return Finding::unknown("place", "a bond whose mode is not told here");
    };
    if BOND_MODES.contains(&mode) {
        return Finding::good("place", format!("a bond in mode {mode}; every member must run XDP natively"));
    }
    let remedy =
        format!("XDP is native on bonds in the modes {}: change it, or XDP runs generically", BOND_MODES.join(", "));
    Finding::warning("place", format!("a bond in mode {mode}"), remedy)
}

fn native(facts: &Facts) -> Finding {
    let Some(features) = facts.xdp_features else {
        return Finding::unknown("native XDP", "the kernel does not say before 6.3; attaching shows it");
    };
    if features & BASIC == 0 {
        return Finding::warning(
            "native XDP",
            "the driver has none",
            "XDP runs generically, several times slower; another card or driver runs it natively",
        );
    }
    let named = [(REDIRECT, "redirect"), (TRANSMIT, "transmit from another interface"), (FRAGMENTS, "fragments")];
    let with: Vec<_> = named.iter().filter(|(bit, _)| features & bit != 0).map(|(_, name)| *name).collect();
    let found = format!("yes, with {}", if with.is_empty() { String::from("no extras") } else { with.join(", ") });
    if features & REDIRECT == 0 {
        let remedy = "packets to backends behind another interface are lost: reach backends through this one";
        return Finding::warning("native XDP", found, remedy);
    }
    Finding::good("native XDP", found)
}

fn mtu(facts: &Facts) -> Finding {
    let mtu_bytes = facts.link.mtu_bytes;
    let known = LARGEST_MTU_BYTES.iter().find(|(driver, _)| facts.driver.as_deref() == Some(*driver));
    let has_fragments = facts.xdp_features.is_some_and(|features| features & FRAGMENTS != 0);
    match known {
        _ if has_fragments => Finding::good("MTU", format!("{mtu_bytes}; larger than a page is taken in fragments")),
        Some((driver, largest)) if mtu_bytes > *largest => Finding::warning(
            "MTU",
            mtu_bytes.to_string(),
            format!(
                "{driver} runs XDP natively up to {largest} without fragments: `ip link set dev {} mtu {largest}`",
                facts.name
            ),
        ),
        _ => Finding::good("MTU", mtu_bytes.to_string()),
    }
}

/// A queue's packets are judged on one CPU.
fn queues(facts: &Facts) -> Finding {
    let channels = facts.channels.unwrap_or(Channels { used: facts.link.rx_queues, ..Channels::default() });
    let (used, cpus) = (channels.used, facts.cpus);
    let found = format!("{used} for {cpus} CPUs");
    let wanted = cpus.min(channels.most);
    if wanted > used {
        let kind = if channels.are_combined { "combined" } else { "rx" };
        let remedy = format!("packets are judged on {used} of them: `ethtool -L {} {kind} {wanted}`", facts.name);
        return Finding::warning("receive queues", found, remedy);
    }
    Finding::good("receive queues", found)
}

/// Those that change what XDP sees: the feature, whether it should be on, ethtool's word for it, and why.
const OFFLOADS: [(&str, bool, &str, &str); 4] = [
    ("rx-lro", false, "lro", "merged packets are not what was sent, and most drivers run no XDP with it"),
    ("rx-gro-hw", false, "rx-gro-hw", "packets that the card merges are larger than XDP takes"),
    (
        "rx-vlan-hw-parse",
        false,
        "rxvlan",
        "the card takes VLAN tags off before XDP sees them: what is sent on lacks them",
    ),
    ("rx-hashing", true, "rxhash", "without it one queue gets all packets"),
];

fn offloads(facts: &Facts) -> Vec<Finding> {
    let Some(on) = &facts.offloads else {
        return vec![Finding::unknown("offloads", "the driver does not say")];
    };
    // Where there is one queue, or no card, nothing chooses by a hash.
    let needs_no_hash = facts.channels.unwrap_or_default().used <= 1 || facts.link.kind.is_some();
    let judge = |(feature, should_be_on, word, why): &(&str, bool, &str, &str)| {
        let is_on = on.contains(*feature);
        if is_on == *should_be_on || (*should_be_on && needs_no_hash) {
            return None;
        }
        let (now, then) = if is_on { ("on", "off") } else { ("off", "on") };
        let remedy = format!("{why}: `ethtool -K {} {word} {then}`", facts.name);
        Some(Finding::warning("offloads", format!("{feature} is {now}"), remedy))
    };
    let findings: Vec<_> = OFFLOADS.iter().filter_map(judge).collect();
    if findings.is_empty() { vec![Finding::good("offloads", "none that hides anything from XDP")] } else { findings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    /// A card as it should be.
    fn card() -> Facts {
        Facts {
            name: String::from("eth1"),
            link: LinkFacts { mtu_bytes: 1500, rx_queues: 8, tx_queues: 8, ..LinkFacts::default() },
            driver: Some(String::from("ice")),
            xdp_features: Some(BASIC | REDIRECT | TRANSMIT),
            offloads: Some(BTreeSet::from([String::from("rx-hashing")])),
            channels: Some(Channels { used: 8, most: 16, are_combined: true }),
            cpus: 8,
            ..Facts::default()
        }
    }

    /// What is not good about it: `what found: remedy`.
    fn complaints(facts: &Facts) -> Vec<String> {
        let findings = judge(facts).into_iter().filter(|finding| finding.grade != Grade::Good);
        findings.map(|Finding { what, found, remedy, .. }| format!("{what} {found}: {remedy}")).collect()
    }

    #[test]
    fn a_good_card_has_no_complaint() {
        assert_eq!(complaints(&card()), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_told_with_the_command_that_mends_it() {
        let offloads = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let of_kind = |kind: &str| LinkFacts { kind: Some(kind.to_owned()), ..card().link };
        let rows = [
            (Facts { offloads: offloads(&["rx-hashing", "rx-lro"]), ..card() }, "`ethtool -K eth1 lro off`"),
            (Facts { offloads: offloads(&["rx-hashing", "rx-gro-hw"]), ..card() }, "`ethtool -K eth1 rx-gro-hw off`"),
            (
                Facts { offloads: offloads(&["rx-hashing", "rx-vlan-hw-parse"]), ..card() },
                "`ethtool -K eth1 rxvlan off`",
            ),
            (Facts { offloads: offloads(&[]), ..card() }, "`ethtool -K eth1 rxhash on`"),
            (
                Facts { channels: Some(Channels { used: 2, most: 16, are_combined: true }), ..card() },
                "`ethtool -L eth1 combined 8`",
            ),
            (Facts { link: LinkFacts { mtu_bytes: 9000, ..card().link }, ..card() }, "`ip link set dev eth1 mtu 3046`"),
            (Facts { xdp_features: Some(0), ..card() }, "XDP runs generically"),
            (Facts { xdp_features: Some(BASIC), ..card() }, "reach backends through this one"),
            (Facts { xdp_features: None, ..card() }, "attaching shows it"),
            (Facts { link: of_kind("vlan"), ..card() }, "name the interface beneath it"),
            (
                Facts { link: of_kind("bond"), bond_mode: Some(String::from("balance-alb 6\n")), ..card() },
                "a bond in mode balance-alb",
            ),
            (
                Facts { master: Some((String::from("bond0"), Some(String::from("bond")))), ..card() },
                "name bond0 instead of eth1",
            ),
        ];
        for (facts, expected) in rows {
            let complaints = complaints(&facts);
            assert_eq!(complaints.len(), 1, "{expected}: {complaints:?}");
            assert!(complaints[0].contains(expected), "{expected}: {complaints:?}");
        }
    }

    #[test]
    fn what_is_as_it_should_be_under_other_circumstances_is_no_complaint() {
        let jumbo = LinkFacts { mtu_bytes: 9000, ..card().link };
        let bond = LinkFacts { kind: Some(String::from("bond")), ..card().link };
        for facts in [
            Facts { link: jumbo, xdp_features: Some(BASIC | REDIRECT | FRAGMENTS), ..card() },
            Facts { link: bond, bond_mode: Some(String::from("802.3ad 4\n")), ..card() },
            Facts {
                offloads: Some(BTreeSet::new()),
                channels: Some(Channels { used: 1, most: 1, are_combined: false }),
                ..card()
            },
        ] {
            assert_eq!(complaints(&facts), Vec::<String>::new());
        }
    }

    #[test]
    fn an_absent_interface_is_bad() {
        assert_eq!(examine("no-such-if")[0].grade, Grade::Bad);
    }
}
