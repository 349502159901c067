//! Questions to the kernel's TCP: its sockets and its cookies. The headers it reads are copies of ours.
#![expect(unsafe_code, reason = "the kernel's helpers take raw pointers; the verifier checks what they point to")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_tcp_raw_check_syncookie_ipv4,
    bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
};
use aya_ebpf::programs::XdpContext;
use lb_common::parse::Headers;
use lb_common::syn_cookie::{MOST_STEPS, OptionWalk, Segment, SynOptions};

use crate::maps::{self, SocketSearch};

/// The namespace of the interface that the packet came in by.
const THIS_NAMESPACE: u64 = u64::MAX;
/// `TCP_LISTEN` of the kernel's `tcp_states.h`.
const LISTENING: u32 = 10;

const BRIEF_TCP_BYTES: u32 = 24;
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;
/// Two addresses and two ports.
const IPV4_TUPLE_BYTES: u32 = 12;
const IPV6_TUPLE_BYTES: u32 = 36;

/// The cookie for a SYN: our sequence number in the answer.
#[inline(always)]
pub(crate) fn cookie(headers: &Headers, syn: &Segment, options: &SynOptions) -> Option<u32> {
    let mut tcp = brief(syn, options.max_segment_bytes);
    let tcp_bytes = BRIEF_TCP_BYTES;
    let tcp = tcp.as_mut_ptr().cast();
    let answer = if headers.source.is_v4() {
        let mut ip = ipv4(headers);
        // SAFETY: whole headers of the lengths that the helper expects.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip.as_mut_ptr().cast(), tcp, tcp_bytes) }
    } else {
        let mut ip = ipv6(headers);
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip.as_mut_ptr().cast(), tcp, tcp_bytes) }
    };
    // Above the cookie is the segment size that it stands for.
    (answer >= 0).then_some(answer as u32)
}

/// Does the packet acknowledge a cookie of the last two minutes?
#[inline(always)]
pub(crate) fn brings_cookie(headers: &Headers, segment: &Segment) -> bool {
    let mut tcp = brief(segment, 0);
    let tcp = tcp.as_mut_ptr().cast();
    let failure = if headers.source.is_v4() {
        let mut ip = ipv4(headers);
        // SAFETY: whole headers of the lengths that the helper expects.
        unsafe { bpf_tcp_raw_check_syncookie_ipv4(ip.as_mut_ptr().cast(), tcp) }
    } else {
        let mut ip = ipv6(headers);
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_check_syncookie_ipv6(ip.as_mut_ptr().cast(), tcp) }
    };
    failure == 0
}

/// Has the kernel a connection, or one in the making, that the packet belongs to?
#[inline(always)]
pub(crate) fn has_connection(context: &XdpContext, headers: &Headers, segment: &Segment) -> bool {
    let found = maps::with_search(SocketSearch::Connection, || {
        with_socket(context, headers, segment, |socket| {
            // SAFETY: the verifier knows that there is a socket.
            unsafe { (&raw const (*socket).state).read_volatile() != LISTENING }
        })
    });
    matches!(found, Some(Some(true)))
}

/// Tells the kernel that cookies are about at the listener that would get this SYN: `false` if there is none, or
/// the kernel does without (`net.ipv4.tcp_syncookies` is 0, or is 1 and the listener's queue is not full).
#[inline(always)]
pub(crate) fn announce_cookies(context: &XdpContext, headers: &Headers, syn: &Segment) -> bool {
    let told = maps::with_search(SocketSearch::Listener, || {
        with_socket(context, headers, syn, |socket| {
            let mut tcp = brief(syn, 0);
            let tcp_bytes = BRIEF_TCP_BYTES;
            let tcp = tcp.as_mut_ptr().cast();
            if headers.source.is_v4() {
                let mut ip = ipv4(headers);
                let ip_bytes = IPV4_BYTES;
                // SAFETY: a referenced socket, and whole headers of the lengths that the helper expects.
                unsafe { bpf_tcp_gen_syncookie(socket.cast(), ip.as_mut_ptr().cast(), ip_bytes, tcp, tcp_bytes) >= 0 }
            } else {
                let mut ip = ipv6(headers);
                let ip_bytes = IPV6_BYTES;
                // SAFETY: as above.
                unsafe { bpf_tcp_gen_syncookie(socket.cast(), ip.as_mut_ptr().cast(), ip_bytes, tcp, tcp_bytes) >= 0 }
            }
        })
    });
    matches!(told, Some(Some(true)))
}

/// Walks to the end of a SYN's options. What was found is better asked for late: each thing that may be there or not is
/// two ways for the verifier.
#[inline(always)]
pub(crate) fn read_options(mut walk: OptionWalk) -> OptionWalk {
    if !walk.is_empty() {
        // SAFETY: the walk outlives the call, and the callback is what the helper expects.
        unsafe { bpf_loop(MOST_STEPS, step as *mut core::ffi::c_void, (&raw mut walk).cast(), 0) };
    }
    walk
}

/// One step of [`read_options`]. Non-zero ends the loop.
unsafe extern "C" fn step(_: u64, walk: *mut OptionWalk) -> i64 {
    // SAFETY: what `read_options` gave to the helper, which runs one step at a time.
    if unsafe { (*walk).step() } { 0 } else { 1 }
}

/// Asks for the socket that a packet would get, and lets go of it when `look` has looked at it.
#[inline(always)]
fn with_socket<T>(
    context: &XdpContext,
    headers: &Headers,
    segment: &Segment,
    look: impl FnOnce(*mut bpf_sock) -> T,
) -> Option<T> {
    let ports_be = ((segment.source_port as u32) << 16 | segment.destination_port as u32).to_be();
    let [a, b, c, d] = headers.source.words_be;
    let [e, f, g, h] = headers.destination.words_be;
    let socket = if headers.source.is_v4() {
        let mut tuple = [pair(d, h), pair(ports_be, 0)];
        let bytes = IPV4_TUPLE_BYTES;
        // SAFETY: a whole tuple of the family that its length says.
        unsafe { bpf_skc_lookup_tcp(context.as_ptr(), tuple.as_mut_ptr().cast(), bytes, THIS_NAMESPACE, 0) }
    } else {
        let mut tuple = [pair(a, b), pair(c, d), pair(e, f), pair(g, h), pair(ports_be, 0)];
        let bytes = IPV6_TUPLE_BYTES;
        // SAFETY: as above.
        unsafe { bpf_skc_lookup_tcp(context.as_ptr(), tuple.as_mut_ptr().cast(), bytes, THIS_NAMESPACE, 0) }
    };
    if socket.is_null() {
        return None;
    }
    let answer = look(socket);
    // SAFETY: the lookup took the reference that is given back here.
    unsafe { bpf_sk_release(socket.cast()) };
    Some(answer)
}

#[inline(always)]
fn ipv4(headers: &Headers) -> [u64; 3] {
    const VERSION_AND_WORDS: u32 = 0x4500_0000_u32.to_be();
    [pair(VERSION_AND_WORDS, 0), pair(0, headers.source.words_be[3]), pair(headers.destination.words_be[3], 0)]
}

#[inline(always)]
fn ipv6(headers: &Headers) -> [u64; 5] {
    const VERSION: u32 = 0x6000_0000_u32.to_be();
    let [a, b, c, d] = headers.source.words_be;
    let [e, f, g, h] = headers.destination.words_be;
    [pair(VERSION, 0), pair(a, b), pair(c, d), pair(e, f), pair(g, h)]
}

#[inline(always)]
fn brief(segment: &Segment, max_segment_bytes: u16) -> [u64; 3] {
    let [a, b, c, d, e, f] = segment.in_brief(max_segment_bytes);
    [pair(a, b), pair(c, d), pair(e, f)]
}

/// Two words that follow one another. The compiler would write neighbouring constants at once, wherever they stand, and
/// the verifier wants what is on the stack aligned.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        (second as u64) << 32 | first as u64
    } else {
        (first as u64) << 32 | second as u64
    }
}
