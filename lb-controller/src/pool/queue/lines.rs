//! Who is next: a line for each source, and the sources take turns. Each step costs the logarithm of how many wait.

use std::collections::{BTreeMap, HashMap};

use lb_common::Source;

/// A place in a line; later ones are larger.
pub(super) type Ticket = u64;

#[derive(Debug)]
pub(super) struct Lines<Who> {
    /// Of the sources of which somebody waits, and of no others.
    lines: HashMap<Source, Line<Who>>,
    /// The same sources, the next one first.
    turns: BTreeMap<u64, Source>,
    /// Whose line was the longest when a line last grew. Others may have become longer than what is left of it by now: each
    /// is noticed when it wants to grow again.
    longest: Option<Source>,
    /// Of tickets and turns.
    next: u64,
    /// Who was called, and not heard of since.
    called: usize,
}

#[derive(Debug)]
struct Line<Who> {
    turn: u64,
    /// Never empty.
    places: BTreeMap<Ticket, Who>,
}

impl<Who> Default for Lines<Who> {
    fn default() -> Lines<Who> {
        Lines { lines: HashMap::new(), turns: BTreeMap::new(), longest: None, next: 0, called: 0 }
    }
}

impl<Who> Lines<Who> {
    /// At the end of its source's line; a source that had none waits until all others have had a turn.
    pub(super) fn enter(&mut self, source: Source, who: Who) -> Ticket {
        let (turn, ticket) = (self.next, self.next + 1);
        self.next += 2;
        let turns = &mut self.turns;
        let line = self.lines.entry(source).or_insert_with(|| {
            turns.insert(turn, source);
            Line { turn, places: BTreeMap::new() }
        });
        line.places.insert(ticket, who);
        self.compare_to_longest(source);
        ticket
    }

    /// The first of the source whose turn it is.
    pub(super) fn call(&mut self) -> Option<Who> {
        let (_, source) = self.turns.pop_first()?;
        let line = self.lines.get_mut(&source)?;
        let (_, who) = line.places.pop_first()?;
        if line.places.is_empty() {
            self.lines.remove(&source);
        } else {
            line.turn = self.next;
            self.next += 1;
            self.turns.insert(line.turn, source);
        }
        self.called += 1;
        Some(who)
    }

    /// Who was called tries, or has gone.
    pub(super) fn heard(&mut self) {
        self.called = self.called.saturating_sub(1);
    }

    /// Whether it would be called next, and nobody is on the way before it.
    pub(super) fn is_next(&self, source: Source, ticket: Ticket) -> bool {
        let next = || self.lines.get(self.turns.values().next()?)?.places.keys().next();
        self.called == 0 && self.turns.values().next() == Some(&source) && next() == Some(&ticket)
    }

    /// Whether it was there still.
    pub(super) fn leave(&mut self, source: Source, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(&source) else { return false };
        let was_there = line.places.remove(&ticket).is_some();
        if line.places.is_empty() {
            self.turns.remove(&line.turn);
            self.lines.remove(&source);
        }
        was_there
    }

    /// The last of the longest line goes, if that is still longer then than the one of `source` with one more.
    pub(super) fn make_room_for(&mut self, source: Source) -> Option<Who> {
        self.compare_to_longest(source);
        let longest = self.longest?;
        if self.length(longest) < self.length(source) + 2 {
            return None;
        }
        // It has two at least.
        self.lines.get_mut(&longest)?.places.pop_last().map(|(_, who)| who)
    }

    fn compare_to_longest(&mut self, source: Source) {
        if self.longest.is_none_or(|longest| self.length(longest) < self.length(source)) {
            self.longest = Some(source);
        }
    }

    fn length(&self, source: Source) -> usize {
        self.lines.get(&source).map_or(0, |line| line.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        Source::of([192, 0, 2, name.as_bytes()[0]].into())
    }

    /// Lines in which these have come one after the other, each named by its source and a number.
    fn lines(names: &[&'static str]) -> (Lines<&'static str>, Vec<Ticket>) {
        let mut lines = Lines::default();
        let tickets = names.iter().map(|name| lines.enter(source(name), *name)).collect();
        (lines, tickets)
    }

    fn rest(mut lines: Lines<&'static str>) -> String {
        let order: Vec<_> = std::iter::from_fn(|| lines.call()).collect();
        assert!(lines.lines.is_empty() && lines.turns.is_empty(), "{lines:?}");
        order.join(" ")
    }

    #[test]
    fn sources_take_turns_and_within_one_the_first_is_first() {
        for (came, expected) in [
            ("a1 a2 a3", "a1 a2 a3"),
            ("a1 a2 a3 b1 c1", "a1 b1 c1 a2 a3"),
            ("a1 a2 b1 b2 b3 a3 c1", "a1 b1 c1 a2 b2 a3 b3"),
            ("", ""),
        ] {
            let names: Vec<&str> = came.split_whitespace().collect();
            assert_eq!(rest(lines(&names).0), expected, "{came}");
        }
    }

    #[test]
    fn who_comes_late_waits_for_one_turn_of_each_other_source() {
        let (mut lines, _) = lines(&["a1", "a2", "a3", "a4"]);
        assert_eq!(lines.call(), Some("a1"));
        let ticket = lines.enter(source("b1"), "b1");
        assert!(!lines.is_next(source("b1"), ticket));
        assert_eq!(rest(lines), "a2 b1 a3 a4");
    }

    #[test]
    fn who_leaves_is_not_called_and_takes_an_empty_line_along() {
        let (mut lines, tickets) = lines(&["a1", "b1", "a2", "c1"]);
        assert!(lines.leave(source("b1"), tickets[1]) && lines.leave(source("a1"), tickets[0]));
        assert!(!lines.leave(source("a1"), tickets[0]), "it has gone");
        assert_eq!(lines.call(), Some("a2"));
        assert!(!lines.leave(source("a2"), tickets[2]), "it was called");
        assert_eq!(rest(lines), "c1");
    }

    #[test]
    fn the_longest_line_makes_room_for_shorter_ones_only() {
        let (mut lines, tickets) = lines(&["a1", "b1", "b2", "b3"]);
        assert_eq!(lines.make_room_for(source("b")), None);
        assert_eq!(lines.make_room_for(source("a")), Some("b3"), "two and two");
        lines.enter(source("a"), "a2");
        assert_eq!(lines.make_room_for(source("a")), None);
        assert_eq!(lines.make_room_for(source("c")), Some("b2"));
        lines.enter(source("c"), "c1");
        // What was the longest is so no more; the one that is says so when it comes again.
        assert_eq!(lines.make_room_for(source("d")), None);
        assert_eq!(lines.make_room_for(source("a")), None);
        assert_eq!(lines.make_room_for(source("d")), Some("a2"));
        assert!(lines.leave(source("a"), tickets[0]));
        assert_eq!(rest(lines), "b1 c1");
    }
}
