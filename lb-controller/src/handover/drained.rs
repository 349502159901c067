//! A process that was replaced goes on hearing its successor: sessions that end there end here, and one that hears nothing
//! any more must not go on serving on what it believes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::wire::{Ask, Channel, Tell};
use super::{Drained, News};

/// A stream ends within two seconds of what let it through; it looks once a second itself.
const ASK_EVERY: Duration = Duration::from_millis(500);

const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// Longer than a successor takes that is itself replaced, or restarted at once.
const DEAF_FOR: Duration = Duration::from_secs(5);

/// Follows whoever answers at the door, one successor after the other.
#[derive(Debug)]
pub struct Follower {
    door: PathBuf,
    channel: Option<Channel>,
    heard: Instant,
}

/// What came of asking.
#[derive(Debug)]
pub enum Heard {
    News(News),
    /// No answer yet; there may be one in a moment.
    Nothing,
    /// There has been none for so long that there will be none.
    Deaf,
}

impl Follower {
    pub fn new(door: PathBuf) -> Follower {
        Follower { door, channel: None, heard: Instant::now() }
    }

    /// Waits a moment, then asks.
    pub fn ask(&mut self, drained: Drained) -> Heard {
        std::thread::sleep(ASK_EVERY);
        match self.exchange(drained) {
            Some(news) => {
                self.heard = Instant::now();
                Heard::News(news)
            }
            None => {
                self.channel = None;
                if self.heard.elapsed() < DEAF_FOR { Heard::Nothing } else { Heard::Deaf }
            }
        }
    }

    fn exchange(&mut self, drained: Drained) -> Option<News> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => Channel::connect(&self.door).ok()?,
        };
        channel.send(&Ask::Follow(drained), &[]).ok()?;
        let mut all = News::default();
        loop {
            let (Tell::News { news, more }, _) = channel.receive(ANSWERED_WITHIN).ok()?? else { return None };
            all = News { ended: [all.ended, news.ended].concat(), ..News { ended: Vec::new(), ..news } };
            if !more {
                self.channel = Some(channel);
                return Some(all);
            }
        }
    }
}
