//! Counting passed, failed and skipped tests from what the test runners print.

use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Count {
    pub(super) fn add(&mut self, other: &Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Adds what a summary line of cargo test or of nextest says. A filter leaves tests out on purpose: those count
    /// as nothing, while ignored ones were meant to run and did not.
    pub(super) fn read(&mut self, line: &str) {
        let plain = line.trim_start();
        // Indented, it is nextest repeating what a failed test printed, and its summary counts that test already.
        let of_cargo = line.starts_with("test result: ");
        let of_nextest = plain.starts_with("Summary [");
        if !of_cargo && !of_nextest {
            // Levels inside a test binary announce by themselves what they cannot do.
            self.skipped += u64::from(plain.starts_with("SKIPPED: "));
            return;
        }
        let words: Vec<_> = plain.split_whitespace().map(|word| word.trim_end_matches([',', ';'])).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" | "timed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runners_summary_is_counted_and_nothing_else_is() {
        for (line, counted) in [
            (
                "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 5 filtered out; finished in 0.2s",
                (12, 0, 3),
            ),
            ("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", (1, 2, 0)),
            ("     Summary [   0.015s] 7 tests run: 5 passed, 2 failed, 9 skipped", (5, 2, 0)),
            ("     Summary [  60.015s] 2 tests run: 1 passed, 1 timed out, 0 skipped", (1, 1, 0)),
            ("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out", (0, 0, 0)),
            ("SKIPPED: level namespaces: needs root", (0, 0, 1)),
            ("test names::say_that_3_passed ... ok", (0, 0, 0)),
            ("running 3 tests", (0, 0, 0)),
        ] {
            let mut count = Count::default();
            count.read(line);
            assert_eq!((count.passed, count.failed, count.skipped), counted, "{line}");
        }
    }
}
