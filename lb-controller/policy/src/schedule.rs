//! Times of the week in a place: `time.within("Europe/Berlin", "Mon-Fri 08:00-18:00")`.
//!
//! The clock on the wall decides. Where it is put forward, the hour that is left out is in no window; where it is put back,
//! the hour that comes twice is in its window twice.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::level::UnixSeconds;
use crate::suggest::closest_name;

/// Windows of a week, as the clocks of one zone show it.
pub(crate) struct Schedule {
    zone_name: Box<str>,
    text: Box<str>,
    zone: TimeZone,
    windows: Vec<Window>,
}

/// One window on some days of the week. One that ends before it begins goes on into the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    days: DaySet,
    /// Minutes since midnight; the end is not in it.
    from_minute: u16,
    to_minute: u16,
}

/// A bit a day, Monday first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DaySet(u8);

/// What is wrong with a zone or with windows, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleError {
    Zone { message: String, help: String },
    Windows { message: String, help: String },
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const EVERY_DAY: DaySet = DaySet(0x7f);
const MINUTES_A_DAY: u16 = 24 * 60;
const MOST_WINDOWS: usize = 32;

impl Schedule {
    /// `zone_name` is one of the IANA database, whose rules are compiled in; `text` is as in `Mon-Fri 08:00-18:00`, more
    /// windows after commas, every day where none is named.
    pub(crate) fn parse(zone_name: &str, text: &str) -> Result<Schedule, ScheduleError> {
        let zone = zone_named(zone_name)?;
        let windows = windows(text)?;
        Ok(Schedule { zone_name: zone_name.into(), text: text.into(), zone, windows })
    }

    pub(crate) fn contains(&self, now: UnixSeconds) -> bool {
        const SECONDS_A_DAY: i64 = 24 * 3600;
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let Ok(timestamp) = Timestamp::from_second(now) else { return false };
        let local = now + i64::from(self.zone.to_offset(timestamp).seconds());
        // 1970-01-01 was a Thursday.
        let day = (local.div_euclid(SECONDS_A_DAY) + 3).rem_euclid(7);
        let minute = local.rem_euclid(SECONDS_A_DAY) / 60;
        self.windows.iter().any(|window| window.contains(day as u8, minute as u16))
    }
}

impl Window {
    /// `day` counts from Monday, 0; `minute` from midnight.
    fn contains(self, day: u8, minute: u16) -> bool {
        if self.from_minute < self.to_minute {
            return self.days.holds(day) && (self.from_minute..self.to_minute).contains(&minute);
        }
        let yesterday = (day + 6) % 7;
        self.days.holds(day) && minute >= self.from_minute || self.days.holds(yesterday) && minute < self.to_minute
    }
}

impl DaySet {
    fn holds(self, day: u8) -> bool {
        self.0 & (1 << day) != 0
    }

    /// `Mon`, or `Fri-Mon` around the end of the week.
    fn parse(text: &str) -> Option<DaySet> {
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(text)?, day(text)?),
        };
        let length = (last + 7 - first) % 7;
        Some(DaySet((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7))))
    }
}

fn zone_named(name: &str) -> Result<TimeZone, ScheduleError> {
    let database = TimeZoneDatabase::bundled();
    database.get(name).map_err(|_| {
        let known: Vec<String> = database.available().map(|zone| zone.to_string()).collect();
        let help = match closest_name(name, known.iter().map(String::as_str)) {
            Some(close) => format!("did you mean `{close}`?"),
            None => "name a zone of the IANA database, such as `Europe/Berlin` or `UTC`".to_string(),
        };
        ScheduleError::Zone { message: format!("there is no time zone `{name}`"), help }
    })
}

fn windows(text: &str) -> Result<Vec<Window>, ScheduleError> {
    let error = |message: String| {
        Err(ScheduleError::Windows { message, help: "as in `Mon-Fri 08:00-18:00, Sat 09:00-12:00`".into() })
    };
    let mut windows = Vec::new();
    // Days that wait for their hours, as in `Mon, Wed 08:00-10:00`.
    let mut waiting = DaySet::default();
    for part in text.split(',').map(str::trim) {
        let (days, hours) = match part.rsplit_once(' ') {
            Some((days, hours)) => (Some(days), Some(hours)),
            None if part.contains(':') => (None, Some(part)),
            None => (Some(part), None),
        };
        if let Some(days) = days {
            let Some(set) = DaySet::parse(days) else { return error(format!("`{days}` is no day of the week")) };
            waiting.0 |= set.0;
        }
        let Some(hours) = hours else { continue };
        let Some((from_minute, to_minute)) = hours_of(hours) else {
            return error(format!("`{hours}` is no span of hours"));
        };
        if from_minute == to_minute {
            return error(format!("`{hours}` is empty; a whole day is 00:00-24:00"));
        }
        let days = if waiting == DaySet::default() { EVERY_DAY } else { waiting };
        windows.push(Window { days, from_minute, to_minute });
        waiting = DaySet::default();
    }
    if waiting != DaySet::default() {
        return error("the last days have no hours".into());
    }
    if windows.len() > MOST_WINDOWS {
        return error(format!("at most {MOST_WINDOWS} windows"));
    }
    Ok(windows)
}

/// `08:00-18:00` in minutes; the end may be 24:00.
fn hours_of(text: &str) -> Option<(u16, u16)> {
    let minutes = |clock: &str| {
        let (hours, minutes) = clock.split_once(':')?;
        let two_digits = |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(());
        two_digits(hours).and(two_digits(minutes))?;
        let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
        (minutes < 60 && hours * 60 + minutes <= MINUTES_A_DAY).then_some(hours * 60 + minutes)
    };
    let (from, to) = text.split_once('-')?;
    let from = minutes(from)?;
    (from < MINUTES_A_DAY).then_some((from, minutes(to)?))
}

/// As a condition would write it.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time.within({:?}, {:?})", self.zone_name, self.text)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(time: &str) -> UnixSeconds {
        u64::try_from(time.parse::<Timestamp>().unwrap().as_second()).unwrap()
    }

    #[test]
    fn a_window_is_told_by_the_clock_on_the_wall() {
        let office = "Mon-Fri 08:00-18:00";
        #[rustfmt::skip]
        let rows = [
            ("Monday, first minute", "Europe/Berlin", office, "2026-11-30T07:00:00Z", true),
            ("Monday, a second too early", "Europe/Berlin", office, "2026-11-30T06:59:59Z", false),
            ("Friday, last second", "Europe/Berlin", office, "2026-12-04T16:59:59Z", true),
            ("Friday, the end is not in it", "Europe/Berlin", office, "2026-12-04T17:00:00Z", false),
            ("Saturday", "Europe/Berlin", office, "2026-12-05T12:00:00Z", false),
            ("the same instant elsewhere", "America/New_York", office, "2026-11-30T07:00:00Z", false),
            ("in summer an hour earlier by UTC", "Europe/Berlin", office, "2026-07-06T06:00:00Z", true),
            ("in summer the evening ends earlier", "Europe/Berlin", office, "2026-07-06T16:00:00Z", false),
            ("spring, before the clock is put forward", "Europe/Berlin", "Sun 01:30-02:30", "2026-03-29T00:59:59Z", true),
            ("spring, 02:30 never comes", "Europe/Berlin", "Sun 02:00-03:00", "2026-03-29T01:00:00Z", false),
            ("spring, 03:00 follows 01:59", "Europe/Berlin", "Sun 03:00-04:00", "2026-03-29T01:00:00Z", true),
            ("autumn, 02:30 the first time", "Europe/Berlin", "Sun 02:00-03:00", "2026-10-25T00:30:00Z", true),
            ("autumn, 02:30 the second time", "Europe/Berlin", "Sun 02:00-03:00", "2026-10-25T01:30:00Z", true),
            ("autumn, 03:00 after both", "Europe/Berlin", "Sun 02:00-03:00", "2026-10-25T02:00:00Z", false),
            ("the south puts its clocks the other way", "Australia/Sydney", "Sun 03:00-04:00", "2026-10-03T16:00:00Z", true),
            ("a zone of half hours", "Asia/Kolkata", "Mon 00:00-00:30", "2026-11-29T18:30:00Z", true),
            ("years that no table lists", "Europe/Berlin", office, "2060-07-05T06:00:00Z", true),
            ("over midnight, before it", "UTC", "Fri 22:00-06:00", "2026-12-04T23:00:00Z", true),
            ("over midnight, after it", "UTC", "Fri 22:00-06:00", "2026-12-05T05:59:59Z", true),
            ("over midnight, the next evening", "UTC", "Fri 22:00-06:00", "2026-12-05T23:00:00Z", false),
            ("over midnight, the morning before", "UTC", "Fri 22:00-06:00", "2026-12-04T05:00:00Z", false),
            ("over the end of the week", "UTC", "Sun 22:00-06:00", "2026-11-30T01:00:00Z", true),
            ("days around the end of the week", "UTC", "Sat-Mon 00:00-24:00", "2026-11-30T23:59:59Z", true),
            ("days around the end of the week, others", "UTC", "Sat-Mon 00:00-24:00", "2026-12-01T00:00:00Z", false),
            ("no day is every day", "UTC", "08:00-09:00", "2026-12-05T08:30:00Z", true),
            ("days share their hours", "UTC", "Mon, wed 08:00-09:00, Sat 10:00-11:00", "2026-12-02T08:30:00Z", true),
            ("and have none of the others'", "UTC", "Mon, Wed 08:00-09:00, Sat 10:00-11:00", "2026-12-02T10:30:00Z", false),
        ];
        for (name, zone, windows, time, expected) in rows {
            let schedule = Schedule::parse(zone, windows).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(schedule.contains(unix(time)), expected, "{name}");
        }
    }

    #[test]
    fn what_could_be_misread_is_refused_with_its_reason() {
        let rows = [
            ("Europe/Berln", "Mon 08:00-09:00", "there is no time zone `Europe/Berln`"),
            ("", "Mon 08:00-09:00", "there is no time zone ``"),
            ("UTC", "", "`` is no day of the week"),
            ("UTC", "Monday 08:00-09:00", "`Monday` is no day of the week"),
            ("UTC", "Mon 8:00-09:00", "`8:00-09:00` is no span of hours"),
            ("UTC", "Mon 08:00-25:00", "`08:00-25:00` is no span of hours"),
            ("UTC", "Mon 08:60-09:00", "`08:60-09:00` is no span of hours"),
            ("UTC", "Mon 24:00-24:00", "`24:00-24:00` is no span of hours"),
            ("UTC", "08:00-08:00", "`08:00-08:00` is empty; a whole day is 00:00-24:00"),
            ("UTC", "Mon 08:00-09:00, Tue", "the last days have no hours"),
        ];
        for (zone, windows, expected) in rows {
            let message = match Schedule::parse(zone, windows).expect_err(windows) {
                ScheduleError::Zone { message, .. } | ScheduleError::Windows { message, .. } => message,
            };
            assert_eq!(message, expected);
        }
        let help = Schedule::parse("Europe/Berln", "Mon 08:00-09:00").expect_err("no such zone");
        assert!(matches!(help, ScheduleError::Zone { help, .. } if help == "did you mean `Europe/Berlin`?"));
    }
}
