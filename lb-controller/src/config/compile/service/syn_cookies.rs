//! Whether a service's SYNs are answered with cookies.

use lb_datapath::{Forward, Protocols, SynCookies};

use super::super::super::section::{Complaint, Section};
use super::super::super::{Forwarding, values};
use super::limits;

/// A number of SYNs a second that the workers' listeners still take in their stride.
const DEFAULT_THRESHOLD: u32 = 10_000;

const CHOICES: [&str; 3] = ["auto", "always", "off"];

/// `None`, and a complaint, if what is asked for cannot be. Of what could not be read the best is assumed: it has been
/// complained of.
pub(super) fn compile(
    section: &Section<'_>,
    protocols: Option<Protocols>,
    forwarding: Option<&Forwarding>,
) -> Option<SynCookies> {
    let threshold = section.value("syn_cookie_threshold", values::number(1..=limits::MOST_PACKETS_PER_SECOND));
    let threshold_syns_per_second = threshold.unwrap_or(DEFAULT_THRESHOLD);
    let is_local = forwarding.is_none_or(|forwarding| forwarding.forward == Forward::Local);
    let has_syns = protocols.is_none_or(|protocols| protocols.tcp);
    let auto = SynCookies::Auto { threshold_syns_per_second };
    if !section.has("syn_cookies") {
        return Some(if is_local && has_syns { auto } else { SynCookies::Off });
    }
    let possible = |choice| match (is_local, has_syns) {
        (true, true) => Ok(choice),
        (false, _) => Err(Complaint::new(
            "a service that forwards cannot answer SYNs",
            "only the kernel that makes a cookie takes it back; write `off`, and let limits protect the backends",
        )),
        (true, false) => Err(Complaint::new("a service without TCP has no SYNs to answer", "write `off`")),
    };
    section.value("syn_cookies", |text| match text {
        "auto" => possible(auto),
        "always" => possible(SynCookies::Always { threshold_syns_per_second }),
        "off" => Ok(SynCookies::Off),
        _ => Err(Complaint::unknown("choice", text, CHOICES)),
    })
}
