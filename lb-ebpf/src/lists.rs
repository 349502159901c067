//! Is the source on a deny or an allow list?

use lb_common::Address;
use lb_common::lists::{Listed, hint};
use lb_common::types::Control;

use crate::maps;

/// One number, whose value the verifier does not know: a way for each answer through all that follows would be more than
/// it takes.
#[inline(always)]
pub(crate) fn look_up(control: &Control, source: Address) -> Listed {
    let is_ipv6 = !source.is_v4();
    let words = source.words_be.map(u32::from_be);
    let (high, low) = if is_ipv6 {
        ((words[0] as u64) << 32 | words[1] as u64, (words[2] as u64) << 32 | words[3] as u64)
    } else {
        ((words[3] as u64) << 32, 0)
    };
    // In line what is enough for nearly every source of a short list.
    if !maps::has_hint(&control.list_hints[is_ipv6 as usize], hint(high)) {
        return Listed::Unlisted;
    }
    Listed::from_bits(maps::lists::lb_listed(is_ipv6 as u64, high, low))
}
