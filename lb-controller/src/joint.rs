//! The joint of L7 and L4: what a finished or failed step-up tells XDP about its source, and what it must never tell.
//!
//! XDP acts on whole sources, so every word here can hit a bystander. A verified source only passes first; it is never
//! let in for it. A blocked source is one that finished TCP and TLS handshakes and then failed proofs, so it is no forged
//! address, and none of the guards in [`memory`] speaks for it.

mod memory;

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use lb_common::Source;

use self::memory::{Memory, Told};
use crate::audit::Event;
use crate::clock::Clock;
use crate::config::Config;
use crate::serve::request::Client;

/// One change to the XDP maps that the joint asks for. The reconciler alone writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChange {
    Verified { source: Source, ttl: Duration },
    Blocked { source: Source, ttl: Duration },
}

/// Decides which sources XDP lets pass first and which it drops.
pub struct Joint {
    memory: Mutex<Memory>,
    clock: Clock,
    tell: Box<dyn Fn(SourceChange) + Send + Sync>,
}

impl Joint {
    /// `verified` are the sources that the maps remember from before a restart, each with how long ago a verified
    /// session was held there. `tell` takes changes to whoever writes the maps; it must not block.
    pub fn new(
        clock: Clock,
        verified: impl IntoIterator<Item = (Source, Duration)>,
        tell: impl Fn(SourceChange) + Send + Sync + 'static,
    ) -> Joint {
        let now = clock.now();
        let mut memory = Memory::default();
        for (source, ago) in verified {
            memory.remember_verified(source, now.saturating_sub(ago.as_secs()));
        }
        Joint { memory: Mutex::new(memory), clock, tell: Box::new(tell) }
    }

    /// A step-up was finished at `client`. What was told to XDP, if anything.
    pub fn finished(&self, config: &Config, client: &Client) -> Option<SourceChange> {
        self.say("verified", client, |memory, now| memory.finished(config, client, now))
    }

    /// A proof failed at `client`. What was told to XDP, if anything.
    pub fn failed(&self, config: &Config, client: &Client) -> Option<SourceChange> {
        self.say("block", client, |memory, now| memory.failed(config, client, now))
    }

    /// Whether a step-up was finished there so lately that XDP lets it pass first.
    pub fn is_verified(&self, config: &Config, address: IpAddr) -> bool {
        let memory = self.memory.lock().expect("no holder of this lock panics");
        memory.is_verified(Source::of(address), config.step_up.verified_for, self.clock.now())
    }

    fn say(
        &self,
        event: &'static str,
        client: &Client,
        decide: impl FnOnce(&mut Memory, u64) -> Result<SourceChange, Told>,
    ) -> Option<SourceChange> {
        let decided = decide(&mut self.memory.lock().expect("no holder of this lock panics"), self.clock.now());
        let source = Some(Source::of(client.address));
        match decided {
            Ok(change) => {
                Event { event, result: "ok", source, ..Event::default() }.record();
                (self.tell)(change);
                Some(change)
            }
            // Why a source that earned a block was spared is worth a line; that nothing happened is not.
            Err(Told::Spared(why)) => {
                Event { event, result: why, source, ..Event::default() }.record();
                None
            }
            Err(Told::Nothing) => None,
        }
    }
}
