//! Is the source on a deny or an allow list?

use lb_common::Address;
use lb_common::lists::{Listed, may_be_listed};
use lb_common::parse::Headers;

use crate::maps::lists as maps;

/// One number, whose value the verifier does not know: a way for each answer through all that follows would be more than
/// it takes.
#[inline(always)]
pub(crate) fn look_up(headers: &Headers) -> Listed {
    look_up_address(headers.source)
}

/// [`look_up`] for packets without ports.
#[inline(always)]
pub(crate) fn look_up_address(source: Address) -> Listed {
    let is_ipv4 = source.is_v4();
    let words = source.words_be.map(u32::from_be);
    let (high, low) = if is_ipv4 {
        ((words[3] as u64) << 32, 0)
    } else {
        ((words[0] as u64) << 32 | words[1] as u64, (words[2] as u64) << 32 | words[3] as u64)
    };
    // In line what is enough for nearly every source of a short list.
    match maps::List::of_family(!is_ipv4) {
        Some(list) if may_be_listed(&list, high) => {}
        _ => return Listed::Unlisted,
    }
    Listed::from_bits(maps::lb_listed(!is_ipv4 as u64, high, low))
}
