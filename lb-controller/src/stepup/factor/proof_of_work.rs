//! Proof of work: a puzzle that costs a visitor's machine a second and a flood of robots all of theirs. It says nothing
//! about who is there, so it reaches no level. The puzzle carries everything that is needed to check it, under our key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_common::Source;
use lb_policy::{Method, Strength, ThreatLevel, UnixSeconds};
use zeroize::Zeroizing;

use super::super::random_id::random_bytes;
use super::services::Services;
use super::{Attempt, Factor, FactorVerified, Failure, Input, Shape, Tools, Verify, captcha};
use crate::config::WorkConfig;
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::ProofOfWork,
    input: Input {
        name: "work",
        label: say::work_label,
        hint: say::work_hint,
        shape: Shape::Work,
        refused: say::work_refused,
    },
    provable: |_| Some(Strength::Ordinary),
    verify: Verify::Service(|attempt| Box::pin(verify(attempt))),
};

async fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let (aim, now) = (attempt.aim()?, attempt.now);
    verify_work(&attempt.tools, &attempt.services, aim.scope(), &aim.host, &attempt.answer, now).await?;
    Ok(FactorVerified::new(attempt, Method::ProofOfWork, Strength::Ordinary))
}

/// Verifies an answer, whoever gives it: the solution of a puzzle, or a token of the captcha provider for `host`.
pub(in crate::stepup) async fn verify_work(
    tools: &Tools,
    services: &Services,
    scope: Scope<'_>,
    host: &str,
    answer: &str,
    now: UnixSeconds,
) -> Result<(), Failure> {
    let is_solution = answer.starts_with(VERSION_PREFIX);
    match &services.captcha {
        Some(provider) if !is_solution => {
            let asked = captcha::verify(provider, answer, host, scope.client).await;
            asked.map_err(|refusal| match refusal {
                captcha::Refusal::Unavailable(error) => Failure::Unavailable(error.to_string()),
                refused => Failure::Captcha(refused),
            })
        }
        _ => Ok(tools.work.check(scope, answer, now)?),
    }
}

/// Leading zero bits that a hash must have: each one more doubles the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stepup) struct Difficulty {
    /// Of everybody.
    pub(in crate::stepup) base: u8,
    /// Of those who ask again and again.
    pub(in crate::stepup) most: u8,
}

impl Difficulty {
    /// The higher the threat, the harder for everybody: of 18 to 22 bits 18, 19, 20, and 22.
    pub(in crate::stepup) fn of(config: WorkConfig, threat: ThreatLevel) -> Difficulty {
        let quarters = match threat {
            ThreatLevel::Normal => 0,
            ThreatLevel::Elevated => 1,
            ThreatLevel::High => 2,
            ThreatLevel::Critical => 4,
        };
        let span = config.most_bits.saturating_sub(config.least_bits);
        Difficulty { base: config.least_bits + span * quarters / 4, most: config.most_bits }
    }

    /// Eight puzzles are free, for those who share an address; then each doubling costs a bit more.
    fn after(self, asked: u32) -> u8 {
        let doublings = (asked / FREE_PUZZLES).checked_ilog2().map_or(0, |log| log + 1);
        self.base.saturating_add(u8::try_from(doublings).unwrap_or(u8::MAX)).min(self.most)
    }
}

/// How long a puzzle may be worked at.
const LIFETIME_SECONDS: u64 = 300;
const FREE_PUZZLES: u32 = 8;
/// 32 bytes each.
const MOST_SOURCES: usize = 32 * 1024;
/// Each took a quarter of a million hashes, so this many within five minutes are no visitor's. 24 bytes each.
const MOST_USED: usize = 64 * 1024;
const VERSION: &str = "1";
const VERSION_PREFIX: &str = "1.";
/// Version, five parts, and a count.
const LONGEST_ANSWER_BYTES: usize = 256;
const NONCE_BYTES: usize = 16;

/// Makes and checks puzzles.
pub(crate) struct ProofOfWork {
    key: hmac::Key,
    used: Mutex<HashMap<[u8; NONCE_BYTES], UnixSeconds>>,
    /// Puzzles that each source asked for, and when it began to.
    asked: Mutex<HashMap<Source, (u32, UnixSeconds)>>,
}

/// What a puzzle is good for: one source, and what the same rules are about; and how hard it must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Its source, which is an IPv4 address or an IPv6 /64, is what counts.
    pub(crate) client: IpAddr,
    /// Their ids, after commas.
    pub(crate) rules: &'a str,
    pub(in crate::stepup) difficulty: Difficulty,
}

/// Why a solution is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed")]
    Malformed,
    /// Not our puzzle, or made for another source or rule.
    #[error("foreign")]
    Foreign,
    #[error("expired")]
    Expired,
    #[error("unsolved")]
    Unsolved,
    /// Easier than what is asked for by now: puzzles cannot be gathered before an attack.
    #[error("too-easy")]
    TooEasy,
    #[error("replayed")]
    Replayed,
    /// Nothing more can be remembered, so nothing more is accepted.
    #[error("full")]
    Full,
}

impl ProofOfWork {
    /// A key of this process alone: puzzles live five minutes.
    pub(crate) fn new() -> ProofOfWork {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random_bytes());
        ProofOfWork {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*secret),
            used: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// A puzzle, and its bits: find a count such that SHA-256 of `puzzle:count` begins with so many zero bits. The more
    /// puzzles a source asks for, the harder they are.
    pub(crate) fn puzzle(&self, scope: Scope<'_>, now: UnixSeconds) -> (String, u8) {
        let bits = scope.difficulty.after(self.asked_lately(Source::of(scope.client), now));
        (self.puzzle_of(scope, bits, now), bits)
    }

    fn puzzle_of(&self, scope: Scope<'_>, bits: u8, now: UnixSeconds) -> String {
        let nonce = URL_SAFE_NO_PAD.encode(random_bytes::<NONCE_BYTES>());
        let head = format!("{VERSION}.{bits}.{}.{nonce}", now + LIFETIME_SECONDS);
        format!("{head}.{}", URL_SAFE_NO_PAD.encode(self.mac(&head, scope)))
    }

    /// Checks `puzzle:count`, once.
    pub(crate) fn check(&self, scope: Scope<'_>, answer: &str, now: UnixSeconds) -> Result<(), Refusal> {
        if answer.len() > LONGEST_ANSWER_BYTES {
            return Err(Refusal::Malformed);
        }
        let solution = Solution::parse(answer).ok_or(Refusal::Malformed)?;
        if hmac::verify(&self.key, &signed(solution.head, scope), &solution.mac).is_err() {
            return Err(Refusal::Foreign);
        }
        if solution.expires_at <= now {
            return Err(Refusal::Expired);
        }
        if solution.bits < scope.difficulty.base {
            return Err(Refusal::TooEasy);
        }
        if leading_zeros(digest(&SHA256, answer.as_bytes()).as_ref()) < u32::from(solution.bits) {
            return Err(Refusal::Unsolved);
        }
        self.use_up(solution.nonce, solution.expires_at, now)
    }

    /// How many puzzles the source has had before this one, within a puzzle's lifetime.
    fn asked_lately(&self, source: Source, now: UnixSeconds) -> u32 {
        let mut asked = self.asked.lock().expect("no holder of this lock panics");
        let is_over = |since: UnixSeconds| since + LIFETIME_SECONDS <= now;
        if asked.len() >= MOST_SOURCES {
            asked.retain(|_, (_, since)| !is_over(*since));
        }
        if asked.len() >= MOST_SOURCES && !asked.contains_key(&source) {
            // So many sources at once are a flood.
            return u32::MAX;
        }
        let (count, since) = asked.entry(source).or_insert((0, now));
        if is_over(*since) {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        *count - 1
    }

    fn use_up(&self, nonce: [u8; NONCE_BYTES], expires_at: UnixSeconds, now: UnixSeconds) -> Result<(), Refusal> {
        let mut used = self.used.lock().expect("no holder of this lock panics");
        if used.len() >= MOST_USED {
            used.retain(|_, expires_at| *expires_at > now);
        }
        if used.len() >= MOST_USED {
            return Err(Refusal::Full);
        }
        match used.insert(nonce, expires_at) {
            None => Ok(()),
            Some(_) => Err(Refusal::Replayed),
        }
    }

    fn mac(&self, head: &str, scope: Scope<'_>) -> hmac::Tag {
        hmac::sign(&self.key, &signed(head, scope))
    }
}

struct Solution<'a> {
    head: &'a str,
    bits: u8,
    expires_at: UnixSeconds,
    nonce: [u8; NONCE_BYTES],
    mac: Vec<u8>,
}

impl Solution<'_> {
    fn parse(answer: &str) -> Option<Solution<'_>> {
        let (puzzle, count) = answer.split_once(':')?;
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (head, mac) = puzzle.rsplit_once('.')?;
        let mut parts = head.split('.');
        let (version, bits, expires_at, nonce) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        Some(Solution {
            head,
            bits: bits.parse().ok()?,
            expires_at: expires_at.parse().ok()?,
            nonce: URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?,
            mac: URL_SAFE_NO_PAD.decode(mac).ok()?,
        })
    }
}

fn signed(head: &str, scope: Scope<'_>) -> Vec<u8> {
    // Neither a head nor a source holds a NUL.
    [head, &Source::of(scope.client).to_string(), scope.rules].join("\0").into_bytes()
}

fn leading_zeros(hash: &[u8]) -> u32 {
    let whole = hash.iter().take_while(|byte| **byte == 0).count();
    8 * whole as u32 + hash.get(whole).map_or(0, |byte| byte.leading_zeros())
}

/// Works at a puzzle as the page's script does.
#[cfg(test)]
pub(crate) fn solve(puzzle: &str, bits: u8) -> String {
    (0u64..)
        .map(|count| format!("{puzzle}:{count}"))
        .find(|answer| leading_zeros(digest(&SHA256, answer.as_bytes()).as_ref()) >= u32::from(bits))
        .expect("some count solves it")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Solved in a moment; what is tested is not how long it takes.
    const EASY: u8 = 8;

    const ORDINARY: Difficulty = Difficulty { base: 18, most: 22 };

    fn scope() -> Scope<'static> {
        let difficulty = Difficulty { base: EASY, most: EASY };
        Scope { client: [192, 0, 2, 7].into(), rules: "login", difficulty }
    }

    #[test]
    fn a_solution_is_good_once_for_its_source_and_rule_in_its_time() {
        let work = ProofOfWork::new();
        let answer = solve(&work.puzzle_of(scope(), EASY, 1000), EASY);
        let other_source = Scope { client: [192, 0, 2, 8].into(), ..scope() };
        let threatened = Scope { difficulty: Difficulty { base: EASY + 1, most: 22 }, ..scope() };
        let rows = [
            ("another source", other_source, 1000, Err(Refusal::Foreign)),
            ("another rule", Scope { rules: "admin", ..scope() }, 1000, Err(Refusal::Foreign)),
            ("easier than is asked by now", threatened, 1000, Err(Refusal::TooEasy)),
            ("too late", scope(), 1300, Err(Refusal::Expired)),
            ("in order", scope(), 1299, Ok(())),
            ("a second time", scope(), 1299, Err(Refusal::Replayed)),
        ];
        for (name, scope, now, outcome) in rows {
            assert_eq!(work.check(scope, &answer, now), outcome, "{name}");
        }
        assert_eq!(ProofOfWork::new().check(scope(), &answer, 1000), Err(Refusal::Foreign), "after a restart");
    }

    #[test]
    fn puzzles_cannot_be_made_easier_or_made_at_home() {
        let work = ProofOfWork::new();
        let puzzle = work.puzzle_of(scope(), ORDINARY.most, 1000);
        let easier = puzzle.replacen(".22.", ".0.", 1);
        let later = puzzle.replacen(".1300.", ".9300.", 1);
        let rows = [
            ("an easier one", format!("{easier}:1"), Refusal::Foreign),
            ("a longer one", format!("{later}:1"), Refusal::Foreign),
            ("unsolved", format!("{puzzle}:x1"), Refusal::Malformed),
            ("no count", format!("{puzzle}:"), Refusal::Malformed),
            ("no puzzle", ":1".to_owned(), Refusal::Malformed),
            ("nothing", String::new(), Refusal::Malformed),
            ("a long one", "1".repeat(300), Refusal::Malformed),
        ];
        for (name, answer, refusal) in rows {
            assert_eq!(work.check(scope(), &answer, 1000), Err(refusal), "{name}");
        }
        let unsolved = (0..)
            .map(|count| format!("{puzzle}:{count}"))
            .find(|answer| leading_zeros(digest(&SHA256, answer.as_bytes()).as_ref()) < u32::from(ORDINARY.base));
        assert_eq!(work.check(scope(), &unsolved.unwrap(), 1000), Err(Refusal::Unsolved));
    }

    #[test]
    fn the_more_puzzles_a_source_asks_for_the_harder_they_are_within_bounds() {
        let bits: Vec<_> = [0, 7, 8, 16, 32, 64, u32::MAX].into_iter().map(|asked| ORDINARY.after(asked)).collect();
        assert_eq!(bits, [18, 18, 19, 20, 21, 22, 22]);
        let work = ProofOfWork::new();
        let scope = || Scope { difficulty: ORDINARY, ..scope() };
        let last = |count: usize, now| (0..count).map(|_| work.puzzle(scope(), now).1).last();
        assert_eq!(last(9, 1000), Some(19));
        let other = Scope { client: [192, 0, 2, 8].into(), ..scope() };
        assert_eq!(work.puzzle(other, 1000).1, 18, "another source");
        assert_eq!(last(1, 1300), Some(18), "after a pause");
    }

    #[test]
    fn the_higher_the_threat_the_harder_for_everybody_within_what_is_configured() {
        let levels = [ThreatLevel::Normal, ThreatLevel::Elevated, ThreatLevel::High, ThreatLevel::Critical];
        let rows = [((18, 22), [18, 19, 20, 22]), ((12, 12), [12; 4]), ((8, 26), [8, 12, 17, 26])];
        for ((least_bits, most_bits), expected) in rows {
            let config = WorkConfig { least_bits, most_bits };
            assert_eq!(levels.map(|threat| Difficulty::of(config, threat).base), expected);
        }
    }

    #[test]
    fn of_many_racing_uses_of_one_solution_exactly_one_wins() {
        let work = ProofOfWork::new();
        let answer = solve(&work.puzzle_of(scope(), EASY, 1000), EASY);
        let wins = std::thread::scope(|threads| {
            let check = || work.check(scope(), &answer, 1000).is_ok();
            let racers: Vec<_> = (0..16).map(|_| threads.spawn(check)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
    }

    #[test]
    fn when_nothing_more_can_be_remembered_nothing_more_is_accepted_until_time_has_passed() {
        let work = ProofOfWork::new();
        for count in 0..MOST_USED as u128 {
            work.use_up(count.to_be_bytes(), 1300, 1000).unwrap();
        }
        assert_eq!(work.use_up([0xff; 16], 1300, 1000), Err(Refusal::Full));
        assert_eq!(work.use_up([0xff; 16], 1700, 1301), Ok(()));
    }

    proptest! {
        #[test]
        fn no_text_makes_checking_panic_or_pass(answer in "\\PC{0,80}") {
            prop_assert!(ProofOfWork::new().check(scope(), &answer, 0).is_err());
            let forged = format!("1.0.9.{answer}:1");
            prop_assert!(ProofOfWork::new().check(scope(), &forged, 0).is_err());
        }
    }
}
