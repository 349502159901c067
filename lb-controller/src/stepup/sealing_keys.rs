//! The keys that cookies are sealed with, as an operator sees and changes them.

use anyhow::Result;

use super::StepUp;
use crate::audit::Event;
use crate::report::SealingKey;

impl StepUp {
    /// The one that seals first.
    pub fn sealing_keys(&self) -> Vec<SealingKey> {
        self.sealer.list()
    }

    /// Seals with a new key from now on. What the last one sealed opens on; what an earlier one did does not. It is on disk
    /// when this returns.
    pub fn rotate_sealing_keys(&self) -> Result<()> {
        let outcome = self.sealer.rotate(self.clock.now());
        audit("a new one seals", if outcome.is_ok() { "rotated" } else { "failed" });
        outcome
    }

    /// Nothing that this key sealed opens any more: sessions, known devices, logins under way. `false`: there is none of this
    /// id. It is on disk when this returns.
    pub fn revoke_sealing_key(&self, id: &str) -> Result<bool> {
        let outcome = self.sealer.revoke(id, self.clock.now());
        let result = match &outcome {
            Ok(true) => "revoked",
            Ok(false) => "unknown",
            Err(_) => "failed",
        };
        audit(id, result);
        outcome
    }
}

fn audit(detail: &str, result: &str) {
    Event { event: "sealing-key", result, detail: Some(detail), ..Event::default() }.record();
}
