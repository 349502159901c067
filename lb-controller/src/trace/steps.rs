//! A packet's way, step by step: where it ended follows from the reason, and what was found on the way from what moved.

use std::net::{IpAddr, SocketAddr};

use lb_datapath::{Reason, SourceClass, Traced, TracedService, Verdict};

use crate::report::{TraceStep, TracedPacket};

/// In the order of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Parse,
    Service,
    Lists,
    Blocks,
    Limits,
    SynCookie,
    Pick,
    Forward,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Parse,
        Self::Service,
        Self::Lists,
        Self::Blocks,
        Self::Limits,
        Self::SynCookie,
        Self::Pick,
        Self::Forward,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Service => "service",
            Self::Lists => "lists",
            Self::Blocks => "blocks",
            Self::Limits => "limits",
            Self::SynCookie => "syn cookie",
            Self::Pick => "pick",
            Self::Forward => "forward",
        }
    }
}

/// Where a packet's way ended; `None` if it went to its end.
fn end(reason: Reason) -> Option<Step> {
    match reason {
        Reason::NotInspected
        | Reason::FragmentUnknown
        | Reason::FragmentOverlap
        | Reason::TinyFragment
        | Reason::BadFragment
        | Reason::BadIpHeader
        | Reason::BadExtensionChain
        | Reason::BadTransportHeader
        | Reason::BadIcmp
        | Reason::TunnelFromOutside
        | Reason::BadTunnel
        | Reason::TunnelNotToVip
        | Reason::TunnelCongested => Some(Step::Parse),
        Reason::NoService => Some(Step::Service),
        Reason::DeniedByList => Some(Step::Lists),
        Reason::Blocked => Some(Step::Blocks),
        Reason::VerifiedSourceLimit | Reason::IcmpLimit => Some(Step::Limits),
        limit if limit.is_exhaustible_limit() => Some(Step::Limits),
        Reason::SynCookieSent | Reason::BadSynCookie => Some(Step::SynCookie),
        Reason::NoBackend | Reason::NatFull | Reason::NatNoPort | Reason::NatUnknown => Some(Step::Pick),
        Reason::NoWayToBackend | Reason::TooBigForBackend | Reason::NoRoom => Some(Step::Forward),
        _ => None,
    }
}

/// What became of `frame`, for people.
pub fn tell(frame: &[u8], traced: &Traced) -> TracedPacket {
    let end = end(traced.reason);
    let steps = Step::ALL.into_iter().map(|step| {
        let (outcome, detail) = match end {
            Some(end) if step == end => ("stopped", stopped(step, traced)),
            Some(end) if step > end => ("not reached", String::new()),
            _ => passed(step, traced),
        };
        TraceStep { step: step.name().to_owned(), outcome: outcome.to_owned(), detail }
    });
    TracedPacket {
        summary: summary(traced),
        verdict: verdict(traced.verdict).to_owned(),
        reason: traced.reason.metric_name().to_owned(),
        reason_text: traced.reason.text().to_owned(),
        service: traced.service.as_ref().map(|service| service.name.clone()),
        backend: traced.backend.as_ref().map(|backend| backend.address.to_string()),
        steps: steps.collect(),
        frame: hex(frame),
        frame_out: hex(&traced.frame),
    }
}

fn stopped(step: Step, traced: &Traced) -> String {
    let why = traced.reason.text();
    match (step, traced.blocked) {
        (Step::Blocks, Some(remaining)) => format!("{why}, for another {} s", remaining.as_secs()),
        (Step::Limits, _) => format!("{why}{}", limits(traced)),
        _ => why.to_owned(),
    }
}

fn passed(step: Step, traced: &Traced) -> (&'static str, String) {
    match step {
        Step::Parse => ("passed", parsed(traced)),
        Step::Service => match &traced.service {
            Some(service) => ("passed", format!("{}, {}", service.name, destination(service))),
            None => ("skipped", "the packet belongs to no service as a whole: ICMP, or a fragment".to_owned()),
        },
        Step::Lists => ("passed", "not denied".to_owned()),
        Step::Blocks => match traced.blocked {
            Some(_) => ("passed", "blocked, but allowed by a list".to_owned()),
            None => ("passed", "not blocked".to_owned()),
        },
        Step::Limits => limited(traced),
        Step::SynCookie => cookie(traced),
        Step::Pick => picked(traced),
        Step::Forward => forwarded(traced),
    }
}

fn parsed(traced: &Traced) -> String {
    let Some(network) = &traced.network else { return "no IP header".to_owned() };
    let tags = (network.link_bytes.saturating_sub(14)) / 4;
    let mut text = format!("{} IP bytes", network.length_bytes);
    if tags > 0 {
        text.push_str(&format!(", {tags} VLAN tags"));
    }
    if !network.is_bare() {
        text.push_str(", options, extension headers or a fragment");
    }
    text
}

fn destination(service: &TracedService) -> String {
    match &service.pool {
        Some(pool) => format!("to pool {pool} by {}", service.forward),
        None => "served here".to_owned(),
    }
}

/// ` (source: 50 syns/s; …)`, or nothing.
fn limits(traced: &Traced) -> String {
    let in_force = traced.service.iter().flat_map(|service| &service.limits);
    // It counts only where another one bites.
    let in_force = in_force.filter(|(scope, ..)| *scope != "verified");
    let texts: Vec<_> = in_force
        .map(|(scope, of, rate)| format!("{scope}: {} {of}/s, {} at once", rate.per_second, rate.burst))
        .collect();
    if texts.is_empty() { String::new() } else { format!(" ({})", texts.join("; ")) }
}

fn limited(traced: &Traced) -> (&'static str, String) {
    let text = match traced.reason {
        Reason::Prioritised => "over a limit, and let in because the source is verified".to_owned(),
        Reason::ProvenByCookie => "over a limit, and let in for its SYN cookie".to_owned(),
        _ => match limits(traced) {
            none if none.is_empty() => return ("skipped", "no limit is in force".to_owned()),
            limits => format!("within them{limits}"),
        },
    };
    ("passed", text)
}

fn cookie(traced: &Traced) -> (&'static str, String) {
    let Some(service) = &traced.service else { return ("skipped", String::new()) };
    let cookies = &traced.cookies;
    if cookies.valid_cookies > 0 {
        return ("passed", "brought back a valid cookie".to_owned());
    }
    let now = if service.is_answering { "answering" } else { "no pressure" };
    match service.syn_cookies {
        "off" => ("skipped", "off for the service".to_owned()),
        mode => ("passed", format!("{mode}, {now}")),
    }
}

fn picked(traced: &Traced) -> (&'static str, String) {
    match (&traced.backend, traced.worker, &traced.service) {
        (Some(backend), ..) => {
            let flow = if backend.is_new_flow { "a new flow" } else { "a known flow" };
            ("passed", format!("{flow}, backend {} of pool {}", backend.address, backend.pool))
        }
        (None, Some(worker), _) => ("passed", format!("worker {worker}")),
        (None, None, Some(service)) if service.pool.is_none() => {
            ("skipped", "the kernel knows the worker of a connection".to_owned())
        }
        _ => ("skipped", String::new()),
    }
}

fn forwarded(traced: &Traced) -> (&'static str, String) {
    match (traced.verdict, &traced.backend) {
        (Verdict::Pass, _) => ("passed", "to this host's network stack".to_owned()),
        (_, Some(backend)) => {
            let way = backend.interface.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
            ("passed", format!("sent{way}, {} bytes on the wire", traced.frame.len()))
        }
        _ => ("passed", format!("sent back, {} bytes", traced.frame.len())),
    }
}

fn summary(traced: &Traced) -> String {
    let Some(network) = &traced.network else { return "not IP".to_owned() };
    let end = |address: IpAddr, port: Option<u16>| {
        port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
    };
    let (source, destination) = (traced.ports.map(|ports| ports.0), traced.ports.map(|ports| ports.1));
    let protocol = match network.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    };
    let class = if traced.class == SourceClass::Verified { ", verified" } else { "" };
    format!(
        "{} > {} {protocol}{class}",
        end(network.source.into(), source),
        end(network.destination.into(), destination)
    )
}

fn verdict(verdict: Verdict) -> &'static str {
    crate::datapath_report::samples::verdict_name(verdict)
}

fn hex(bytes: &[u8]) -> String {
    crate::datapath_report::samples::hex(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(reason: Reason, verdict: Verdict) -> Traced {
        Traced {
            verdict,
            reason,
            class: reason.class(),
            frame: vec![0xab],
            network: None,
            ports: None,
            service: None,
            blocked: None,
            verified: None,
            backend: None,
            worker: None,
            cookies: Default::default(),
        }
    }

    #[test]
    fn the_way_ends_at_one_step_and_what_comes_after_is_not_reached() {
        for reason in Reason::ALL {
            let told = tell(&[1, 2], &traced(*reason, reason.verdict()));
            assert_eq!(told.steps.len(), Step::ALL.len());
            let outcomes: Vec<_> = told.steps.iter().map(|step| step.outcome.as_str()).collect();
            let stopped = outcomes.iter().position(|outcome| *outcome == "stopped");
            let after = &outcomes[stopped.map_or(outcomes.len(), |at| at + 1)..];
            assert!(after.iter().all(|outcome| *outcome == "not reached"), "{reason:?}: {outcomes:?}");
            // Whatever is dropped, is dropped somewhere.
            assert!(stopped.is_some() || reason.verdict() != Verdict::Drop, "{reason:?}: {outcomes:?}");
            assert_eq!((told.frame.as_str(), told.frame_out.as_str()), ("0102", "ab"));
        }
    }
}
