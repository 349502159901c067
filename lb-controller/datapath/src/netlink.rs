//! rtnetlink(7): messages to and from the kernel's routing side, for one network namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MessageHeader {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct RouteHeader {
    pub(crate) family: u8,
    pub(crate) destination_bits: u8,
    pub(crate) source_bits: u8,
    pub(crate) service_type: u8,
    pub(crate) table: u8,
    pub(crate) protocol: u8,
    pub(crate) scope: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct LinkHeader {
    pub(crate) family: u8,
    pub(crate) unused: u8,
    pub(crate) kind: u16,
    pub(crate) interface: u32,
    pub(crate) flags: u32,
    pub(crate) change: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AttributeHeader {
    length: u16,
    kind: u16,
}

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const DELETE_ROUTE: u16 = 25;
pub(crate) const GET_ROUTE: u16 = 26;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const MULTI: u16 = 0x2;
pub(crate) const ACKNOWLEDGE: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;

/// Attributes of routes.
pub(crate) const DESTINATION: u16 = 1;
pub(crate) const OUTPUT_INTERFACE: u16 = 4;

/// A socket to the kernel, of the namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        Self::with(SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
    }

    /// To the families of generic netlink, such as ethtool's.
    pub(crate) fn open_generic() -> io::Result<Self> {
        Self::with(SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)
    }

    /// Hears of what changes in these groups (a bit each, `RTMGRP_*` of rtnetlink.h), without waiting.
    pub(crate) fn listen(groups: u32) -> io::Result<Self> {
        let netlink = Self::with(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkRoute)?;
        bind(netlink.socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(netlink)
    }

    fn with(flags: SockFlag, protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self { socket })
    }

    /// Sends a request and hands over the messages of the answer: one, or as many as there are of a dump.
    pub(crate) fn ask(&self, kind: u16, flags: u16, body: &[u8], mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &message(kind, REQUEST | flags, body), MsgFlags::empty())?;
        let is_single = flags & (DUMP | ACKNOWLEDGE) == 0;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((header, body, next)) = split_message(rest) {
                match header.kind {
                    DONE => return Ok(()),
                    ERROR => return answer(body),
                    kind => take(kind, body),
                }
                if is_single && header.flags & MULTI == 0 {
                    return Ok(());
                }
                rest = next;
            }
        }
    }

    /// Reads all that has been heard; `true` if there was anything, or more than the kernel kept for us.
    pub(crate) fn has_heard(&self) -> io::Result<bool> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut heard = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(_) | Err(nix::Error::ENOBUFS) => heard = true,
                Err(nix::Error::EAGAIN) => return Ok(heard),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The kernel sizes its datagrams by the first buffer it sees, at most 32 KiB.
const BUFFER_BYTES: usize = 32 * 1024;

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (size_of::<MessageHeader>() + body.len()) as u32;
    let header = MessageHeader { length, kind, flags, sequence: 1, port: 0 };
    [header.as_bytes(), body].concat()
}

/// With the bytes that align what follows.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = size_of::<AttributeHeader>() + value.len();
    let mut bytes = [AttributeHeader { length: length as u16, kind }.as_bytes(), value].concat();
    bytes.resize(aligned(length), 0);
    bytes
}

/// Kind and value of each; ends where one claims more than there is.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Of the kind, above the number.
    const FLAGS: u16 = 0xc000;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, _) = AttributeHeader::read_from_prefix(rest).ok()?;
        let value = rest.get(size_of::<AttributeHeader>()..header.length as usize)?;
        rest = rest.get(aligned(header.length as usize)..).unwrap_or_default();
        Some((header.kind & !FLAGS, value))
    })
}

/// `None` unless it is as long as one.
pub(crate) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The first message's header and body, and what follows it.
type Split<'a> = (MessageHeader, &'a [u8], &'a [u8]);

fn split_message(bytes: &[u8]) -> Option<Split<'_>> {
    let (header, _) = MessageHeader::read_from_prefix(bytes).ok()?;
    let body = bytes.get(size_of::<MessageHeader>()..header.length as usize)?;
    Some((header, body, bytes.get(aligned(header.length as usize)..).unwrap_or_default()))
}

/// An error message carries a negative errno, 0 for success.
fn answer(body: &[u8]) -> io::Result<()> {
    match i32::read_from_prefix(body) {
        Ok((0, _)) => Ok(()),
        Ok((code, _)) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answer cut short")),
    }
}

/// Messages and attributes start at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_an_errno_or_success() {
        assert!(answer(&0_i32.to_ne_bytes()).is_ok());
        let refused = answer(&(-1_i32).to_ne_bytes()).expect_err("EPERM");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(answer(&[]).is_err());
    }

    #[test]
    fn a_message_that_claims_more_than_was_received_ends_the_walk() {
        let mut bytes = message(NEW_ROUTE, 0, &[0; 12]);
        assert!(split_message(&bytes).is_some());
        bytes.truncate(20);
        assert!(split_message(&bytes).is_none());
        assert!(split_message(&[]).is_none());
    }

    #[test]
    fn attributes_are_read_until_one_is_cut_short() {
        let mut bytes = [attribute(1, &[10, 0, 0, 1]), attribute(0x8004, &7_u32.to_ne_bytes())].concat();
        let read = |bytes: &[u8]| attributes(bytes).map(|(kind, value)| (kind, value.len())).collect::<Vec<_>>();
        assert_eq!(read(&bytes), [(1, 4), (4, 4)]);
        bytes.pop();
        assert_eq!(read(&bytes), [(1, 4)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_walk_endless_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len());
            let _ = split_message(&bytes);
        }
    }
}
