//! Works at the gateway's puzzles as the script of its page does.

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

/// What the page says there is to be solved.
#[derive(Clone, Debug)]
pub struct Puzzle {
    pub text: String,
    pub bits: u32,
}

impl Puzzle {
    /// From the JSON that tools get: `{"puzzle": …, "bits": …}`.
    pub fn read(ask: &Value) -> Result<Puzzle> {
        let text = ask["puzzle"].as_str().with_context(|| format!("no puzzle in {ask}"))?.to_owned();
        let bits = ask["bits"].as_u64().context("no bits")?;
        Ok(Puzzle { text, bits: u32::try_from(bits)? })
    }

    /// `puzzle:count` whose hash begins with so many zero bits.
    pub fn solve(&self) -> String {
        let answers = (0_u64..).map(|count| format!("{}:{count}", self.text));
        answers.into_iter().find(|answer| zeros(answer) >= self.bits).expect("some count solves it")
    }

    /// One whose hash does not.
    pub fn guess_wrong(&self) -> String {
        let answers = (0_u64..).map(|count| format!("{}:{count}", self.text));
        answers.into_iter().find(|answer| zeros(answer) < self.bits).expect("nearly every count")
    }
}

fn zeros(answer: &str) -> u32 {
    let hash = digest(&SHA256, answer.as_bytes());
    u128::from_be_bytes(hash.as_ref()[..16].try_into().expect("16 of 32 bytes")).leading_zeros()
}
