//! More to do than there is time for. A worker notices by how long its own tasks wait for their turn, and then answers some
//! requests with 503 before anything is done for them: strangers' first, the gateway's own pages later, and those of people
//! who are logged in last. Decision 58 says why by this.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::metrics::{Metrics, WorkerMetrics};
use crate::serve::respond::Refusal;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Between two changes of what is shed: what the last one did must be seen first.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

/// Looks that must all have been late: a queue stands, while a single stall passes.
const LOOKS: usize = 3;

/// What one share has to lose: this is all of it.
const WHOLE: u32 = 256;

/// At most this of the requests for pages of our own, and of people who are logged in: the other half is theirs, whoever comes.
const MOST: u32 = WHOLE / 2;

/// The answer waits for so long. Whoever asks anew as soon as there is an answer would otherwise make as much work by being
/// left out as by being served.
const ANSWER_AFTER: Duration = Duration::from_millis(500);

/// Shedding begins quickly and ends slowly, so that it does not swing.
const RISE: u32 = 48;
const FALL: u32 = 8;

/// Whose request it is, in the order in which they are shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Strangers,
    /// The gateway's own pages: how a stranger becomes somebody.
    OwnPages,
    /// Tokens that are to be verified, which costs more than to forward a request: how a program becomes somebody.
    NewTokens,
    Sessions,
}

impl Share {
    pub(super) const ALL: [Share; 4] = [Share::Strangers, Share::OwnPages, Share::NewTokens, Share::Sessions];

    /// Of a request for a route.
    pub(super) fn of(has_session: bool) -> Share {
        if has_session { Share::Sessions } else { Share::Strangers }
    }

    /// Of a request for a page of the gateway's own.
    pub(super) fn of_own_page(has_session: bool) -> Share {
        if has_session { Share::Sessions } else { Share::OwnPages }
    }

    fn name(self) -> &'static str {
        match self {
            Share::Strangers => "strangers",
            Share::OwnPages => "own_pages",
            Share::NewTokens => "new_tokens",
            Share::Sessions => "sessions",
        }
    }
}

thread_local! {
    /// Of this worker; 0: nothing is shed.
    static PRESSURE: Cell<u32> = const { Cell::new(0) };
}

/// Whether a request goes on.
///
/// Errors: the worker has more to do than it can, and this request is one of those that are left out.
pub(super) async fn admit(share: Share, metrics: &Metrics) -> Result<(), Refusal> {
    admit_where(|| true, share, metrics).await
}

/// As [`admit`], for a request that is of `share` where `is_of_it`; that is asked at overload only.
pub(super) async fn admit_where(
    is_of_it: impl FnOnce() -> bool,
    share: Share,
    metrics: &Metrics,
) -> Result<(), Refusal> {
    let pressure = PRESSURE.get();
    if pressure == 0 || fastrand::u32(..WHOLE) >= shed_of(share, pressure) || !is_of_it() {
        return Ok(());
    }
    metrics.shed(share.name());
    Box::pin(sleep(ANSWER_AFTER)).await;
    Err(Refusal::Shed)
}

/// Of [`WHOLE`] requests of a share.
fn shed_of(share: Share, pressure: u32) -> u32 {
    match share {
        Share::Strangers => pressure.min(WHOLE),
        Share::OwnPages | Share::NewTokens => pressure.saturating_sub(WHOLE).min(MOST),
        Share::Sessions => pressure.saturating_sub(WHOLE + MOST).min(MOST),
    }
}

/// Of one worker.
#[derive(Debug, Default)]
struct Watch {
    /// How late the latest looks were.
    late: [Duration; LOOKS],
    looks: usize,
    pressure: u32,
    changed: Option<Instant>,
}

impl Watch {
    /// A look was so late. `most`: a standing queue's delay that is still well; zero: any.
    fn look(&mut self, now: Instant, late: Duration, most: Duration) {
        self.late[self.looks % LOOKS] = late;
        self.looks += 1;
        if self.changed.is_some_and(|changed| now < changed + CHANGE_EVERY) {
            return;
        }
        self.changed = Some(now);
        let is_over = !most.is_zero() && self.standing() > most;
        self.pressure =
            if is_over { (self.pressure + RISE).min(WHOLE + 2 * MOST) } else { self.pressure.saturating_sub(FALL) };
    }

    /// The delay that every task had to wait for: the shortest of late.
    fn standing(&self) -> Duration {
        self.late.into_iter().min().unwrap_or_default()
    }
}

/// Watches this worker for ever. `most` is what the configuration in force says.
pub(super) async fn watch(metrics: WorkerMetrics, most: impl Fn() -> Duration) {
    let mut watch = Watch::default();
    loop {
        let due = Instant::now() + LOOK_EVERY;
        sleep_until(due).await;
        let now = Instant::now();
        let before = watch.pressure;
        watch.look(now, now.saturating_duration_since(due), most());
        metrics.waits(watch.standing());
        if watch.pressure != before {
            PRESSURE.set(watch.pressure);
            tell(&metrics, before, &watch);
        }
    }
}

fn tell(metrics: &WorkerMetrics, before: u32, watch: &Watch) {
    for share in Share::ALL {
        metrics.sheds(share.name(), f64::from(shed_of(share, watch.pressure)) / f64::from(WHOLE));
    }
    let delay_ms = watch.standing().as_millis() as u64;
    if before == 0 {
        tracing::warn!(delay_ms, "this worker has more to do than it can, and leaves out some requests");
    } else if watch.pressure == 0 {
        tracing::info!(delay_ms, "this worker leaves out no more requests");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks every 20 ms, each so late.
    fn after(watch: &mut Watch, now: &mut Instant, looks: u32, late: Duration) -> u32 {
        for _ in 0..looks {
            *now += LOOK_EVERY + late;
            watch.look(*now, late, 200 * MS);
        }
        watch.pressure
    }

    #[test]
    fn a_queue_that_stands_is_shed_and_a_stall_is_not() {
        let (mut watch, mut now) = (Watch::default(), Instant::now());
        assert_eq!(after(&mut watch, &mut now, 100, 5 * MS), 0, "well");
        for _ in 0..20 {
            assert_eq!(after(&mut watch, &mut now, 2, 900 * MS), 0, "two late looks in a row are a stall");
            assert_eq!(after(&mut watch, &mut now, 1, 10 * MS), 0);
        }
        assert!(after(&mut watch, &mut now, 4, 300 * MS) > 0, "a queue");
        let some = watch.pressure;
        assert!(after(&mut watch, &mut now, 10, 300 * MS) > some, "it stands");
        let most = after(&mut watch, &mut now, 1_000, 300 * MS);
        assert_eq!(Share::ALL.map(|share| shed_of(share, most)), [WHOLE, MOST, MOST, MOST]);
        assert!(after(&mut watch, &mut now, 5, MS) > 0, "it ends slowly");
        assert_eq!(after(&mut watch, &mut now, 1_000, MS), 0);
    }

    #[test]
    fn strangers_are_left_out_before_pages_and_pages_before_people() {
        let mut before = [0; 4];
        for pressure in 0..=WHOLE + 2 * MOST {
            let shed = Share::ALL.map(|share| shed_of(share, pressure));
            assert!(shed.iter().zip(before).all(|(now, before)| *now >= before), "more pressure lets nobody in");
            assert!(shed[1] == 0 || shed[0] == WHOLE, "pages only when no stranger is let in: {shed:?}");
            assert_eq!(shed[1], shed[2], "who would be somebody, in either way");
            assert!(shed[3] == 0 || shed[1] == MOST, "people last: {shed:?}");
            before = shed;
        }
        assert!(before[1] < WHOLE && before[3] < WHOLE, "some of them are always let in");
    }

    #[test]
    fn with_no_delay_configured_nothing_is_ever_shed() {
        let (mut watch, mut now) = (Watch::default(), Instant::now());
        for _ in 0..100 {
            now += 10 * CHANGE_EVERY;
            watch.look(now, Duration::from_secs(5), Duration::ZERO);
        }
        assert_eq!(watch.pressure, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whether_a_token_is_new_is_asked_at_overload_only() {
        let metrics = Metrics::default();
        for (pressure, is_new, is_asked, is_shed) in [
            (0, true, false, false),
            (MOST, true, false, false),
            (u32::MAX, true, true, true),
            (u32::MAX, false, true, false),
        ] {
            PRESSURE.set(pressure);
            let (asked, mut sheds) = (Cell::new(false), false);
            // Half of them are let in, whatever the pressure.
            for _ in 0..100 {
                let is_of_it = || {
                    asked.set(true);
                    is_new
                };
                sheds |= admit_where(is_of_it, Share::NewTokens, &metrics).await.is_err();
            }
            assert_eq!((asked.get(), sheds), (is_asked, is_shed), "{pressure} {is_new}");
        }
        PRESSURE.set(0);
        assert!(metrics.render().contains("lb_requests_shed_total{share=\"new_tokens\"}"), "{}", metrics.render());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_shed_is_told_late_and_when_to_come_again() {
        PRESSURE.set(WHOLE);
        let (metrics, begin) = (Metrics::default(), Instant::now());
        assert_eq!(admit(Share::of_own_page(false), &metrics).await, Ok(()));
        assert_eq!(admit(Share::of(true), &metrics).await, Ok(()));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(admit(Share::of(false), &metrics).await, Err(Refusal::Shed));
        assert_eq!(begin.elapsed(), ANSWER_AFTER);
        PRESSURE.set(0);
        assert_eq!(admit(Share::of(false), &metrics).await, Ok(()));
        assert!(metrics.render().contains("lb_requests_shed_total{share=\"strangers\"} 1"), "{}", metrics.render());
        let response = Refusal::Shed.into_response();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    }
}
