//! A text with a prefix or an address a line, as lists are published: comments begin with `#` or `;`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use lb_datapath::Prefix;

/// Longer lines hold no prefix, and are not shown whole.
const MOST_LINE_BYTES: usize = 1024;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    TooLong,
    NotText,
    NoPrefix {
        text: String,
    },
    BadLength {
        most: u8,
    },
    /// `10.1.2.3/8`: the author meant either one host or the whole block, and a guess could deny a country.
    BitsBeyond {
        block: Prefix,
    },
}

/// Calls `found` with the number, from 1, of each line that holds a prefix, and `wrong` with that of each line that is
/// neither empty nor a comment nor a prefix. Ends early when `found` says so.
pub fn read(text: &[u8], mut found: impl FnMut(u32, Prefix) -> bool, mut wrong: impl FnMut(u32, Mistake)) {
    let lines = text.split(|byte| *byte == b'\n');
    for (number, line) in (1_u32..).zip(lines) {
        match read_line(line) {
            Ok(Some(prefix)) if !found(number, prefix) => return,
            Ok(_) => {}
            Err(mistake) => wrong(number, mistake),
        }
    }
}

/// `None`: there is no prefix on the line, and none was meant.
fn read_line(line: &[u8]) -> Result<Option<Prefix>, Mistake> {
    let end = line.iter().position(|byte| matches!(byte, b'#' | b';')).unwrap_or(line.len());
    let line = line[..end].trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MOST_LINE_BYTES {
        return Err(Mistake::TooLong);
    }
    let text = std::str::from_utf8(line).map_err(|_| Mistake::NotText)?;
    read_prefix(text).map(Some)
}

fn read_prefix(text: &str) -> Result<Prefix, Mistake> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = IpAddr::from_str(address).map_err(|_| Mistake::NoPrefix { text: text.to_owned() })?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(digits) => {
            let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|length| plain && *length <= most).ok_or(Mistake::BadLength { most })?
        }
    };
    let prefix = Prefix::new(address, length).ok_or(Mistake::BadLength { most })?;
    if prefix.first_address() != address.to_canonical() {
        return Err(Mistake::BitsBeyond { block: prefix });
    }
    Ok(prefix)
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::TooLong => write!(f, "the line has more than {MOST_LINE_BYTES} bytes; write one prefix a line"),
            Mistake::NotText => f.write_str("the line is not UTF-8; write one prefix a line"),
            Mistake::NoPrefix { text } => {
                let shown: String = text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
                write!(f, "`{shown}` is no prefix or address; write 192.0.2.0/24, 2001:db8::/32, or a comment after #")
            }
            Mistake::BadLength { most } => write!(f, "the length behind the slash is a number from 0 to {most}"),
            Mistake::BitsBeyond { block } => write!(f, "there are bits beyond the prefix; the block is {block}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_a_prefix_or_a_comment_or_a_mistake() {
        for (line, expected) in [
            ("192.0.2.0/24", Ok(Some("192.0.2.0/24"))),
            ("  192.0.2.7  ", Ok(Some("192.0.2.7/32"))),
            ("1.10.16.0/20 ; SBL256894", Ok(Some("1.10.16.0/20"))),
            ("2001:db8::/32 # ours\r", Ok(Some("2001:db8::/32"))),
            ("2001:db8::1", Ok(Some("2001:db8::1/128"))),
            ("::ffff:192.0.2.0/120", Ok(Some("192.0.2.0/24"))),
            ("0.0.0.0/0", Ok(Some("0.0.0.0/0"))),
            ("", Ok(None)),
            ("; Spamhaus DROP List", Ok(None)),
            ("   # nothing", Ok(None)),
            ("example.com", Err("`example.com` is no prefix or address")),
            ("192.0.2.0 - 192.0.2.255", Err("`192.0.2.0 - 192.0.2.255` is no prefix")),
            ("192.0.2.0/33", Err("a number from 0 to 32")),
            ("192.0.2.0/+24", Err("a number from 0 to 32")),
            ("192.0.2.0/", Err("a number from 0 to 32")),
            ("2001:db8::/129", Err("a number from 0 to 128")),
            ("192.0.2.1/24", Err("the block is 192.0.2.0/24")),
            ("192.0.02.0/24", Err("is no prefix")),
        ] {
            match (read_line(line.as_bytes()), expected) {
                (Ok(prefix), Ok(expected)) => {
                    assert_eq!(prefix.map(|prefix| prefix.to_string()).as_deref(), expected, "{line}");
                }
                (Err(mistake), Err(part)) => assert!(mistake.to_string().contains(part), "{line}: {mistake}"),
                (got, _) => panic!("{line}: {got:?}"),
            }
        }
        assert_eq!(read_line(b"192.0.2.\xff"), Err(Mistake::NotText));
        assert_eq!(read_line(&[b'1'; 2000]), Err(Mistake::TooLong));
    }

    #[test]
    fn lines_are_counted_and_every_mistake_is_told() {
        let (mut found, mut wrong) = (Vec::new(), Vec::new());
        let text = b"# head\n192.0.2.0/24\n\nno\n10.0.0.0/8\n10.0.0.1/8";
        read(
            text,
            |line, prefix| {
                found.push((line, prefix.to_string()));
                true
            },
            |line, _| wrong.push(line),
        );
        assert_eq!(found, [(2, "192.0.2.0/24".to_owned()), (5, "10.0.0.0/8".to_owned())]);
        assert_eq!(wrong, [4, 6]);
    }

    proptest::proptest! {
        #[test]
        fn a_prefix_survives_being_written_and_read(bits: u128, is_ipv6: bool, length in 0_u8..=128) {
            let address = match is_ipv6 {
                true => IpAddr::from(std::net::Ipv6Addr::from(bits)),
                false => IpAddr::from(std::net::Ipv4Addr::from(bits as u32)),
            };
            let prefix = Prefix::new(address, if is_ipv6 { length } else { length % 33 }).unwrap();
            proptest::prop_assert_eq!(read_line(prefix.to_string().as_bytes()), Ok(Some(prefix)));
        }

        #[test]
        fn no_bytes_make_reading_panic(line: Vec<u8>) {
            let _ = read_line(&line);
        }
    }
}
