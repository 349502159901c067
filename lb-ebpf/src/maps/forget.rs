//! Making the verifier forget.
//!
//! It follows each way through a program by itself for as long as they differ in what it knows: such as which limit
//! a packet was over. Those ways multiply. What passes through here it knows nothing of any more, and
//! ways that come together are one from here on.

use aya_ebpf::helpers::bpf_jiffies64;
use lb_common::Reason;
use lb_common::parse::{Headers, Transport};

/// Zero. The verifier cannot know: the highest bit of the kernel's tick counter is set after half a million years.
#[inline(always)]
fn nothing() -> u64 {
    // SAFETY: a helper without arguments.
    0_u64.wrapping_sub(unsafe { bpf_jiffies64() } >> 63)
}

/// What became of a packet so far.
#[inline(always)]
pub(crate) fn forget_outcome(outcome: Result<Reason, Reason>) -> Result<Reason, Reason> {
    const IS_ERROR: u64 = 1 << 8;
    let number = match outcome {
        Ok(reason) => reason as u64,
        Err(reason) => reason as u64 | IS_ERROR,
    };
    let number = number | nothing();
    let reason = match Reason::ALL.get((number & (IS_ERROR - 1)) as usize) {
        Some(reason) => *reason,
        None => Reason::InternalError,
    };
    if number & IS_ERROR == 0 { Ok(reason) } else { Err(reason) }
}

/// Which of two protocols it is, and what the packet means for its connection.
#[inline(always)]
pub(crate) fn forget_kind(headers: &Headers, transport: &Transport) -> (Headers, Transport) {
    let nothing = nothing();
    let forgotten = |flag| (flag as u64 | nothing) & 1 != 0;
    let headers = Headers {
        source: headers.source,
        destination: headers.destination,
        traffic_class: headers.traffic_class,
        link_bytes: headers.link_bytes,
        protocol: (headers.protocol as u64 | nothing) as u8,
        length_bytes: headers.length_bytes,
        transport: Err(Reason::InternalError),
        fragment: headers.fragment,
    };
    let transport = Transport {
        opens_connection: forgotten(transport.opens_connection),
        closes_connection: forgotten(transport.closes_connection),
        ..*transport
    };
    (headers, transport)
}

/// A number.
#[inline(always)]
pub(crate) fn forget_number(number: u64) -> u64 {
    number | nothing()
}

/// What was found to hold or not.
#[inline(always)]
pub(crate) fn forget_flag(flag: bool) -> bool {
    (flag as u64 | nothing()) & 1 != 0
}
