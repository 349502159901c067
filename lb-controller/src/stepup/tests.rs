//! Step-up as a client meets it: the real engine under a clock that stands still.

mod audits;
mod bench;
mod challenges;
mod factors;
mod logins;
mod proofs;
mod resumes;
mod self_service;
mod shapes;
