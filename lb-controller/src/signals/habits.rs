//! Where users usually are, and whether they can have travelled to where they are now.
//!
//! Learned from requests of sessions, in memory; what changed is written to the store every minute, so that a restart
//! forgets nothing that matters and no request waits for the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lb_policy::UnixSeconds;
use serde::{Deserialize, Serialize};

use super::geo::{CountryCode, Place, Position};
use crate::store::{Store, StoreError};

/// A country is usual after so many days with a request from there. Whoever stole a password is not at home at once.
const DAYS_UNTIL_USUAL: u16 = 3;
/// A country that the user was not in for this long is unusual again.
const FORGOTTEN_AFTER_DAYS: u64 = 90;
const MOST_COUNTRIES: usize = 16;
/// About 300 bytes each. Beyond, users who were not seen for longest are forgotten.
const MOST_USERS: usize = 50_000;
/// Airliners are slower; the rest is wind, and clocks that differ.
const FASTEST_KM_PER_HOUR: f64 = 1_000.0;
/// Databases are wrong about that much now and then, and mobile networks come out somewhere else.
const ALWAYS_POSSIBLE_KM: f64 = 300.0;
const SECONDS_A_DAY: u64 = 24 * 3600;
/// A user who stays where they are is written no more often.
const SECONDS_BETWEEN_SAVES: u64 = 3600;

#[derive(Default)]
pub(super) struct Habits(Mutex<Known>);

#[derive(Default)]
struct Known {
    habits: HashMap<String, Habit>,
    /// To be removed from the store.
    forgotten: Vec<String>,
}

/// What is known of one user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Habit {
    /// In order of their codes.
    countries: Vec<Seen>,
    last: Option<Whereabouts>,
    #[serde(skip)]
    usual: Option<Arc<[String]>>,
    #[serde(skip)]
    is_unsaved: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    country: String,
    /// Different days with a request from there, up to [`DAYS_UNTIL_USUAL`].
    days: u16,
    /// Since 1970.
    last_day: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Whereabouts {
    latitude_degrees: f64,
    longitude_degrees: f64,
    radius_km: f64,
    at: UnixSeconds,
}

/// What rules may know of one user.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Whereabout {
    /// `None`: nothing is known yet.
    pub(super) usual_countries: Option<Arc<[String]>>,
    /// `None`: where the user is or was is not known.
    pub(super) impossible_travel: Option<bool>,
}

impl Habits {
    /// Reads what the store knows. A record that cannot be read is left out: it is learned anew.
    pub(super) fn open(store: &Store) -> Result<Habits, StoreError> {
        let read = |(user, bytes): (String, Vec<u8>)| {
            let mut habit: Habit = serde_json::from_slice(&bytes).ok()?;
            habit.know_usual();
            Some((user, habit))
        };
        let habits = store.habits()?.into_iter().filter_map(read).collect();
        Ok(Habits(Mutex::new(Known { habits, forgotten: Vec::new() })))
    }

    /// What is known of `user` before this request, which is from `place`; then learns from it. `is_trusted`: the session
    /// has proved more than a password, or all that this user can.
    pub(super) fn observe(&self, user: &str, place: &Place, is_trusted: bool, now: UnixSeconds) -> Whereabout {
        let mut known = self.0.lock().expect("no holder of this lock panics");
        if !known.habits.contains_key(user) {
            known.make_room();
            known.habits.insert(user.to_owned(), Habit::default());
        }
        let Some(habit) = known.habits.get_mut(user) else { return Whereabout::default() };
        let usual_countries = habit.usual.clone();
        let impossible_travel = place.position.and_then(|position| habit.travel(position, is_trusted, now));
        if let Some(country) = place.country {
            habit.learn(country, is_trusted, now / SECONDS_A_DAY);
        }
        Whereabout { usual_countries, impossible_travel }
    }

    /// Writes what changed. Blocks on the disk.
    pub(super) fn save(&self, store: &Store) -> Result<(), StoreError> {
        let (changed, forgotten) = {
            let mut known = self.0.lock().expect("no holder of this lock panics");
            let unsaved = known.habits.iter_mut().filter(|(_, habit)| habit.is_unsaved);
            let changed: Vec<(String, Vec<u8>)> = unsaved
                .filter_map(|(user, habit)| {
                    habit.is_unsaved = false;
                    Some((user.clone(), serde_json::to_vec(habit).ok()?))
                })
                .collect();
            (changed, std::mem::take(&mut known.forgotten))
        };
        if changed.is_empty() && forgotten.is_empty() { Ok(()) } else { store.keep_habits(&changed, &forgotten) }
    }
}

impl Habit {
    /// Whether nobody travels from where the user was last to `here` in the time between.
    ///
    /// A place that nobody can have reached is remembered only once a trusted session is there: a thief's request must
    /// not make the owner the stranger.
    fn travel(&mut self, here: Position, is_trusted: bool, now: UnixSeconds) -> Option<bool> {
        let impossible = self.last.map(|last| last.is_too_far_from(&here, now));
        if impossible != Some(true) || is_trusted {
            let Position { latitude_degrees, longitude_degrees, radius_km } = here;
            self.is_unsaved |= self.last.is_none_or(|last| now >= last.at + SECONDS_BETWEEN_SAVES);
            let at = self.last.map_or(now, |last| last.at.max(now));
            self.last = Some(Whereabouts { latitude_degrees, longitude_degrees, radius_km, at });
        }
        impossible
    }

    fn learn(&mut self, country: CountryCode, is_trusted: bool, day: u64) {
        let enough = if is_trusted || self.countries.is_empty() { DAYS_UNTIL_USUAL } else { 1 };
        let place = self.countries.binary_search_by(|seen| seen.country.as_str().cmp(country.as_str()));
        let changed = match place {
            Ok(place) => {
                let seen = &mut self.countries[place];
                let is_new_day = day > seen.last_day;
                let days = (seen.days + u16::from(is_new_day)).max(enough).min(DAYS_UNTIL_USUAL);
                let changed = is_new_day || days != seen.days;
                (seen.days, seen.last_day) = (days, seen.last_day.max(day));
                changed
            }
            Err(place) => {
                let seen = Seen { country: country.as_str().to_owned(), days: enough, last_day: day };
                self.countries.insert(place, seen);
                true
            }
        };
        if changed {
            self.countries.retain(|seen| day < seen.last_day + FORGOTTEN_AFTER_DAYS);
            while self.countries.len() > MOST_COUNTRIES {
                let oldest = (0..self.countries.len()).min_by_key(|place| self.countries[*place].last_day);
                self.countries.remove(oldest.unwrap_or(0));
            }
            self.is_unsaved = true;
            self.know_usual();
        }
    }

    fn know_usual(&mut self) {
        let usual = self.countries.iter().filter(|seen| seen.days >= DAYS_UNTIL_USUAL);
        let usual: Arc<[String]> = usual.map(|seen| seen.country.clone()).collect();
        self.usual = (!usual.is_empty()).then_some(usual);
    }
}

impl Whereabouts {
    fn is_too_far_from(&self, here: &Position, now: UnixSeconds) -> bool {
        let last = Position {
            latitude_degrees: self.latitude_degrees,
            longitude_degrees: self.longitude_degrees,
            radius_km: self.radius_km,
        };
        let hours = now.saturating_sub(self.at) as f64 / 3600.0;
        last.distance_km(here) > ALWAYS_POSSIBLE_KM + hours * FASTEST_KM_PER_HOUR
    }
}

impl Known {
    /// Forgets a sixteenth of the users when there are too many, those who were not seen for longest.
    fn make_room(&mut self) {
        if self.habits.len() < MOST_USERS {
            return;
        }
        let last_day = |habit: &Habit| habit.countries.iter().map(|seen| seen.last_day).max().unwrap_or(0);
        let mut days: Vec<u64> = self.habits.values().map(last_day).collect();
        let (_, cut, _) = days.select_nth_unstable(MOST_USERS / 16);
        let cut = *cut;
        let oldest = self.habits.iter().filter(|(_, habit)| last_day(habit) <= cut).map(|(user, _)| user.clone());
        let oldest: Vec<String> = oldest.take(MOST_USERS / 16).collect();
        for user in &oldest {
            self.habits.remove(user);
        }
        self.forgotten.extend(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::geo::tests::{BERLIN, POTSDAM, SYDNEY};
    use super::*;

    const DAY: u64 = SECONDS_A_DAY;

    fn place(country: &str, position: Option<Position>) -> Place {
        Place { country: CountryCode::parse(country), asn: None, position }
    }

    #[test]
    fn a_country_is_usual_after_three_days_or_a_proof() {
        // day, country, trusted, what was usual before
        let rows: &[(u64, &str, bool, Option<&str>)] = &[
            (100, "DE", false, None),
            (100, "DE", false, Some("DE")),
            (100, "FR", false, Some("DE")),
            (101, "FR", false, Some("DE")),
            (101, "FR", false, Some("DE")),
            (102, "FR", false, Some("DE")),
            (102, "DE", false, Some("DE FR")),
            (103, "US", true, Some("DE FR")),
            (103, "US", false, Some("DE FR US")),
            (192, "US", false, Some("DE FR US")),
            (193, "US", false, Some("US")),
            (400, "DE", false, Some("US")),
            (400, "DE", false, None),
        ];
        let habits = Habits::default();
        for (number, (day, country, is_trusted, expected)) in rows.iter().enumerate() {
            let seen = habits.observe("alice", &place(country, None), *is_trusted, day * DAY);
            assert_eq!(seen.usual_countries.map(|usual| usual.join(" ")).as_deref(), *expected, "row {number}");
            assert_eq!(seen.impossible_travel, None);
        }
        assert_eq!(habits.observe("bob", &place("DE", None), false, 0), Whereabout::default());
    }

    #[test]
    fn who_is_where_nobody_gets_so_fast_is_told_until_they_prove_who_they_are() {
        let (de, au) = (Some(BERLIN), Some(SYDNEY));
        let rows = [
            ("the first place is as good as any", 0, de, false, None),
            ("the next town", 60, Some(POTSDAM), false, Some(false)),
            ("Sydney in half an hour", 1_860, au, false, Some(true)),
            ("and again", 1_870, au, false, Some(true)),
            ("the owner is where they were", 1_880, de, false, Some(false)),
            ("Sydney with a code", 1_900, au, true, Some(true)),
            ("the code was believed", 1_910, au, false, Some(false)),
            ("a place that is not known", 1_920, None, false, None),
            ("back a day later", 1_910 + DAY, de, false, Some(false)),
        ];
        let habits = Habits::default();
        for (name, now, position, is_trusted, expected) in rows {
            let seen = habits.observe("alice", &place("DE", position), is_trusted, 1_000_000 + now);
            assert_eq!(seen.impossible_travel, expected, "{name}");
        }
    }

    #[test]
    fn what_was_learned_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.redb")).unwrap();
        let habits = Habits::open(&store).unwrap();
        habits.observe("alice", &place("DE", Some(BERLIN)), true, 10 * DAY);
        habits.save(&store).unwrap();
        let habits = Habits::open(&store).unwrap();
        let seen = habits.observe("alice", &place("AU", Some(SYDNEY)), false, 10 * DAY + 60);
        assert_eq!(seen.usual_countries.as_deref(), Some(&["DE".to_owned()][..]));
        assert_eq!(seen.impossible_travel, Some(true));
    }

    #[test]
    fn users_are_forgotten_from_the_longest_unseen_on() {
        let habits = Habits::default();
        for user in 0..=MOST_USERS as u64 {
            habits.observe(&user.to_string(), &place("DE", None), true, user * DAY);
        }
        let kept = &habits.0.lock().unwrap().habits;
        assert_eq!(kept.len(), MOST_USERS - MOST_USERS / 16 + 1);
        assert!(!kept.contains_key("0") && kept.contains_key(&MOST_USERS.to_string()));
    }
}
