//! The Internet checksum, changed rather than computed anew (RFC 1071, RFC 1624).

/// The checksum of data in which one 16-bit word changed from `old` to `new`. All three as they are in the packet, in
/// whatever order: the sum does not mind, as long as it is the same for all.
#[inline(always)]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u32 as u64 + !old as u64 + new as u64)
}

/// The sum of words, not folded: whatever their order of bytes, as long as it is one and the same.
#[inline(always)]
pub const fn sum<const WORDS: usize>(words: &[u32; WORDS]) -> u64 {
    let mut sum = 0;
    let mut index = 0;
    while index < WORDS {
        sum += words[index] as u64;
        index += 1;
    }
    sum
}

/// The sum of 16-bit words, brought back to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum >> 16) as u16 + (sum & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(words: &[u16]) -> u16 {
        !fold(words.iter().map(|word| u64::from(*word)).sum())
    }

    proptest! {
        #[test]
        fn a_changed_checksum_is_the_one_computed_anew(mut words: [u16; 20], at in 0_usize..20, new: u16) {
            let before = sum(&words);
            let old = core::mem::replace(&mut words[at], new);
            // 0 and 0xffff are the same number; words that are not all zero sum to neither of the two by accident only.
            let (changed, anew) = (replace(before, old, new), sum(&words));
            prop_assert!(changed == anew || (words == [0; 20] && changed == 0), "{changed:04x} instead of {anew:04x}");
        }

        #[test]
        fn folding_keeps_the_number_modulo_ffff(sum: u64) {
            prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
            prop_assert_eq!(fold(sum) == 0, sum == 0);
        }
    }
}
