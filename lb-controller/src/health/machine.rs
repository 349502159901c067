//! When a row of good or bad answers becomes a change of health.

/// Rise and fall: as many equal answers in a row as configured turn the state. The very first answer turns it alone:
/// before it the state is a guess.
#[derive(Debug)]
pub(super) struct Machine {
    healthy: bool,
    rise: u32,
    fall: u32,
    /// Answers in a row that contradict `healthy`.
    against: u32,
    /// An answer was seen.
    informed: bool,
}

impl Machine {
    pub(super) fn new(healthy: bool, rise: u32, fall: u32) -> Machine {
        Machine { healthy, rise, fall, against: 0, informed: false }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Takes one answer in; `Some` with the new state when it changes.
    pub(super) fn observe(&mut self, good: bool) -> Option<bool> {
        let first = !std::mem::replace(&mut self.informed, true);
        if good == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if self.healthy { self.fall } else { self.rise };
        if !first && self.against < needed {
            return None;
        }
        self.healthy = good;
        self.against = 0;
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `answers`: `+` good, `-` bad. The result has `U` or `D` where the state turned, `.` elsewhere. Rise 2, fall 3.
    fn turns(starts_healthy: bool, answers: &str) -> String {
        let mut machine = Machine::new(starts_healthy, 2, 3);
        let turn = |answer| match machine.observe(answer == '+') {
            Some(true) => 'U',
            Some(false) => 'D',
            None => '.',
        };
        answers.chars().map(turn).collect()
    }

    #[test]
    fn rows_of_answers_turn_the_state() {
        for (what, starts_healthy, answers, expected) in [
            ("good answers change nothing", true, "++++", "...."),
            ("the first answer alone takes a guess back", true, "-", "D"),
            ("the first answer alone brings one in", false, "+", "U"),
            ("three bad answers in a row take out", true, "+---", "...D"),
            ("two bad answers do not", true, "+--+--", "......"),
            ("two good answers in a row bring back", true, "-++", "D.U"),
            ("a bad answer between starts the count again", true, "-+-++", "D...U"),
            ("out and in again, as often as it happens", true, "+---++---", "...D.U..D"),
        ] {
            assert_eq!(turns(starts_healthy, answers), expected, "{what}");
        }
    }

    #[test]
    fn rise_and_fall_of_zero_behave_as_one() {
        let mut machine = Machine::new(true, 0, 0);
        assert_eq!([true, false, true].map(|good| machine.observe(good)), [None, Some(false), Some(true)]);
    }
}
