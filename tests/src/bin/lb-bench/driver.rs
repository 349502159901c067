//! The driver program and the subjects it calls.

use std::time::Duration;

use aya::programs::{ProgramFd, TestRunAttrs};
use aya::{TestRun, TestRunOptions};
use lb_tests::driver::Last;
use nix::time::{ClockId, clock_gettime};

use crate::cases::{self, Case};

pub(crate) const XDP_ABORTED: u32 = 0;

/// One case's packets, given to one subject.
pub(crate) struct Driver {
    driver: lb_tests::driver::Driver,
    frame: Vec<u8>,
    context: Vec<u8>,
}

/// Programs beside the one that is measured.
#[derive(Clone, Copy)]
pub(crate) enum Companion {
    Floor,
    Bare,
}

/// What many runs came to.
pub(crate) struct Runs {
    pub(crate) nanoseconds_per_packet: f64,
    /// Of the last run.
    pub(crate) verdict: u32,
    pub(crate) frame: Vec<u8>,
}

impl Companion {
    fn program(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Bare => "bare",
        }
    }
}

impl Driver {
    pub(crate) fn of_companion(object: &[u8], case: &Case, companion: Companion) -> Self {
        Self::at(object, case, companion, cases::INTERFACE)
    }

    /// Of packets that come in by `interface`.
    pub(crate) fn at(object: &[u8], case: &Case, companion: Companion, interface: &str) -> Self {
        let mut driver = Self::load(object, case, interface);
        let subject = driver.driver.load_program(companion.program());
        driver.driver.set_subject(&subject);
        driver
    }

    pub(crate) fn of_program(object: &[u8], case: &Case, program: &ProgramFd) -> Self {
        let mut driver = Self::load(object, case, cases::INTERFACE);
        driver.driver.set_subject(program);
        driver
    }

    fn load(object: &[u8], case: &Case, interface: &str) -> Self {
        let frame_bytes = u32::try_from(case.frame.len()).expect("a small frame");
        let driver = lb_tests::driver::Driver::load(object, &case.frame, case.varied_bits);
        Self { driver, frame: case.frame.clone(), context: context(frame_bytes, interface) }
    }

    /// Packets through driver and subject.
    pub(crate) fn run(&self, packets: u32) -> Runs {
        self.run_program("driver", packets)
    }

    /// Packets out of the interface that the driver's context names, until they are where they go: what its subject sends
    /// back (`XDP_TX`) leaves there.
    pub(crate) fn send(&self, packets: u32) {
        const BATCH_PACKETS: u32 = 64;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&self.context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH_PACKETS),
            ..TestRunOptions::default()
        };
        self.driver.program("driver").test_run(options).expect("the kernel sends live frames");
    }

    /// The companion alone, always on the same packet.
    pub(crate) fn run_alone(&self, companion: Companion, packets: u32) -> Runs {
        self.run_program(companion.program(), packets)
    }

    fn run_program(&self, name: &str, packets: u32) -> Runs {
        // Not the runner's own figure: that is in whole nanoseconds, 3 % of the floor. The thread's time leaves out
        // what other processes took of this CPU, and entering the kernel is lost among so many packets.
        let before = thread_time();
        let Last { action, frame } = self.driver.run_program(name, packets, Some(&self.context));
        let time = thread_time() - before;
        let nanoseconds_per_packet = time.as_nanos() as f64 / f64::from(packets);
        Runs { nanoseconds_per_packet, verdict: action, frame }
    }
}

/// The kernel's `struct xdp_md` of a frame that came in by `interface`. A packet that leaves by the interface it came in by
/// costs less than one that does not.
fn context(frame_bytes: u32, interface: &str) -> Vec<u8> {
    let interface = nix::net::if_::if_nametoindex(interface).expect("the host has the interface");
    let [data, data_meta, queue, egress_interface] = [0; 4];
    let words = [data, frame_bytes, data_meta, interface, queue, egress_interface];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a clock").into()
}
