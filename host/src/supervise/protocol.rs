//! What supervisor and main say to each other: one message of fixed size, a few kinds.
//!
//! *Runs in:* supervisor and main. *Never:* carries text that the supervisor would have to parse.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

use crate::config::SocketOptions;
use crate::error::{Error, Result};
use crate::net::address::{Address, InetBind};
use crate::sys::socket::seqpacket::{Link, Wait};
use crate::sys::socket::socket_address::{SOCKET_ADDRESS_BYTES, SocketAddress};

/// From main to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromMain {
    /// Pass one socket of a listener of the configuration.
    Listen {
        /// The listener's index in the plan.
        listener: u32,
        /// The number of the socket, from 0.
        nth: u32,
    },
    /// Pass a socket that a module asked for: its address and its options.
    ListenForModule(Address),
    /// Pass the control socket.
    ListenForControl,
    /// The start has failed; main undoes what it did and exits.
    Failed(Error),
    /// Everything runs.
    Ready,
    /// Main stops: it was asked to, or undoes a failed start.
    Stopping,
}

/// From the supervisor to main.
#[derive(Debug)]
pub enum FromSupervisor {
    /// A socket, and how many more the same listener has.
    Socket(OwnedFd, u32),
    /// The listener cannot be had.
    Refused(Error),
    /// Stop in an orderly way.
    Stop,
}

const LISTEN: u32 = 1;
const LISTEN_FOR_MODULE: u32 = 2;
const LISTEN_FOR_CONTROL: u32 = 3;
const FAILED: u32 = 4;
const READY: u32 = 5;
const STOPPING: u32 = 6;
const SOCKET: u32 = 7;
const REFUSED: u32 = 8;
const STOP: u32 = 9;

/// Every message in either direction; fields that its kind does not use are zero.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Message {
    kind: u32,
    /// `LISTEN`: the listener. `SOCKET`: how many sockets of the listener are left to ask for.
    number: u32,
    /// `LISTEN`: the number of its socket.
    nth: u32,
    socket: ModuleSocket,
    error: ErrorText,
}

/// The address and options of a listener that a module asked for.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ModuleSocket {
    /// `UDP` or `TCP`.
    transport: u32,
    v6only: u32,
    address_bytes: u32,
    address: [u8; SOCKET_ADDRESS_BYTES],
}

const UDP: u32 = 1;
const TCP: u32 = 2;

/// An error in parts of fixed size, so that a long detail cannot push the hint out.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ErrorText {
    exit: u32,
    what: [u8; 512],
    detail: [u8; 2560],
    hint: [u8; 512],
}

impl Message {
    fn new(kind: u32) -> Self {
        Self { kind, ..Self::zeroed() }
    }
}

impl ModuleSocket {
    fn of(address: &Address) -> Option<Self> {
        let (transport, bind) = match address {
            Address::Udp(bind) => (UDP, bind),
            Address::Tcp(bind) => (TCP, bind),
            // A path in the file system is the operator's to choose, not a module's.
            Address::Unixgram(_) | Address::Unix(_) | Address::Control(_) => return None,
        };
        let name = SocketAddress::from(bind.address);
        let mut socket = Self { transport, v6only: u32::from(bind.options.v6only), ..Self::zeroed() };
        socket.address_bytes = name.as_bytes().len() as u32;
        socket.address[..name.as_bytes().len()].copy_from_slice(name.as_bytes());
        Some(socket)
    }

    fn address(&self) -> Option<Address> {
        let bytes = self.address.get(..self.address_bytes as usize)?;
        let address: SocketAddr = SocketAddress::from_bytes(bytes)?.inet()?;
        let options = SocketOptions { v6only: self.v6only != 0, ..SocketOptions::default() };
        let bind = InetBind { address, options };
        match self.transport {
            UDP => Some(Address::Udp(bind)),
            TCP => Some(Address::Tcp(bind)),
            _ => None,
        }
    }
}

impl ErrorText {
    fn of(error: &Error) -> Self {
        Self { exit: u32::from(error.exit), what: fixed(&error.what), detail: fixed(&error.detail), hint: fixed(&error.hint) }
    }

    fn error(&self) -> Error {
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        Error { what: text(&self.what), detail: text(&self.detail), hint: text(&self.hint), exit: self.exit as u8 }
    }
}

/// As much of the text as fits, in whole characters; a NUL would end it and becomes a space.
fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let length = (0..=text.len().min(N)).rev().find(|length| text.is_char_boundary(*length)).unwrap_or(0);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes[..length].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    bytes
}

impl FromMain {
    fn message(&self) -> Result<Message> {
        Ok(match self {
            Self::Listen { listener, nth } => Message { number: *listener, nth: *nth, ..Message::new(LISTEN) },
            Self::ListenForModule(address) => {
                let socket = ModuleSocket::of(address).ok_or_else(|| Error::fault("a module's listener is no UDP or TCP address"))?;
                Message { socket, ..Message::new(LISTEN_FOR_MODULE) }
            }
            Self::ListenForControl => Message::new(LISTEN_FOR_CONTROL),
            Self::Failed(error) => Message { error: ErrorText::of(error), ..Message::new(FAILED) },
            Self::Ready => Message::new(READY),
            Self::Stopping => Message::new(STOPPING),
        })
    }

    fn of(message: &Message) -> Option<Self> {
        Some(match message.kind {
            LISTEN => Self::Listen { listener: message.number, nth: message.nth },
            LISTEN_FOR_MODULE => Self::ListenForModule(message.socket.address()?),
            LISTEN_FOR_CONTROL => Self::ListenForControl,
            FAILED => Self::Failed(message.error.error()),
            READY => Self::Ready,
            STOPPING => Self::Stopping,
            _ => return None,
        })
    }
}

fn send(link: &Link, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
    let descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    link.send(&[IoSlice::new(bytemuck::bytes_of(message))], &descriptors, Wait::Block)
        .map_err(|errno| Error::failed("cannot send to another process of this host").detail(format!("sendmsg: {errno}")))
}

/// What was received.
enum Received {
    Message(Box<Message>, Option<OwnedFd>),
    Nothing,
    Closed,
}

fn receive(link: &Link, wait: Wait) -> Result<Received> {
    let (mut message, mut descriptors) = (Box::new(Message::zeroed()), Vec::new());
    match link.receive(bytemuck::bytes_of_mut(&mut *message), &mut descriptors, wait) {
        Ok(0) | Err(Errno::ECONNRESET) => Ok(Received::Closed),
        Ok(length) if length == size_of::<Message>() => Ok(Received::Message(message, descriptors.pop())),
        Ok(other) => Err(Error::fault("a message between processes has the wrong size").detail(format!("{other} bytes"))),
        Err(Errno::EAGAIN) => Ok(Received::Nothing),
        Err(errno) => Err(Error::failed("cannot receive from another process of this host").detail(format!("recvmsg: {errno}"))),
    }
}

/// Main's end of the link to its supervisor.
#[derive(Debug)]
pub struct SupervisorLink(pub Link);

impl SupervisorLink {
    /// Tells the supervisor.
    pub fn tell(&self, message: &FromMain) -> Result<()> {
        send(&self.0, &message.message()?, None)
    }

    /// What the supervisor has said, if anything. Its death needs no message: it takes main with
    /// it.
    pub fn poll(&self) -> Result<Option<FromSupervisor>> {
        self.receive(Wait::Poll)
    }

    /// Waits for what the supervisor says.
    pub fn wait(&self) -> Result<FromSupervisor> {
        self.receive(Wait::Block)?.ok_or_else(|| Error::failed("the supervisor is gone"))
    }

    fn receive(&self, wait: Wait) -> Result<Option<FromSupervisor>> {
        let (message, descriptor) = match receive(&self.0, wait)? {
            Received::Message(message, descriptor) => (message, descriptor),
            Received::Nothing => return Ok(None),
            Received::Closed => return Err(Error::failed("the supervisor is gone")),
        };
        match (message.kind, descriptor) {
            (SOCKET, Some(descriptor)) => Ok(Some(FromSupervisor::Socket(descriptor, message.number))),
            (REFUSED, _) => Ok(Some(FromSupervisor::Refused(message.error.error()))),
            (STOP, _) => Ok(Some(FromSupervisor::Stop)),
            // The kernel leaves a descriptor out that it cannot give a number to.
            (SOCKET, None) => Err(Error::failed("cannot receive a listener's socket from the supervisor")
                .detail("recvmsg: too many open files, or the kernel's security rules kept it back")
                .hint("raise the limit on open files (ulimit -n)")),
            (kind, _) => Err(Error::fault("the supervisor sent an unknown message").detail(format!("kind {kind}"))),
        }
    }
}

impl AsFd for SupervisorLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The supervisor's end of the link to one main.
#[derive(Debug)]
pub struct MainLink(pub Link);

impl MainLink {
    /// Asks main to stop.
    pub fn stop(&self) -> Result<()> {
        send(&self.0, &Message::new(STOP), None)
    }

    /// Answers a request for a socket: the socket and how many more its listener has, or why it
    /// cannot be had.
    pub fn answer(&self, outcome: &Result<(OwnedFd, u32)>) -> Result<()> {
        match outcome {
            Ok((socket, left)) => send(&self.0, &Message { number: *left, ..Message::new(SOCKET) }, Some(socket.as_fd())),
            Err(error) => send(&self.0, &Message { error: ErrorText::of(error), ..Message::new(REFUSED) }, None),
        }
    }

    /// The next message of main. `None`: nothing is there, or main's end is closed.
    pub fn poll(&self) -> Result<Option<FromMain>> {
        match receive(&self.0, Wait::Poll)? {
            Received::Message(message, _) => match FromMain::of(&message) {
                Some(message) => Ok(Some(message)),
                None => Err(Error::failed("main sent an unknown message").detail(format!("kind {}", message.kind))),
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let long = Error { what: "w".repeat(90), detail: "é".repeat(150), hint: "h".into(), exit: 2 };
        let (main, supervisor) = Link::pair().unwrap();
        let (main, supervisor) = (SupervisorLink(main), MainLink(supervisor));
        let v6 = InetBind {
            options: SocketOptions { v6only: false, ..SocketOptions::default() },
            ..InetBind::with_default_options("[::]:1".parse().unwrap())
        };
        for message in [
            FromMain::Listen { listener: 7, nth: 1 },
            FromMain::ListenForModule(Address::Udp(InetBind::with_default_options("127.0.0.1:5060".parse().unwrap()))),
            FromMain::ListenForModule(Address::Udp(InetBind::with_default_options("[fe80::1%3]:5060".parse().unwrap()))),
            FromMain::ListenForModule(Address::Tcp(v6)),
            FromMain::ListenForControl,
            FromMain::Failed(long),
            FromMain::Failed(Error::failed("only what")),
            FromMain::Ready,
            FromMain::Stopping,
        ] {
            main.tell(&message).unwrap();
            assert_eq!(supervisor.poll().unwrap(), Some(message));
        }
        assert_eq!(supervisor.poll().unwrap(), None);
        assert!(main.tell(&FromMain::ListenForModule(Address::Control("/run/x.sock".into()))).is_err(), "a module cannot ask for a path");
        supervisor.stop().unwrap();
        assert!(matches!(main.wait(), Ok(FromSupervisor::Stop)));
        supervisor.answer(&Err(Error::failed("no"))).unwrap();
        assert!(matches!(main.wait(), Ok(FromSupervisor::Refused(error)) if error.what == "no"));
        supervisor.answer(&Ok((std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), 3))).unwrap();
        assert!(matches!(main.wait(), Ok(FromSupervisor::Socket(_, 3))));
    }

    #[test]
    fn long_texts_keep_whole_characters() {
        let error = Error { what: "é".repeat(400), detail: "x\0y".into(), hint: "h".repeat(600), exit: 1 };
        let read = ErrorText::of(&error).error();
        assert_eq!((read.what.chars().count(), read.detail.as_str(), read.hint.len()), (256, "x y", 512));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), size_of::<Message>())) {
            let message: Message = bytemuck::pod_read_unaligned(&bytes);
            let _ = FromMain::of(&message);
            let _ = message.error.error();
        }
    }
}
