//! QUIC datagrams: whatever a client sends, nothing is read beyond the datagram's own bytes, and a server is found only by
//! an id of the length that its configuration says. Options of a SYN: lowering what they announce keeps the checksum right
//! and touches nothing else.
#![no_main]

use std::cell::Cell;

use lb_common::checksum::fold;
use lb_common::mss::lower;
use lb_common::parse::Packet;
use lb_common::quic::{ServerId, ServerIdLengths, server};
use lb_common::syn_cookie::{MOST_STEPS, OPTION_BUFFER_BYTES, OptionWalk, TCP_BYTES};
use libfuzzer_sys::fuzz_target;

/// Notes the end of the furthest bytes that were asked for and given.
struct Watched<'a> {
    bytes: &'a [u8],
    furthest: Cell<usize>,
}

impl Packet for Watched<'_> {
    fn length_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let value = self.bytes.load(offset)?;
        self.furthest.set(self.furthest.get().max(offset + size_of::<T>()));
        Some(value)
    }
}

const POOL: u16 = 3;
const LENGTHS: ServerIdLengths = ServerIdLengths(0).with(0, 1).with(1, 4).with(2, 8).with(3, 9).with(4, 15);

fuzz_target!(|bytes: &[u8]| {
    datagram(bytes);
    segment(bytes);
});

fn datagram(payload: &[u8]) {
    let Ok(length) = u16::try_from(8 + payload.len()) else { return };
    let frame = [&[0x9c, 0x40, 1, 0xbb][..], &length.to_be_bytes(), &[0, 0], payload, &[0xff; 64]].concat();
    let watched = Watched { bytes: &frame, furthest: Cell::new(0) };
    let Some(key) = server(&watched, 0, LENGTHS, POOL) else { return };
    assert!(watched.furthest.get() <= usize::from(length), "read what is behind the datagram");
    let id = ServerId::of_key(&key).expect("what is found is an id");
    assert!(LENGTHS.iter().any(|(_, bytes)| id.as_bytes().len() == usize::from(bytes)));
    assert!(payload.windows(id.as_bytes().len()).any(|window| window == id.as_bytes()), "made of what was sent");
    assert_eq!(key, id.key(POOL));
}

fn segment(bytes: &[u8]) {
    let [first, second, options @ ..] = bytes else { return };
    let options = &options[..options.len().min(40) / 4 * 4];
    let most_bytes = u16::from_be_bytes([*first, *second]);
    let mut frame = [&[0; TCP_BYTES][..], options].concat();
    let sum = !folded(&frame);
    frame[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut walk = walk(options);
    for _ in 0..MOST_STEPS {
        if !walk.step() {
            break;
        }
    }
    let before = frame.clone();
    lower(frame.as_mut_slice(), 0, &walk, most_bytes).expect("the header is whole");
    assert_eq!(folded(&frame), folded(&before), "the checksum is as right as it was");
    let changed = (0..frame.len()).filter(|at| frame[*at] != before[*at] && !(16..18).contains(at));
    assert!(changed.count() <= 2, "two bytes announce");
}

fn walk(options: &[u8]) -> OptionWalk {
    let mut buffer = [0; OPTION_BUFFER_BYTES];
    buffer[..options.len()].copy_from_slice(options);
    let word = |number: usize| u64::from_le_bytes(buffer[8 * number..8 * number + 8].try_into().expect("eight bytes"));
    OptionWalk::new(core::array::from_fn(word), TCP_BYTES + options.len())
}

fn folded(bytes: &[u8]) -> u16 {
    fold(bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum())
}
