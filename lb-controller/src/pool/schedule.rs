//! In which order backends of different weights take turns.

/// A schedule is no longer than this, or than sixteen times its members: shares of weights that would need more are exact to
/// one turn of so many.
const LONGEST: u64 = 65_536;

/// Members by their index, each as often as its weight wants and as evenly spread as can be; one after the other where all
/// weights are alike. To take the next turn, or any at random, is to read one place of it, however many members there are.
/// Members of weight 0 have no turn.
pub(super) fn schedule(weights: &[u32]) -> Box<[u16]> {
    let shares = shares(weights);
    let mut turns: Vec<(u64, u16)> = Vec::with_capacity(shares.iter().sum::<u64>() as usize);
    for (member, share) in (0..=u16::MAX).zip(&shares) {
        // Its turns stand in the middle of equal parts of one round, which is 2^40 long.
        turns.extend((0..*share).map(|turn| (((2 * turn + 1) << 40) / (2 * share), member)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, member)| member).collect()
}

/// How many turns each member has.
fn shares(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight));
    if divisor == 0 {
        return vec![0; weights.len()];
    }
    let exact: Vec<u64> = weights.iter().map(|weight| u64::from(weight / divisor)).collect();
    let sum: u64 = exact.iter().sum();
    let longest = LONGEST.max(16 * weights.len() as u64);
    if sum <= longest {
        return exact;
    }
    // Nobody who has a weight is left without a turn.
    exact.iter().map(|share| (share * longest / sum).max(u64::from(*share > 0))).collect()
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_evenly() {
        for (what, weights, expected) in [
            ("nobody", &[][..], &[][..]),
            ("equal ones take turns", &[1, 1, 1], &[0, 1, 2]),
            ("whatever their weight", &[7, 7], &[0, 1]),
            ("the heavier one comes between", &[2, 1], &[0, 1, 0]),
            ("three to one", &[1, 3], &[1, 0, 1, 1]),
            ("without a weight there is no turn", &[0, 5, 0], &[1]),
            ("all without one", &[0, 0], &[]),
        ] {
            assert_eq!(*schedule(weights), *expected, "{what}");
        }
    }

    #[test]
    fn a_long_schedule_is_exact_to_one_turn() {
        let weights: Vec<u32> = (0..10_000).map(|member| 16 * (1 + member % 255)).collect();
        let schedule = schedule(&weights);
        let mut turns = vec![0_u32; weights.len()];
        schedule.iter().for_each(|member| turns[usize::from(*member)] += 1);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (weight, turns) in weights.iter().zip(turns) {
            let exact = f64::from(*weight) * 160_000.0 / sum;
            assert!((f64::from(turns) - exact).abs() <= 1.0, "weight {weight}: {turns} turns instead of {exact}");
        }
        assert!(schedule.len() <= 160_000, "{}", schedule.len());
    }

    #[test]
    fn the_lightest_of_very_unequal_members_has_a_turn() {
        let mut weights = vec![255 * 16; 60_000];
        weights[59_999] = 1;
        assert!(schedule(&weights).contains(&59_999));
    }
}
