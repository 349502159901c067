//! Running the loaded XDP program on a packet that never was on a wire.

use std::time::Duration;

use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, TestRun, TestRunOptions};
use lb_common::Verdict;

use crate::error::LoadError;
use crate::load::Datapath;
use crate::programs::XDP_PROGRAM;
use crate::samples::verdict;

/// What became of the packet. It moves counters and limits like a real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// For one run; the average if there were several.
    pub duration: Duration,
}

impl Datapath {
    /// The loaded XDP program, for a program array whose driver measures it.
    pub fn xdp_program(&self) -> Result<&ProgramFd, LoadError> {
        let program = self.ebpf.program(XDP_PROGRAM).ok_or(LoadError::ObjectMissing)?;
        program.fd().map_err(|error| LoadError::system("find the loaded XDP program", error))
    }

    /// Judges `frame`, which begins with an Ethernet header. The kernel takes no frame below 14 bytes.
    pub fn try_out(&self, frame: &[u8], runs: u32) -> Result<Outcome, LoadError> {
        judge(&self.ebpf, frame, runs, None)
    }
}

/// Where a packet is said to have come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Of the calling thread's network namespace, with XDP attached.
    pub(crate) interface: u32,
}

pub(crate) fn run_once(ebpf: &Ebpf, frame: &[u8], arrival: Option<Arrival>) -> Result<Outcome, LoadError> {
    judge(ebpf, frame, 1, arrival)
}

fn judge(ebpf: &Ebpf, frame: &[u8], runs: u32, arrival: Option<Arrival>) -> Result<Outcome, LoadError> {
    // Room for headers that a program may add.
    const HEADROOM_BYTES: usize = 256;

    let failed = |error| LoadError::system("run the XDP program on a packet", error);
    let program = ebpf.program(XDP_PROGRAM).ok_or(LoadError::ObjectMissing)?;
    let program: &Xdp = program.try_into().map_err(failed)?;
    let mut frame_out = vec![0; frame.len() + HEADROOM_BYTES];
    let context = arrival.map(|arrival| context(frame.len() as u32, arrival));
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut frame_out),
        ctx_in: context.as_ref().map(|context| context.as_slice()),
        repeat: runs,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).map_err(failed)?;
    frame_out.truncate(result.data_size_out as usize);
    let other = || LoadError::system("judge a packet", format!("unexpected XDP verdict {}", result.return_value));
    let verdict = verdict(result.return_value).ok_or_else(other)?;
    Ok(Outcome { verdict, frame: frame_out, duration: result.duration })
}

/// The kernel's `struct xdp_md` of a packet from queue 0 of an interface, without metadata.
fn context(frame_bytes: u32, arrival: Arrival) -> [u8; 24] {
    let [data, data_meta, queue, egress] = [0; 4];
    zerocopy::transmute!([data, frame_bytes, data_meta, arrival.interface, queue, egress])
}
