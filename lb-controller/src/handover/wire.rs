//! Messages between two processes of one host, each whole, with file descriptors beside it (`SOCK_SEQPACKET`, unix(7)).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Drained, News, Running};

/// A longer message is none of ours. Less than the kernel takes in one piece unless it was set to less than its default.
const MOST_BYTES: usize = 128 * 1024;

/// Descriptors in one message; the kernel's limit is 253.
pub(super) const MOST_DESCRIPTORS: usize = 64;

/// How long a message may take to be taken in.
const SENT_WITHIN: Duration = Duration::from_secs(10);

/// What a giver is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Who runs? Its output comes with the answer.
    Who,
    TakeOver {
        protocol: u32,
        pid: u32,
        version: String,
    },
    LendDatapath,
    LendStore,
    Commit,
    Follow(Drained),
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Tell {
    Who(Running),
    Offer {
        running: Running,
        /// How many listening sockets each worker has; they follow in [`Tell::More`].
        sockets: Vec<usize>,
        has_metrics: bool,
        has_lock: bool,
    },
    /// The next descriptors: listening sockets, then metrics, then the lock.
    More,
    Done,
    News {
        news: News,
        /// Another such message follows.
        more: bool,
    },
    Refused {
        why: String,
        /// Another process takes over already.
        busy: bool,
    },
}

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// A message, and what came beside it.
type Received<M> = (M, Vec<OwnedFd>);

impl Channel {
    pub(super) fn connect(path: &Path) -> io::Result<Channel> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Channel::over(socket)
    }

    fn over(socket: OwnedFd) -> io::Result<Channel> {
        set_socket_timeout(&socket, Timeout::Send, Some(SENT_WITHIN))?;
        Ok(Channel(socket))
    }

    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        if bytes.len() > MOST_BYTES {
            return Err(io::Error::other("a message too long to be sent"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        // A peer that has gone is an error to return, and no signal.
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message; `None`: the other has gone.
    pub(super) fn receive<M: DeserializeOwned>(&self, within: Duration) -> io::Result<Option<Received<M>>> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(within))?;
        let mut bytes = vec![0; MOST_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut beside,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                // What it had sent is of no use any more.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(ErrorKind::InvalidData, "a message was cut short"));
        }
        let message = serde_json::from_slice(&bytes[..received.bytes]);
        Ok(Some((message.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?, descriptors)))
    }
}

/// Where a giver is asked. Dropping it removes it from the file system.
#[derive(Debug)]
pub struct Door {
    listener: OwnedFd,
    path: PathBuf,
}

impl Door {
    /// Opens it for the controller's own user alone; what stands at `path` is replaced. Nobody is answered yet.
    pub fn open(path: PathBuf) -> io::Result<Door> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = socket()?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&listener, 16)?;
        Ok(Door { listener, path })
    }

    /// It was moved.
    pub fn is_at(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Closes it, and leaves alone what has its name by now.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }

    pub(super) fn listener(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(super) fn accept(listener: &OwnedFd) -> io::Result<Channel> {
    Channel::over(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}
