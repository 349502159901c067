//! The packets that XDP sampled lately: a thread of its own takes them out of the kernel's ring, and whoever asks gets
//! those that are still remembered.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_datapath::{Sample, SampleReader};

/// Enough for a look back over the last minute of a drizzle, and the last seconds of a flood: about 2 MiB.
const KEPT: usize = 4096;

/// The programs wake nobody, so that a flood does not cost a wake-up each sample.
const READ_EVERY: Duration = Duration::from_millis(20);

/// The latest samples, by the order in which they were read. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    samples: VecDeque<Arc<Sample>>,
    /// The number of the sample that comes next.
    next: u64,
}

/// Samples from a place on.
#[derive(Debug, Default)]
pub struct Excerpt {
    pub samples: Vec<(u64, Arc<Sample>)>,
    /// Where the next excerpt goes on.
    pub next: u64,
    /// Forgotten before anybody asked for them.
    pub missed: u64,
}

impl Samples {
    pub fn remember(&self, samples: Vec<Sample>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sample in samples {
            if kept.samples.len() == KEPT {
                kept.samples.pop_front();
            }
            kept.samples.push_back(Arc::new(sample));
            kept.next += 1;
        }
    }

    /// Those from number `from` on, at most `most` of them.
    pub fn from(&self, from: u64, most: usize) -> Excerpt {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.next - kept.samples.len() as u64;
        // A number from before a restart of the controller is ahead of its time: begin with what there is.
        let from = if from > kept.next { 0 } else { from };
        let start = from.max(first);
        let skipped = (start - first) as usize;
        let samples: Vec<_> = (start..).zip(kept.samples.iter().skip(skipped).take(most).cloned()).collect();
        Excerpt { next: start + samples.len() as u64, missed: if from == 0 { 0 } else { start - from }, samples }
    }
}

/// The thread that reads the ring. Dropping it stops it.
pub struct Reading {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reading {
    pub fn start(mut reader: SampleReader, samples: Samples) -> std::io::Result<Reading> {
        let (stop, stopped) = mpsc::channel::<()>();
        let work = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(READ_EVERY) {
                samples.remember(reader.read());
            }
        };
        let thread = std::thread::Builder::new().name("samples".to_owned()).spawn(work)?;
        Ok(Reading { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lb_datapath::{Reason, Verdict};

    use super::*;

    fn numbered(number: u32) -> Sample {
        Sample {
            at: SystemTime::UNIX_EPOCH,
            reason: Reason::Blocked,
            verdict: Verdict::Drop,
            interface: "eth1".to_owned(),
            queue: 0,
            cpu: 0,
            frame_bytes: number,
            captured: Vec::new(),
            source: None,
            destination: None,
            protocol: None,
            ports: None,
            service: None,
        }
    }

    fn numbers(excerpt: &Excerpt) -> Vec<(u64, u32)> {
        excerpt.samples.iter().map(|(number, sample)| (*number, sample.frame_bytes)).collect()
    }

    #[test]
    fn whoever_goes_on_where_the_last_excerpt_ended_sees_each_sample_once() {
        let samples = Samples::default();
        samples.remember((0..5).map(numbered).collect());
        let first = samples.from(0, 3);
        assert_eq!((numbers(&first), first.next, first.missed), (vec![(0, 0), (1, 1), (2, 2)], 3, 0));
        samples.remember(vec![numbered(5)]);
        let second = samples.from(first.next, 10);
        assert_eq!((numbers(&second), second.next), (vec![(3, 3), (4, 4), (5, 5)], 6));
        let none = samples.from(second.next, 10);
        assert_eq!((numbers(&none), none.next, none.missed), (vec![], 6, 0));
    }

    #[test]
    fn whoever_is_too_slow_is_told_how_many_are_forgotten() {
        let samples = Samples::default();
        samples.remember((0..KEPT as u32 + 10).map(numbered).collect());
        let late = samples.from(4, 1);
        assert_eq!((numbers(&late), late.next, late.missed), (vec![(10, 10)], 11, 6));
        assert_eq!(samples.from(0, 1).missed, 0, "who asks for all there is misses nothing");
    }

    #[test]
    fn a_number_from_before_a_restart_begins_anew() {
        let samples = Samples::default();
        samples.remember(vec![numbered(0)]);
        assert_eq!(numbers(&samples.from(1000, 5)), [(0, 0)]);
    }
}
