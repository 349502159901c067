//! Which packets XDP writes down for people to look at.

use lb_datapath::Sampling;

use super::super::section::Section;
use super::super::values;

/// Beyond this reading samples would take a noticeable part of a CPU.
const MOST_PER_SECOND: u32 = 10_000;
const MOST_LET_IN_ONE_IN: u32 = 1_000_000_000;

pub(super) fn compile(config: &Section<'_>) -> Sampling {
    let usual = Sampling::default();
    let Some(node) = config.get("samples") else { return usual };
    let Some(section) = Section::open("`samples`", node, config.problems) else { return usual };
    let per_second = section.value("per_second", values::number(0..=MOST_PER_SECOND));
    let let_in_one_in = section.value("let_in_one_in", values::number(0..=MOST_LET_IN_ONE_IN));
    section.finish();
    Sampling {
        per_second: per_second.unwrap_or(usual.per_second),
        let_in_one_in: let_in_one_in.map_or(usual.let_in_one_in, u64::from),
    }
}
