//! The messages between TCP main, the TCP workers and the processes with a link.
//!
//! *Runs in:* all of them. *Never:* believes a length or an index from the other end.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::directory::Id;
use crate::sys::socket::accept::Peer;
use crate::sys::socket::seqpacket::{self, Link, Wait};

/// Most bytes that one `send` carries.
pub const MAX_BYTES: usize = 64 << 10;
/// Most connections of one message.
pub const MAX_ARRIVALS: usize = seqpacket::MAX_DESCRIPTORS;

const HEAD_BYTES: usize = 32;
const ARRIVAL_BYTES: usize = 8 + Peer::MAX_BYTES;
const ARRIVALS: u32 = 1;
const BYTES: u32 = 2;
const ANSWER: u32 = 3;
/// Room for the longest message.
pub const MESSAGE_BYTES: usize = HEAD_BYTES + MAX_BYTES;

const _: () = assert!(MAX_ARRIVALS * ARRIVAL_BYTES <= MAX_BYTES);

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub socket: OwnedFd,
    /// The place of the listener that it was accepted from.
    pub listener: u32,
    /// Who is at the other end.
    pub peer: Peer,
}

/// Who asked, so that the answer finds its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// `process_no` of the asking process.
    pub requester: u32,
    /// Its number for the question.
    pub sequence: u64,
    /// The connection.
    pub id: Id,
}

/// A message.
#[derive(Debug)]
pub enum Message<'b> {
    /// New connections.
    Arrivals(Vec<Arrival>),
    /// Bytes for a connection.
    Bytes(Request, &'b [u8]),
    /// What became of them.
    Answer(Request, i32),
}

fn head(kind: u32, count: u32, code: i32, request: Request) -> [u8; HEAD_BYTES] {
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

const NOBODY: Request = Request { requester: 0, sequence: 0, id: Id(0) };

/// Sends connections. On success they are the receiver's; the caller drops its own descriptors.
pub fn send_arrivals(link: &Link, arrivals: &[Arrival]) -> Result<(), Errno> {
    let mut entries = Vec::with_capacity(arrivals.len() * ARRIVAL_BYTES);
    for arrival in arrivals {
        entries.extend_from_slice(&arrival.listener.to_ne_bytes());
        entries.extend_from_slice(&arrival.peer.len_bytes().to_ne_bytes());
        entries.extend_from_slice(arrival.peer.whole());
    }
    let descriptors: Vec<_> = arrivals.iter().map(|arrival| arrival.socket.as_raw_fd()).collect();
    let head = head(ARRIVALS, arrivals.len() as u32, 0, NOBODY);
    link.send(&[IoSlice::new(&head), IoSlice::new(&entries)], &descriptors, Wait::Poll)
}

/// Sends bytes for a connection.
pub fn send_bytes(link: &Link, request: Request, bytes: &[u8]) -> Result<(), Errno> {
    let head = head(BYTES, bytes.len() as u32, 0, request);
    link.send(&[IoSlice::new(&head), IoSlice::new(bytes)], &[], Wait::Poll)
}

/// Sends what became of them.
pub fn send_answer(link: &Link, request: Request, code: i32) -> Result<(), Errno> {
    link.send(&[IoSlice::new(&head(ANSWER, 0, code, request))], &[], Wait::Poll)
}

/// Receives one message into `buffer`, which has `MESSAGE_BYTES`. `EAGAIN`: nothing is there. `EBADMSG`: it makes no sense, and is dropped.
pub fn receive<'b>(link: &Link, buffer: &'b mut [u8]) -> Result<Message<'b>, Errno> {
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
    let request = Request {
        requester: u32::from_ne_bytes(number(bytes, 12)),
        sequence: u64::from_ne_bytes(number(bytes, 16)),
        id: Id(u64::from_ne_bytes(number(bytes, 24))),
    };
    match u32::from_ne_bytes(number(bytes, 0)) {
        ARRIVALS if count == descriptors.len() && body.len() == count * ARRIVAL_BYTES => {
            let arrivals = descriptors.into_iter().zip(body.chunks_exact(ARRIVAL_BYTES)).map(|(socket, entry)| Arrival {
                socket,
                listener: u32::from_ne_bytes(number(entry, 0)),
                peer: Peer::new(&entry[8..], u32::from_ne_bytes(number(entry, 4))),
            });
            Ok(Message::Arrivals(arrivals.collect()))
        }
        BYTES if body.len() == count => Ok(Message::Bytes(request, body)),
        ANSWER => Ok(Message::Answer(request, i32::from_ne_bytes(number(bytes, 8)))),
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
        let request = Request { requester: 7, sequence: u64::MAX, id: Id(42) };
        let long = vec![b'x'; MAX_BYTES];
        send_bytes(&one, request, &long).unwrap();
        send_answer(&one, request, -10).unwrap();
        let (file, _keep) = std::os::unix::net::UnixStream::pair().unwrap();
        let arrivals: Vec<Arrival> = (0..MAX_ARRIVALS as u32)
            .map(|listener| Arrival { socket: file.try_clone().unwrap().into(), listener, peer: Peer::new(&[1, 2, 3, 4], 4) })
            .collect();
        send_arrivals(&one, &arrivals).unwrap();
        assert!(matches!(receive(&other, &mut buffer), Ok(Message::Bytes(got, bytes)) if got == request && bytes == long));
        assert!(matches!(receive(&other, &mut buffer), Ok(Message::Answer(got, -10)) if got == request));
        let Ok(Message::Arrivals(got)) = receive(&other, &mut buffer) else { panic!("no arrivals") };
        assert_eq!(got.len(), MAX_ARRIVALS);
        assert_eq!(got[5].listener, 5);
        assert_eq!(got[5].peer.bytes(), [1, 2, 3, 4]);
        assert!(matches!(receive(&other, &mut buffer), Err(Errno::EAGAIN)));
        // What makes no sense is dropped, with its descriptors.
        one.send(&[IoSlice::new(b"short")], &[], Wait::Poll).unwrap();
        one.send(&[IoSlice::new(&[9; 100])], &[], Wait::Poll).unwrap();
        one.send(&[IoSlice::new(&head(ARRIVALS, 2, 0, NOBODY))], &[file.as_raw_fd()], Wait::Poll).unwrap();
        for _ in 0..3 {
            assert!(matches!(receive(&other, &mut buffer), Err(Errno::EBADMSG)));
        }
        drop(one);
        assert!(matches!(receive(&other, &mut buffer), Err(Errno::EPIPE)));
    }
}
