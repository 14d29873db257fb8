//! The messages between TCP main, the TCP workers and the other processes with a link.
//!
//! *Runs in:* all of them. *Never:* trusts a length or an index from the other end.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

use super::directory::ConnectionId;
use crate::sys::socket::accept::Peer;
use crate::sys::socket::seqpacket::{self, Link, Wait};

/// Most bytes that one `send` carries.
pub const MAX_BYTES: usize = 64 << 10;
/// Most connections in one message.
pub const MAX_CONNECTIONS: usize = seqpacket::MAX_DESCRIPTORS;

const CONNECTIONS: u32 = 1;
const BYTES: u32 = 2;
const ANSWER: u32 = 3;
/// Room for the longest message.
pub const MESSAGE_BYTES: usize = size_of::<Head>() + MAX_BYTES;

const _: () = assert!(MAX_CONNECTIONS * size_of::<ConnectionEntry>() <= MAX_BYTES);

/// Every message begins with this. Fields that its kind does not use are zero.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    kind: u32,
    /// `CONNECTIONS`: entries that follow. `BYTES`: bytes that follow.
    count: u32,
    /// `ANSWER`: the code.
    code: i32,
    requester: u32,
    sequence: u64,
    id: u64,
}

/// One of `CONNECTIONS`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ConnectionEntry {
    listener: u32,
    peer_bytes: u32,
    peer: [u8; Peer::MAX_BYTES],
}

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

impl Head {
    fn of(kind: u32, count: usize, code: i32, request: SendRequest) -> Self {
        Self { kind, count: count as u32, code, requester: request.requester, sequence: request.sequence, id: request.id.0 }
    }
}

/// On success the receiver owns the connections; the caller drops its descriptors.
pub fn send_connections(link: &Link, connections: &[AcceptedConnection]) -> Result<(), Errno> {
    let entry = |connection: &AcceptedConnection| ConnectionEntry {
        listener: connection.listener,
        peer_bytes: connection.peer.len_bytes(),
        peer: *connection.peer.whole(),
    };
    let entries: Vec<_> = connections.iter().map(entry).collect();
    let descriptors: Vec<_> = connections.iter().map(|connection| connection.socket.as_raw_fd()).collect();
    let head = Head { kind: CONNECTIONS, count: connections.len() as u32, ..Head::zeroed() };
    let parts = [bytemuck::bytes_of(&head), bytemuck::cast_slice(&entries)].map(IoSlice::new);
    link.send(&parts, &descriptors, Wait::Poll)
}

pub fn send_bytes(link: &Link, request: SendRequest, bytes: &[u8]) -> Result<(), Errno> {
    let head = Head::of(BYTES, bytes.len(), 0, request);
    link.send(&[bytemuck::bytes_of(&head), bytes].map(IoSlice::new), &[], Wait::Poll)
}

pub fn send_answer(link: &Link, request: SendRequest, code: i32) -> Result<(), Errno> {
    let head = Head::of(ANSWER, 0, code, request);
    link.send(&[IoSlice::new(bytemuck::bytes_of(&head))], &[], Wait::Poll)
}

/// Receives one message into `buffer`, which has `MESSAGE_BYTES`.
///
/// # Errors
/// `EAGAIN`: the link is empty. `EBADMSG`: the message is malformed and was dropped. `EPIPE`: the
/// other end is closed.
pub fn receive<'b>(link: &Link, buffer: &'b mut [u8]) -> Result<LinkMessage<'b>, Errno> {
    let mut descriptors = Vec::new();
    let length = link.receive(buffer, &mut descriptors, Wait::Poll)?;
    if length == 0 {
        return Err(Errno::EPIPE);
    }
    let (head, body) = buffer[..length].split_at_checked(size_of::<Head>()).ok_or(Errno::EBADMSG)?;
    let head: Head = bytemuck::pod_read_unaligned(head);
    let count = head.count as usize;
    let request = SendRequest { requester: head.requester, sequence: head.sequence, id: ConnectionId(head.id) };
    match head.kind {
        CONNECTIONS if count == descriptors.len() && body.len() == count * size_of::<ConnectionEntry>() => {
            let entries = body.chunks_exact(size_of::<ConnectionEntry>()).map(bytemuck::pod_read_unaligned::<ConnectionEntry>);
            let connections = descriptors.into_iter().zip(entries).map(|(socket, entry)| AcceptedConnection {
                socket,
                listener: entry.listener,
                peer: Peer::new(&entry.peer, entry.peer_bytes),
            });
            Ok(LinkMessage::Connections(connections.collect()))
        }
        BYTES if body.len() == count => Ok(LinkMessage::Bytes(request, body)),
        ANSWER => Ok(LinkMessage::Answer(request, head.code)),
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
        let head = Head { kind: CONNECTIONS, count: 2, ..Head::zeroed() };
        one.send(&[IoSlice::new(bytemuck::bytes_of(&head))], &[file.as_raw_fd()], Wait::Poll).unwrap();
        for _ in 0..3 {
            assert!(matches!(receive(&other, &mut buffer), Err(Errno::EBADMSG)));
        }
        drop(one);
        assert!(matches!(receive(&other, &mut buffer), Err(Errno::EPIPE)));
    }
}
