//! The packet's way: XDP judges and hashes, sk_lookup hands the connection to the worker that the hash picked.
//!
//! `process` and `serve` are the table of contents. Each step returns `Result<_, Reason>`; only `end` turns a reason into a verdict and
//! a counter. What is rare goes on in a program of its own, which ends the same way.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod admit;
#[cfg(target_arch = "bpf")]
mod cookie_programs;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod end;
#[cfg(target_arch = "bpf")]
mod flow;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragments;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod kernel_tcp;
#[cfg(target_arch = "bpf")]
mod limits;
#[cfg(target_arch = "bpf")]
mod lists;
#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod mss;
#[cfg(target_arch = "bpf")]
mod nat;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod pick;
#[cfg(target_arch = "bpf")]
mod quic;
#[cfg(target_arch = "bpf")]
mod sample;
#[cfg(target_arch = "bpf")]
mod service;
#[cfg(target_arch = "bpf")]
mod steer;
#[cfg(target_arch = "bpf")]
mod syn_cookie;
#[cfg(target_arch = "bpf")]
mod too_big;
#[cfg(target_arch = "bpf")]
mod tunnel;
#[cfg(target_arch = "bpf")]
mod unusual;
#[cfg(target_arch = "bpf")]
mod way;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::{sk_action, xdp_action};
    use aya_ebpf::macros::{sk_lookup, xdp};
    use aya_ebpf::programs::{SkLookupContext, XdpContext};
    use lb_common::parse::{Family, Headers, Transport, family, parse_ordinary_ipv4, parse_ordinary_ipv6};
    use lb_common::service::Service;
    use lb_common::types::{Control, ServiceForward};
    use lb_common::{Listed, Reason, SlowPath, Stop};

    use crate::end::end;
    use crate::maps::{SocketSearch, scratch};
    use crate::packet::XdpPacket;
    use crate::{
        admit, count, flow, forward, fragments, icmp, lists, maps, nat, pick, service, steer, syn_cookie, tunnel,
        unusual,
    };

    type Outcome = Result<(Reason, u32), Stop>;

    /// Every frame of an interface, before the kernel has spent anything on it.
    #[xdp(frags)]
    #[inline(always)] // The attribute makes two functions of one, and a call between them has a price.
    pub(crate) fn lb_process(context: XdpContext) -> u32 {
        end(&context, process(&context))
    }

    /// Packets whose ports are not where they usually are, or not there.
    #[xdp(frags)]
    pub(crate) fn lb_unusual(context: XdpContext) -> u32 {
        end(&context, unusual::process(&context))
    }

    /// Fragments, after [`lb_unusual`].
    #[xdp(frags)]
    pub(crate) fn lb_fragment(context: XdpContext) -> u32 {
        end(&context, fragments::process())
    }

    /// What the programs before it have read.
    #[xdp(frags)]
    pub(crate) fn lb_judge(context: XdpContext) -> u32 {
        end(&context, serve_read())
    }

    /// Packets that may be the L4 tier's, to be unpacked here, after [`lb_unusual`].
    #[xdp(frags)]
    pub(crate) fn lb_tunnel(context: XdpContext) -> u32 {
        end(&context, tunnel::process(&context))
    }

    /// What was inside, after [`lb_tunnel`].
    #[xdp(frags)]
    pub(crate) fn lb_inner(context: XdpContext) -> u32 {
        end(&context, tunnel::process_inner(&context))
    }

    /// The same, its headers read.
    #[xdp(frags)]
    pub(crate) fn lb_inner_service(context: XdpContext) -> u32 {
        end(&context, tunnel::process_inner_service())
    }

    /// Admitted packets of services with backends, after [`lb_process`] or [`lb_judge`].
    #[xdp(frags)]
    pub(crate) fn lb_forward(context: XdpContext) -> u32 {
        end(&context, forward_judged(&context))
    }

    /// ICMP and ICMPv6.
    #[xdp(frags)]
    pub(crate) fn lb_icmp(context: XdpContext) -> u32 {
        end(&context, icmp::process(&context))
    }

    /// Errors about a connection, after [`lb_icmp`].
    #[xdp(frags)]
    pub(crate) fn lb_icmp_error(context: XdpContext) -> u32 {
        end(&context, icmp::process_error(&context))
    }

    #[inline(always)]
    fn process(context: &XdpContext) -> Outcome {
        let packet = XdpPacket::new(context);
        // Each family on a way of its own, on which the compiler knows which words an address has.
        match family(&packet)? {
            Family::Ipv4 => serve(context, &parse_ordinary_ipv4(&packet)?),
            Family::Ipv6 => serve(context, &parse_ordinary_ipv6(&packet)?),
        }
    }

    /// The way of nearly every packet, from its headers to its backend; what is rare goes on in another program.
    #[inline(always)]
    fn serve(context: &XdpContext, headers: &Headers) -> Outcome {
        let Ok(transport) = headers.transport else { return Err(Stop::Slow(SlowPath::Unusual)) };
        let (headers, transport) = &maps::forget_kind(headers, &transport);
        let control = maps::control().ok_or(Reason::InternalError)?;
        let found = service::endpoint(control, headers, transport);
        let unless_gue = |reason| tunnel::unless_gue(headers, &transport, reason, SlowPath::Unusual);
        let Some(entry) = found.map_err(unless_gue)? else {
            scratch::write(headers, transport).ok_or(Reason::InternalError)?;
            scratch::write_unpacked(false).ok_or(Reason::InternalError)?;
            return Err(Stop::Slow(SlowPath::Judge));
        };
        let service = Service { number: entry.service, workers: entry.workers };
        let forward = maps::forward(service.number).ok_or(Reason::InternalError)?;
        let place = flow::place_of(forward, headers, transport);
        let admitted = judge::<true>(control, &service, forward, headers, transport)?;
        let Some(place) = place else { return Ok((admitted, xdp_action::XDP_PASS)) };
        nat::divert_admitted(&service, forward, headers, &transport, admitted)?;
        if forward::divert(forward, headers, &transport, false).is_err() {
            return go_on_in_forward(service.number, admitted, headers, transport);
        }
        let picked = flow::backend(place, service.number, forward, headers, transport)
            .inspect_err(count::undelivered(service.number))?;
        let action = forward::finish(context, service.number, forward, headers, &transport, &picked)?;
        Ok((if picked.is_prioritised { Reason::Prioritised } else { admitted }, action))
    }

    /// [`serve`] for a packet of any shape and a service found in any way.
    #[inline(always)]
    fn serve_read() -> Outcome {
        let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
        let found = service::find(&headers);
        let unless_gue = |reason| tunnel::unless_gue(&headers, &transport, reason, SlowPath::Tunnel);
        let (service, _) = found.map_err(unless_gue)?;
        nat::divert_reply(&service, &headers, &transport)?;
        let forward = maps::forward(service.number).ok_or(Reason::InternalError)?;
        let control = maps::control().ok_or(Reason::InternalError)?;
        let admitted = judge::<false>(control, &service, forward, &headers, &transport)?;
        if flow::is_local(forward) {
            return Ok((admitted, xdp_action::XDP_PASS));
        }
        go_on_in_forward(service.number, admitted, &headers, &transport)
    }

    #[inline(always)]
    fn go_on_in_forward(service: u16, admitted: Reason, headers: &Headers, transport: &Transport) -> Outcome {
        scratch::write_admission(service, admitted == Reason::Prioritised).ok_or(Reason::InternalError)?;
        scratch::write(headers, transport).ok_or(Reason::InternalError)?;
        Err(Stop::Slow(SlowPath::Forward))
    }

    /// May a packet to a service pass, and why? `QUICKLY` as in [`admit::admit`].
    #[inline(always)]
    fn judge<const QUICKLY: bool>(
        control: &Control,
        service: &Service,
        forward: &ServiceForward,
        headers: &Headers,
        transport: &Transport,
    ) -> Result<Reason, Stop> {
        let listed = lists::look_up(control, headers.source);
        let may_answer = flow::is_local(forward) && headers.fragment.is_whole() && listed != Listed::Denied;
        if may_answer {
            syn_cookie::under_pressure(headers, transport, service)
                .or_else(|stop| hand_over::<QUICKLY>(headers, transport, listed, stop))?;
        }
        let admission = maps::forget_outcome(admit::admit::<QUICKLY>(control, headers, transport, service, listed));
        if let (Err(limited), true) = (admission, may_answer) {
            syn_cookie::over_limit(headers, transport, service, limited)
                .or_else(|stop| hand_over::<QUICKLY>(headers, transport, listed, stop))?;
        }
        count::service(service, headers, transport, admission);
        let admitted = admission?;
        if flow::is_local(forward) && transport.opens_connection {
            count::picked(pick::worker(service, headers, transport));
        }
        Ok(admitted)
    }

    /// What the programs of SYN cookies must know of the packet, whose source no list denies. `FIRST`: in the first program, where
    /// no packet has been in a tunnel.
    #[inline(always)]
    fn hand_over<const FIRST: bool>(
        headers: &Headers,
        transport: &Transport,
        listed: Listed,
        stop: Stop,
    ) -> Result<(), Stop> {
        scratch::write(headers, transport).ok_or(Reason::InternalError)?;
        scratch::write_allowed(listed == Listed::Allowed).ok_or(Reason::InternalError)?;
        if FIRST {
            scratch::write_unpacked(false).ok_or(Reason::InternalError)?;
        }
        Err(stop)
    }

    /// The rest of it, for a service with backends.
    #[inline(always)]
    fn forward_judged(context: &XdpContext) -> Outcome {
        let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
        let (service, prioritised) = scratch::read_admission().ok_or(Reason::InternalError)?;
        let forward = maps::forward(service).ok_or(Reason::InternalError)?;
        nat::divert(forward)?;
        forward::divert(forward, &headers, &transport, scratch::is_lowered())?;
        let place = flow::place_of(forward, &headers, &transport).ok_or(Reason::InternalError)?;
        let picked =
            flow::backend(place, service, forward, &headers, &transport).inspect_err(count::undelivered(service))?;
        let action = forward::finish(context, service, forward, &headers, &transport, &picked)?;
        Ok((if prioritised || picked.is_prioritised { Reason::Prioritised } else { Reason::Admitted }, action))
    }

    /// Every connection that finds no established socket: the host's own ones leave untouched.
    #[sk_lookup]
    pub(crate) fn lb_steer(context: SkLookupContext) -> u32 {
        if maps::socket_search() == SocketSearch::Connection {
            // Nobody waits for this listener.
            return sk_action::SK_DROP;
        }
        // Without a socket of ours the usual lookup goes on. Dropping instead would cut off the host's own listeners
        // on the same address whenever the controller is down.
        let _ = steer::steer(&context);
        sk_action::SK_PASS
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
