//! Millions of packets through a loaded program, each another one: the bench's driver program writes them and calls it.

use std::path::PathBuf;

use aya::maps::{Array, ProgramArray};
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};

/// A template is the frame in words that begin two bytes before it: see the driver's own source.
const TEMPLATE_WORDS: usize = 10;
const TEMPLATE_LEAD_BYTES: usize = 2;

/// Room for headers that a program may add.
const HEADROOM_BYTES: usize = 256;

/// The driver's object as `cargo xtask test` has built it; `None`, said loudly, without it.
pub fn object() -> Option<Vec<u8>> {
    let Some(path) = std::env::var_os("LB_DRIVER").map(PathBuf::from) else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the driver is not built in CI");
        eprintln!("SKIPPED: needs the driver; run `cargo xtask test`");
        return None;
    };
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The driver, and the packets that it makes of one template.
pub struct Driver {
    ebpf: Ebpf,
    frame: Vec<u8>,
}

/// How the last of many packets ended.
pub struct Last {
    /// The XDP action.
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Driver {
    /// `varied_bits` of the source address, 0 in `frame`, are others in each packet: of IPv6 those of its first and its
    /// second word, of IPv4 the second element. No draw comes back within 2^32 packets.
    pub fn load(object: &[u8], frame: &[u8], varied_bits: [u32; 2]) -> Self {
        let frame_bytes = u32::try_from(frame.len()).expect("a small frame");
        let is_ipv6 = u32::from(frame[12..14] == [0x86, 0xdd]);
        let [varied_first_bits, varied_bits] = varied_bits.map(u32::to_be);
        let mut loader = EbpfLoader::new();
        loader.override_global("FRAME_BYTES", &frame_bytes, true);
        loader.override_global("IS_IPV6", &is_ipv6, true);
        loader.override_global("VARIED_BITS", &varied_bits, true);
        loader.override_global("VARIED_FIRST_BITS", &varied_first_bits, true);
        let mut ebpf = loader.load(object).expect("the driver's object loads");
        let map = ebpf.map_mut("TEMPLATE").expect("the driver has a template");
        let mut templates = Array::<_, [u64; TEMPLATE_WORDS]>::try_from(map).expect("an array of templates");
        templates.set(0, template(frame), 0).expect("the template is written");
        let mut driver = Self { ebpf, frame: frame.to_vec() };
        driver.load_program("driver");
        driver
    }

    /// Another program of the object.
    pub fn load_program(&mut self, name: &str) -> ProgramFd {
        let program: &mut Xdp = self.ebpf.program_mut(name).expect("in the object").try_into().expect("an XDP program");
        program.load().unwrap_or_else(|error| panic!("the verifier takes {name}: {error}"));
        program.fd().and_then(|fd| Ok(fd.try_clone()?)).expect("a loaded program")
    }

    pub fn set_subject(&mut self, subject: &ProgramFd) {
        let map = self.ebpf.map_mut("SUBJECT").expect("the driver has a subject");
        let mut subjects = ProgramArray::try_from(map).expect("an array of programs");
        subjects.set(0, subject, 0).expect("the subject takes the same kind of packets as the driver");
    }

    /// A loaded one.
    pub fn program(&self, name: &str) -> &Xdp {
        self.ebpf.program(name).expect("in the object").try_into().expect("an XDP program")
    }

    /// As many packets through driver and subject.
    pub fn run(&self, packets: u32) -> Last {
        self.run_program("driver", packets, None)
    }

    /// The program with this name, in the kernel's own runner; `context` is a `struct xdp_md`.
    pub fn run_program(&self, name: &str, packets: u32, context: Option<&[u8]>) -> Last {
        let mut frame_out = vec![0; self.frame.len() + HEADROOM_BYTES];
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut frame_out),
            ctx_in: context,
            repeat: packets,
            ..TestRunOptions::default()
        };
        let result = self.program(name).test_run(options).expect("the kernel runs the program");
        frame_out.truncate(result.data_size_out as usize);
        Last { action: result.return_value, frame: frame_out }
    }
}

fn template(frame: &[u8]) -> [u64; TEMPLATE_WORDS] {
    let mut bytes = vec![0; TEMPLATE_LEAD_BYTES];
    bytes.extend(frame);
    bytes.resize(TEMPLATE_WORDS * size_of::<u64>(), 0);
    let mut words = bytes.chunks_exact(size_of::<u64>()).map(|word| u64::from_ne_bytes(word.try_into().expect("8")));
    std::array::from_fn(|_| words.next().expect("as many words"))
}
