//! What supervisor and main say to each other: fixed-size messages, a few kinds.
//!
//! *Runs in:* supervisor and main. *Never:* carries text that the supervisor would have to parse.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::wire::{pack_inet, unpack_inet};
use crate::config::UnixName;
use crate::error::{Error, Result};
use crate::net::address::Address;
use crate::sys::passing::{Link, MESSAGE_BYTES, Received, Wait};

/// Room for text in a message.
pub(super) const TEXT_BYTES: usize = MESSAGE_BYTES - 16;

/// From main to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromMain {
    /// Bind this and pass the descriptor back.
    Bind(Address),
    /// The start has failed; main undoes what it did and exits.
    Failed(Error),
    /// Everything runs.
    Ready,
    /// Main was asked to stop by somebody else than the supervisor.
    Stopping,
}

/// From the supervisor to main.
#[derive(Debug)]
pub enum FromSupervisor {
    /// The descriptor that was asked for.
    Bound(OwnedFd),
    /// It could not be had.
    NotBound(Error),
    /// Stop in an orderly way.
    Stop,
}

const BIND_UDP: u8 = 1;
const BIND_CONTROL: u8 = 2;
const FAILED: u8 = 3;
const READY: u8 = 4;
const STOPPING: u8 = 5;
const BOUND: u8 = 6;
const NOT_BOUND: u8 = 7;
const STOP: u8 = 8;
const BIND_UNIX_PATH: u8 = 9;
const BIND_UNIX_ABSTRACT: u8 = 10;
const BIND_TCP: u8 = 11;
const BIND_UNIX_STREAM: u8 = 12;

/// Tag, a small number, length of the text, text.
fn pack(tag: u8, number: u8, text: &[u8]) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    let length = text.len().min(TEXT_BYTES);
    message[0] = tag;
    message[1] = number;
    message[2..4].copy_from_slice(&(length as u16).to_le_bytes());
    message[16..16 + length].copy_from_slice(&text[..length]);
    message
}

fn text(message: &[u8; MESSAGE_BYTES]) -> &[u8] {
    let length = usize::from(u16::from_le_bytes([message[2], message[3]])).min(TEXT_BYTES);
    &message[16..16 + length]
}

fn pack_error(tag: u8, error: &Error) -> [u8; MESSAGE_BYTES] {
    // Each part gets its share, so that a long detail cannot push the hint out.
    let part = |text: &str, share: usize| -> String { text.chars().map(|c| if c == '\0' { ' ' } else { c }).take(share).collect() };
    pack(tag, error.exit, format!("{}\0{}\0{}", part(&error.what, 300), part(&error.detail, 2500), part(&error.hint, 400)).as_bytes())
}

fn unpack_error(message: &[u8; MESSAGE_BYTES]) -> Error {
    let text = String::from_utf8_lossy(text(message)).into_owned();
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Error { what: next(), detail: next(), hint: next(), exit: message[1] }
}

impl FromMain {
    fn pack(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Bind(Address::Udp(bind)) => pack(BIND_UDP, 0, &pack_inet(bind)),
            Self::Bind(Address::Unixgram(UnixName::Path(path))) => pack(BIND_UNIX_PATH, 0, path.as_os_str().as_bytes()),
            Self::Bind(Address::Unixgram(UnixName::Abstract(name))) => pack(BIND_UNIX_ABSTRACT, 0, name),
            Self::Bind(Address::Tcp(bind)) => pack(BIND_TCP, 0, &pack_inet(bind)),
            Self::Bind(Address::Unix(UnixName::Path(path))) => pack(BIND_UNIX_STREAM, 0, path.as_os_str().as_bytes()),
            // No configuration has such a one; the answer is that it is not configured.
            Self::Bind(Address::Unix(UnixName::Abstract(_))) => pack(BIND_UNIX_STREAM, 0, &[]),
            Self::Bind(Address::Control(path)) => pack(BIND_CONTROL, 0, path.as_os_str().as_bytes()),
            Self::Failed(error) => pack_error(FAILED, error),
            Self::Ready => pack(READY, 0, &[]),
            Self::Stopping => pack(STOPPING, 0, &[]),
        }
    }

    fn unpack(message: &[u8; MESSAGE_BYTES]) -> Option<Self> {
        Some(match message[0] {
            BIND_UDP => Self::Bind(Address::Udp(unpack_inet(text(message))?)),
            BIND_UNIX_PATH => Self::Bind(Address::Unixgram(UnixName::Path(PathBuf::from(OsStr::from_bytes(text(message)))))),
            BIND_UNIX_ABSTRACT => Self::Bind(Address::Unixgram(UnixName::Abstract(text(message).to_vec()))),
            BIND_TCP => Self::Bind(Address::Tcp(unpack_inet(text(message))?)),
            BIND_UNIX_STREAM => Self::Bind(Address::Unix(UnixName::Path(PathBuf::from(OsStr::from_bytes(text(message)))))),
            BIND_CONTROL => Self::Bind(Address::Control(PathBuf::from(OsStr::from_bytes(text(message))))),
            FAILED => Self::Failed(unpack_error(message)),
            READY => Self::Ready,
            STOPPING => Self::Stopping,
            _ => return None,
        })
    }
}

/// Main's end.
#[derive(Debug)]
pub struct SupervisorLink(pub Link);

impl SupervisorLink {
    /// Tells the supervisor.
    pub fn tell(&self, message: &FromMain) -> Result<()> {
        self.0.send(&message.pack(), None)
    }

    /// What the supervisor has said, if anything. Its death needs no message: it takes main with it.
    pub fn poll(&self) -> Result<Option<FromSupervisor>> {
        self.receive(Wait::Poll)
    }

    /// Waits for what the supervisor says.
    pub fn wait(&self) -> Result<FromSupervisor> {
        self.receive(Wait::Block)?.ok_or_else(|| Error::failed("the supervisor is gone"))
    }

    fn receive(&self, wait: Wait) -> Result<Option<FromSupervisor>> {
        let (message, descriptor) = match self.0.receive(wait)? {
            Received::Message(message, descriptor) => (message, descriptor),
            Received::Nothing => return Ok(None),
            Received::Closed => return Err(Error::failed("the supervisor is gone")),
        };
        match (message[0], descriptor) {
            (BOUND, Some(descriptor)) => Ok(Some(FromSupervisor::Bound(descriptor))),
            (NOT_BOUND, _) => Ok(Some(FromSupervisor::NotBound(unpack_error(&message)))),
            (STOP, _) => Ok(Some(FromSupervisor::Stop)),
            // The kernel leaves a descriptor out that it cannot give a number to.
            (BOUND, None) => Err(Error::failed("cannot receive a listener's socket from the supervisor")
                .detail("recvmsg: too many open files, or the kernel's security rules kept it back")
                .hint("raise the limit on open files (ulimit -n)")),
            (tag, _) => Err(Error::fault("the supervisor sent an unknown message").detail(format!("tag {tag}"))),
        }
    }
}

impl AsFd for SupervisorLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct MainLink(pub Link);

impl MainLink {
    /// Asks main to stop.
    pub fn stop(&self) -> Result<()> {
        self.0.send(&pack(STOP, 0, &[]), None)
    }

    /// Answers a `Bind`.
    pub fn bound(&self, outcome: Result<BorrowedFd<'_>, &Error>) -> Result<()> {
        match outcome {
            Ok(descriptor) => self.0.send(&pack(BOUND, 0, &[]), Some(descriptor)),
            Err(error) => self.0.send(&pack_error(NOT_BOUND, error), None),
        }
    }

    /// The next message of main; none if there is none now, or main's end is closed.
    pub fn poll(&self) -> Result<Option<FromMain>> {
        match self.0.receive(Wait::Poll)? {
            Received::Message(message, _) => match FromMain::unpack(&message) {
                Some(message) => Ok(Some(message)),
                None => Err(Error::failed("main sent an unknown message").detail(format!("tag {}", message[0]))),
            },
            Received::Nothing | Received::Closed => Ok(None),
        }
    }
}

impl AsFd for MainLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::InetBind;

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let long = Error { what: "w".repeat(90), detail: "é".repeat(150), hint: "h".into(), exit: 2 };
        for message in [
            FromMain::Bind(Address::Udp(InetBind::plain("127.0.0.1:5060".parse().unwrap()))),
            FromMain::Bind(Address::Unixgram(UnixName::Path("/run/y.sock".into()))),
            FromMain::Bind(Address::Unixgram(UnixName::Abstract(b"y\0z".to_vec()))),
            FromMain::Bind(Address::Control("/run/x.sock".into())),
            FromMain::Failed(long),
            FromMain::Failed(Error::failed("only what")),
            FromMain::Ready,
            FromMain::Stopping,
        ] {
            assert_eq!(FromMain::unpack(&message.pack()), Some(message));
        }
        assert_eq!(FromMain::unpack(&[0xff; MESSAGE_BYTES]), None);
        assert_eq!(FromMain::unpack(&pack(BIND_UDP, 0, b"xxx")), None);
    }
}
