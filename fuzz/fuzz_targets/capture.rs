//! Captures that somebody brings: read within bounds or refused, and what is read is in the file.
#![no_main]

use lb_controller::pcap::{CaptureWriter, Format, Packet, read_frames};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 64;

fuzz_target!(|capture: &[u8]| {
    let Ok(frames) = read_frames(capture, MOST) else { return };
    assert!(frames.len() <= MOST);
    assert!(frames.iter().map(|frame| frame.len()).sum::<usize>() <= capture.len());
    for format in [Format::Pcap, Format::PcapNg] {
        let mut again = Vec::new();
        let mut writer = CaptureWriter::start(&mut again, format).expect("memory takes all");
        for frame in &frames {
            let packet =
                Packet { at_unix_ns: 1, interface: "eth1", frame_bytes: 0, captured: frame, comment: "no_service" };
            writer.write(&packet).expect("memory takes all");
        }
        assert_eq!(read_frames(&again, MOST).as_ref(), Ok(&frames));
    }
});
