//! How threatened the service is, as its operators or what it observes says.

use core::fmt;

/// In order: `threat >= "elevated"` holds for all above, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreatLevel {
    #[default]
    Normal,
    Elevated,
    High,
    Critical,
}

const NAMES: [(ThreatLevel, &str); 4] = [
    (ThreatLevel::Normal, "normal"),
    (ThreatLevel::Elevated, "elevated"),
    (ThreatLevel::High, "high"),
    (ThreatLevel::Critical, "critical"),
];

impl ThreatLevel {
    /// The level that rules and the command line call `name`.
    pub fn from_name(name: &str) -> Option<ThreatLevel> {
        NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// All names, the lowest level first.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        NAMES.iter().map(|row| row.1)
    }

    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }
}

impl fmt::Display for ThreatLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_stands_at_its_own_row_and_above_the_one_before() {
        for (level, name) in NAMES {
            assert_eq!((level.name(), ThreatLevel::from_name(name)), (name, Some(level)));
        }
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
