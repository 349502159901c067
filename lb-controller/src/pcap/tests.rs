use proptest::prelude::*;

use super::*;

const FORMATS: [Format; 2] = [Format::Pcap, Format::PcapNg];

fn written(format: Format, frames: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = CaptureWriter::start(&mut file, format).expect("begun");
    for (number, frame) in (0..).zip(frames) {
        let interface = if number % 2 == 0 { "eth1" } else { "eth2.100" };
        let packet = Packet {
            at_unix_ns: 1_700_000_000_000_000_000 + number,
            interface,
            frame_bytes: frame.len() as u32,
            captured: frame,
            comment: "blocked: source is blocked",
        };
        writer.write(&packet).expect("written");
    }
    file
}

#[test]
fn a_capture_is_written_byte_by_byte_as_the_formats_say() {
    let pcap = written(Format::Pcap, &[&[1, 2, 3]]);
    assert_eq!(pcap[..8], [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
    assert_eq!(pcap[20..24], [1, 0, 0, 0], "Ethernet");
    let seconds = 1_700_000_000_u32.to_le_bytes();
    assert_eq!(pcap[24..], [&seconds[..], &[0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]].concat());
    let pcapng = written(Format::PcapNg, &[&[1, 2, 3]]);
    assert_eq!(pcapng[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert_eq!(pcapng.len() % 4, 0);
}

#[test]
fn of_what_is_damaged_nothing_is_used() {
    let frames: [&[u8]; 2] = [&[7; 60], &[9; 61]];
    for format in FORMATS {
        let whole = written(format, &frames);
        assert_eq!(read_frames(&whole, 2), Ok(frames.to_vec()), "{format:?}");
        assert_eq!(read_frames(&whole, 1), Err(CaptureError::TooMany { most: 1 }), "{format:?}");
        let readable = (0..whole.len()).filter(|cut| read_frames(&whole[..*cut], 2).is_ok()).count();
        // Only between packets, and between blocks, is a file that is cut short still whole.
        assert!(readable <= 4, "{format:?}: {readable}");
    }
    assert_eq!(read_frames(b"GIF89a", 1), Err(CaptureError::Unknown));
    assert_eq!(read_frames(b"", 1), Err(CaptureError::Unknown));
    let mut other_link = written(Format::Pcap, &[&[1]]);
    other_link[20] = 101;
    assert_eq!(read_frames(&other_link, 1), Err(CaptureError::OtherLink { found: 101 }));
}

#[test]
fn the_other_byte_order_is_read_too() {
    let mut file = MAGIC_MICROSECONDS.to_be_bytes().to_vec();
    file.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1]);
    file.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 4, 5, 6]);
    assert_eq!(read_frames(&file, 5), Ok(vec![&[4, 5, 6][..]]));
}

proptest! {
    #[test]
    fn what_was_written_is_read_again(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
        ng in any::<bool>(),
    ) {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let file = written(FORMATS[usize::from(ng)], &frames);
        prop_assert_eq!(read_frames(&file, 8), Ok(frames));
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_bounds(
        start in 0..4_usize,
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let file = [&written(FORMATS[start % 2], &[&[1; 40]])[..start / 2 * 60], &rest].concat();
        if let Ok(frames) = read_frames(&file, 3) {
            prop_assert!(frames.len() <= 3 && frames.iter().map(|frame| frame.len()).sum::<usize>() <= file.len());
        }
    }
}
