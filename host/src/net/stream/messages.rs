//! The messages between TCP main, the TCP workers and the other processes with a link.
//!
//! *Runs in:* all of them. *Never:* trusts a length or an index from the other end.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::directory::ConnectionId;
use crate::sys::socket::accept::Peer;
use crate::sys::socket::seqpacket::{self, Link, Wait};

/// Most bytes that one `send` carries.
pub const MAX_BYTES: usize = 64 << 10;
/// Most connections in one message.
pub const MAX_CONNECTIONS: usize = seqpacket::MAX_DESCRIPTORS;

const HEAD_BYTES: usize = 32;
const CONNECTION_BYTES: usize = 8 + Peer::MAX_BYTES;
const CONNECTIONS: u32 = 1;
const BYTES: u32 = 2;
const ANSWER: u32 = 3;
/// Room for the longest message.
pub const MESSAGE_BYTES: usize = HEAD_BYTES + MAX_BYTES;

const _: () = assert!(MAX_CONNECTIONS * CONNECTION_BYTES <= MAX_BYTES);

/// A connection between its acceptance and its opening by a worker.
#[derive(Debug)]
pub struct AcceptedConnection {
    pub socket: OwnedFd,
    /// Index of its listener.
    pub listener: u32,
    pub peer: Peer,
}

/// Identifies one call of `stream_send`, so that its answer reaches the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRequest {
    /// `process_no` of the caller.
    pub requester: u32,
    /// Unique in the calling process.
    pub sequence: u64,
    pub id: ConnectionId,
}

#[derive(Debug)]
pub enum LinkMessage<'b> {
    Connections(Vec<AcceptedConnection>),
    /// Bytes for a connection.
    Bytes(SendRequest, &'b [u8]),
    /// `stream_send`'s code.
    Answer(SendRequest, i32),
}

fn head(kind: u32, count: u32, code: i32, request: SendRequest) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[0..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..8].copy_from_slice(&count.to_ne_bytes());
    bytes[8..12].copy_from_slice(&code.to_ne_bytes());
    bytes[12..16].copy_from_slice(&request.requester.to_ne_bytes());
    bytes[16..24].copy_from_slice(&request.sequence.to_ne_bytes());
    bytes[24..32].copy_from_slice(&request.id.0.to_ne_bytes());
    bytes
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        number.copy_from_slice(found);
    }
    number
}

const NO_REQUEST: SendRequest = SendRequest { requester: 0, sequence: 0, id: ConnectionId(0) };

/// On success the receiver owns the connections; the caller drops its descriptors.
pub fn send_connections(link: &Link, connections: &[AcceptedConnection]) -> Result<(), Errno> {
    let mut entries = Vec::with_capacity(connections.len() * CONNECTION_BYTES);
    for connection in connections {
        entries.extend_from_slice(&connection.listener.to_ne_bytes());
        entries.extend_from_slice(&connection.peer.len_bytes().to_ne_bytes());
        entries.extend_from_slice(connection.peer.whole());
    }
    let descriptors: Vec<_> = connections.iter().map(|connection| connection.socket.as_raw_fd()).collect();
    let head = head(CONNECTIONS, connections.len() as u32, 0, NO_REQUEST);
    link.send(&[IoSlice::new(&head), IoSlice::new(&entries)], &descriptors, Wait::Poll)
}

pub fn send_bytes(link: &Link, request: SendRequest, bytes: &[u8]) -> Result<(), Errno> {
    let head = head(BYTES, bytes.len() as u32, 0, request);
    link.send(&[IoSlice::new(&head), IoSlice::new(bytes)], &[], Wait::Poll)
}

pub fn send_answer(link: &Link, request: SendRequest, code: i32) -> Result<(), Errno> {
    link.send(&[IoSlice::new(&head(ANSWER, 0, code, request))], &[], Wait::Poll)
}

/// Receives one message into `buffer`, which has `MESSAGE_BYTES`.
///
/// # Errors
/// `EAGAIN`: the link is empty. `EBADMSG`: the message is malformed and was dropped. `EPIPE`: the
/// other end is closed.
pub fn receive<'b>(link: &Link, buffer: &'b mut [u8]) -> Result<LinkMessage<'b>, Errno> {
    let mut descriptors = Vec::new();
    let length = link.receive(buffer, &mut descriptors, Wait::Poll)?;
    let bytes = &buffer[..length];
    if length == 0 {
        return Err(Errno::EPIPE);
    }
    if length < HEAD_BYTES {
        return Err(Errno::EBADMSG);
    }
    let body = &bytes[HEAD_BYTES..];
    let count = u32::from_ne_bytes(number(bytes, 4)) as usize;
    let request = SendRequest {
        requester: u32::from_ne_bytes(number(bytes, 12)),
        sequence: u64::from_ne_bytes(number(bytes, 16)),
        id: ConnectionId(u64::from_ne_bytes(number(bytes, 24))),
    };
    match u32::from_ne_bytes(number(bytes, 0)) {
        CONNECTIONS if count == descriptors.len() && body.len() == count * CONNECTION_BYTES => {
            let connections = descriptors.into_iter().zip(body.chunks_exact(CONNECTION_BYTES)).map(|(socket, entry)| AcceptedConnection {
                socket,
                listener: u32::from_ne_bytes(number(entry, 0)),
                peer: Peer::new(&entry[8..], u32::from_ne_bytes(number(entry, 4))),
            });
            Ok(LinkMessage::Connections(connections.collect()))
        }
        BYTES if body.len() == count => Ok(LinkMessage::Bytes(request, body)),
        ANSWER => Ok(LinkMessage::Answer(request, i32::from_ne_bytes(number(bytes, 8)))),
        _ => Err(Errno::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let (one, other) = Link::pair().unwrap();
        let mut buffer = vec![0; MESSAGE_BYTES];
        let request = SendRequest { requester: 7, sequence: u64::MAX, id: ConnectionId(42) };
        let long = vec![b'x'; MAX_BYTES];
        send_bytes(&one, request, &long).unwrap();
        send_answer(&one, request, -10).unwrap();
        let (file, _keep) = std::os::unix::net::UnixStream::pair().unwrap();
        let connections: Vec<AcceptedConnection> = (0..MAX_CONNECTIONS as u32)
            .map(|listener| AcceptedConnection { socket: file.try_clone().unwrap().into(), listener, peer: Peer::new(&[1, 2, 3, 4], 4) })
            .collect();
        send_connections(&one, &connections).unwrap();
        assert!(matches!(receive(&other, &mut buffer), Ok(LinkMessage::Bytes(got, bytes)) if got == request && bytes == long));
        assert!(matches!(receive(&other, &mut buffer), Ok(LinkMessage::Answer(got, -10)) if got == request));
        let Ok(LinkMessage::Connections(got)) = receive(&other, &mut buffer) else { panic!("no connections") };
        assert_eq!(got.len(), MAX_CONNECTIONS);
        assert_eq!(got[5].listener, 5);
        assert_eq!(got[5].peer.bytes(), [1, 2, 3, 4]);
        assert!(matches!(receive(&other, &mut buffer), Err(Errno::EAGAIN)));
        // Malformed messages are dropped, with their descriptors.
        one.send(&[IoSlice::new(b"short")], &[], Wait::Poll).unwrap();
        one.send(&[IoSlice::new(&[9; 100])], &[], Wait::Poll).unwrap();
        one.send(&[IoSlice::new(&head(CONNECTIONS, 2, 0, NO_REQUEST))], &[file.as_raw_fd()], Wait::Poll).unwrap();
        for _ in 0..3 {
            assert!(matches!(receive(&other, &mut buffer), Err(Errno::EBADMSG)));
        }
        drop(one);
        assert!(matches!(receive(&other, &mut buffer), Err(Errno::EPIPE)));
    }
}
