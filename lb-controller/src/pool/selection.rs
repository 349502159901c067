//! Which backends of a pool take requests now, laid out so that a request need not look at all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use lb_datapath::maglev;

use super::backend::Backend;
use super::schedule::schedule;
use crate::config::Balance;

/// Made whenever a backend comes or goes, and read by every request.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) members: Vec<Taking>,
    /// Indices into `members`, each as often as its weight wants.
    pub(super) turns: Box<[u16]>,
    /// What each place of a Maglev table leads to, where requests are spread by what they have in common.
    pub(super) places: Box<[u16]>,
    /// Of the members.
    pub(super) mean_weight: f64,
    pub(super) reach: Reach,
}

/// A backend that takes requests.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) backend: Arc<Backend>,
    /// In sixteenths, of which a backend that just came back has few.
    pub(super) weight: u32,
    /// Its configured weight, by which keys are spread: they do not move while a backend warms up.
    pub(super) steady_weight: u32,
}

/// How far a pool had to reach for backends that can take a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Those of this host's zone are enough, or there are no zones.
    #[default]
    Near,
    /// Those of all zones.
    AllZones,
    /// Backups as well as what is left of the others.
    Backups,
    /// Too few are available, so even those are used that seem not to be: checks that fail everywhere may fail for a reason
    /// of their own.
    Panic,
    Nobody,
}

impl Reach {
    pub fn name(self) -> &'static str {
        match self {
            Reach::Near => "near",
            Reach::AllZones => "all_zones",
            Reach::Backups => "backups",
            Reach::Panic => "panic",
            Reach::Nobody => "nobody",
        }
    }
}

/// One backend as far as this choice goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_available: bool,
    /// It is to have new requests at all: it does not drain, and has a weight.
    pub(super) is_at_work: bool,
    /// Which backups it is among; 0: none.
    pub(super) backup: u8,
    pub(super) is_far: bool,
}

/// Of a hundred backends, how few are too few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    pub(super) near_percent: u8,
    pub(super) panic_percent: u8,
}

/// The indices of those that take requests, and how far that reached.
pub(super) fn choose(standings: &[Standing], thresholds: Thresholds) -> (Vec<usize>, Reach) {
    let that = |holds: &dyn Fn(&Standing) -> bool| -> Vec<usize> {
        let at_work = standings.iter().enumerate().filter(|(_, standing)| standing.is_at_work && holds(standing));
        at_work.map(|(index, _)| index).collect()
    };
    let enough = |some: usize, of: usize, percent: u8| some > 0 && some * 100 >= of * usize::from(percent);
    let usual = that(&|standing| standing.backup == 0);
    let available = that(&|standing| standing.is_available && standing.backup == 0);
    if enough(available.len(), usual.len(), thresholds.panic_percent) {
        let near = that(&|standing| standing.backup == 0 && !standing.is_far);
        let available_near = that(&|standing| standing.is_available && standing.backup == 0 && !standing.is_far);
        let is_near = enough(available_near.len(), near.len(), thresholds.near_percent);
        // Where nobody is far, all that are available are near.
        return match is_near || available_near.len() == available.len() {
            true => (available_near, Reach::Near),
            false => (available, Reach::AllZones),
        };
    }
    // Backups that are too few themselves have the next ones beside them, if there are any.
    let backups: BTreeSet<u8> = standings.iter().map(|standing| standing.backup).filter(|backup| *backup > 0).collect();
    let mut last_helping = None;
    for tier in backups {
        let members = that(&|standing| standing.backup == tier);
        let available = members.iter().filter(|index| standings[**index].is_available).count();
        if available > 0 {
            last_helping = Some(tier);
        }
        if enough(available, members.len(), thresholds.panic_percent) {
            break;
        }
    }
    if let Some(last) = last_helping {
        return (that(&|standing| standing.is_available && standing.backup <= last), Reach::Backups);
    }
    let all = that(&|_| true);
    match thresholds.panic_percent > 0 && !all.is_empty() {
        true => (all, Reach::Panic),
        false => (available, Reach::Nobody),
    }
}

impl Selection {
    pub(super) fn of(members: Vec<Taking>, reach: Reach, balance: &Balance) -> Selection {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let mean_weight = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>() / weights.len().max(1) as f64;
        let places = match balance {
            Balance::Hash(_) => places(&members),
            Balance::LeastRequest | Balance::Latency | Balance::RoundRobin => Box::default(),
        };
        Selection { turns: schedule(&weights), places, mean_weight, reach, members }
    }
}

fn places(members: &[Taking]) -> Box<[u16]> {
    let member = |(index, taking): (u16, &Taking)| maglev::Member {
        address: taking.backend.address,
        weight: taking.steady_weight,
        backend: index,
    };
    let members: Vec<maglev::Member> = (0..=u16::MAX).zip(members).map(member).collect();
    maglev::build(&members).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each backend in a word: `n`ear, `f`ar, `b`ackup or a backup`s` backup, upper-case while available; `x` drains.
    fn standings(text: &str) -> Vec<Standing> {
        let one = |word: char| Standing {
            is_available: word.is_ascii_uppercase() || word == 'x',
            is_at_work: word != 'x',
            backup: match word.to_ascii_lowercase() {
                'b' => 1,
                's' => 2,
                _ => 0,
            },
            is_far: word.eq_ignore_ascii_case(&'f'),
        };
        text.chars().map(one).collect()
    }

    #[test]
    fn as_far_is_reached_as_must_be() {
        for (what, backends, panic_percent, expected, reach) in [
            ("all are well", "NNN", 0, "012", Reach::Near),
            ("one is down", "NnN", 0, "02", Reach::Near),
            ("one drains", "NxN", 0, "02", Reach::Near),
            ("near ones come first", "NNFF", 0, "01", Reach::Near),
            ("half of the near ones are enough", "NnFF", 0, "0", Reach::Near),
            ("fewer are not", "NnnFF", 0, "034", Reach::AllZones),
            ("no near one is left", "nnFf", 0, "2", Reach::AllZones),
            ("the zone has none", "FF", 0, "01", Reach::AllZones),
            ("backups wait", "NB", 0, "0", Reach::Near),
            ("backups stand in when nobody else is left", "nnBb", 0, "2", Reach::Backups),
            ("and help where too few are left", "NnnB", 50, "03", Reach::Backups),
            ("a backup's backup waits while the first can", "nBS", 0, "1", Reach::Backups),
            ("and stands in for it", "nbS", 0, "2", Reach::Backups),
            ("or beside it where too few are left", "nBbbS", 50, "14", Reach::Backups),
            ("few are better than none", "nBbb", 50, "1", Reach::Backups),
            ("far ones come before backups", "nFB", 0, "1", Reach::AllZones),
            ("without any there is nobody", "nnb", 0, "", Reach::Nobody),
            ("unless the panic threshold says that the checks are wrong", "nnb", 50, "012", Reach::Panic),
            ("too few", "Nnn", 50, "012", Reach::Panic),
            ("just enough", "Nn", 50, "0", Reach::Near),
            ("who drains does not count, and takes nothing in panic either", "nxx", 50, "0", Reach::Panic),
            ("all drain", "xx", 50, "", Reach::Nobody),
            ("nobody is configured", "", 50, "", Reach::Nobody),
        ] {
            let (chosen, found) = choose(&standings(backends), Thresholds { near_percent: 50, panic_percent });
            let chosen: String = chosen.iter().map(ToString::to_string).collect();
            assert_eq!((chosen.as_str(), found), (expected, reach), "{what}: {backends}");
        }
    }
}
