//! A connection of the fake host: what its client does, and how the handler reacts.

use std::net::SocketAddr;

use super::child::{Child, Ends};
use super::{Failure, Running};
use crate::abi::{self, StreamFunctions};
use crate::export::Exported;
use crate::fake;
use crate::sockaddr::RawAddress;
use crate::{CloseReason, Result, StreamId};

/// Describes a client that is about to connect.
///
/// ```
/// # use module_api::testing::Dial;
/// let dial = Dial::new("web").from("[2001:db8::1]:7".parse().unwrap()).output_limit(4096);
/// ```
#[derive(Debug, Clone)]
pub struct Dial {
    pub(super) handler: String,
    peer: SocketAddr,
    output_limit: usize,
    input_limit: usize,
    tls: Option<(String, String)>,
}

impl Dial {
    /// A client for the stream handler of that name, from 192.0.2.1:40000, without TLS, with a
    /// listener's default limits: 256 KiB queued, 1 MiB unused.
    pub fn new(handler: &str) -> Dial {
        let peer = SocketAddr::from(([192, 0, 2, 1], 40_000));
        Dial { handler: handler.to_owned(), peer, output_limit: 256 << 10, input_limit: 1 << 20, tls: None }
    }

    /// Sets the client's address.
    #[must_use]
    pub fn from(self, peer: SocketAddr) -> Dial {
        Dial { peer, ..self }
    }

    /// Sets the high-water mark of the queue, in bytes.
    #[must_use]
    pub fn output_limit(self, bytes: usize) -> Dial {
        Dial { output_limit: bytes, ..self }
    }

    /// Sets how many bytes the handler may leave unused.
    #[must_use]
    pub fn input_limit(self, bytes: usize) -> Dial {
        Dial { input_limit: bytes, ..self }
    }

    /// Connects with TLS: with the agreed application protocol and the server name that the client
    /// asked for. Empty means none.
    #[must_use]
    pub fn tls(self, alpn: &str, server_name: &str) -> Dial {
        Dial { tls: Some((alpn.to_owned(), server_name.to_owned())), ..self }
    }
}

/// The client's end of a connection to a [`Child`]. Each call names the child that serves it.
#[derive(Debug)]
pub struct FakeStream {
    raw: Box<abi::Stream>,
    functions: &'static StreamFunctions,
    /// `raw` points to it.
    _peer: Box<RawAddress>,
    /// `raw` points to them.
    _texts: (String, String),
    handler: String,
    input_limit: usize,
    output_limit: usize,
    unused: Vec<u8>,
    /// Bytes that no call has returned to the test yet.
    received: Vec<u8>,
    /// Whether the client reads.
    reads: bool,
    /// Whether the queue has reached its high-water mark, and not fallen below the low-water mark
    /// since.
    full: bool,
    stopped_by_full: bool,
    ended_sending: bool,
    /// Whether the client has finished sending.
    end_told: bool,
    /// Whether `on_open` has succeeded and `on_close` was not called yet.
    opened: bool,
    over: Option<CloseReason>,
    error: Option<String>,
}

impl FakeStream {
    pub(super) fn open<M: Exported>(
        child: &mut Child<'_, M>,
        dial: &Dial,
        functions: &'static StreamFunctions,
    ) -> Result<FakeStream, Failure> {
        let peer = Box::new(RawAddress::inet(dial.peer));
        let texts = dial.tls.clone().unwrap_or_default();
        let start = |text: &String| if text.is_empty() { std::ptr::null() } else { text.as_ptr() };
        let process_no = child.info().process_no;
        let id = child.host().fake(|fake| {
            fake.connected += 1;
            let connection = fake::stream::Connection { process_no, high_water: dial.output_limit, ..Default::default() };
            fake.connections.insert(fake.connected, connection);
            fake.connected
        });
        let raw = Box::new(abi::Stream {
            size: size_of::<abi::Stream>() as u32,
            listener: child.listener(),
            id,
            peer: peer.as_ptr().cast(),
            peer_len: peer.len(),
            alpn_len: texts.0.len() as u32,
            alpn: start(&texts.0),
            server_name: start(&texts.1),
            server_name_len: texts.1.len() as u32,
            tls: u32::from(dial.tls.is_some()),
            ..abi::Stream::EMPTY
        });
        let mut stream = FakeStream {
            raw,
            functions,
            _peer: peer,
            _texts: texts,
            handler: dial.handler.clone(),
            input_limit: dial.input_limit,
            output_limit: dial.output_limit,
            unused: Vec::new(),
            received: Vec::new(),
            reads: true,
            full: false,
            stopped_by_full: false,
            ended_sending: false,
            end_told: false,
            opened: false,
            over: None,
            error: None,
        };
        if let Some(on_open) = functions.on_open {
            stream.call(child, |raw| i64::from(on_open(raw)))?;
        }
        stream.opened = stream.over != Some(CloseReason::Error);
        stream.settle(child)?;
        Ok(stream)
    }

    /// Id of the connection.
    pub fn id(&self) -> StreamId {
        StreamId::from_number(self.raw.id)
    }

    /// Why the connection is over; none while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.over
    }

    /// Text of the handler's error that closed it.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Number of sent bytes that the handler has not used.
    pub fn unused(&self) -> usize {
        self.unused.len()
    }

    /// Whether the handler has ended its side and everything was sent, or the connection is over.
    pub fn has_ended(&self) -> bool {
        self.ended_sending || self.over.is_some()
    }

    /// Sends `data` as the client. Returns the bytes received since the last call that returned
    /// some; none while the client does not read.
    ///
    /// # Errors
    /// If the handler panics. An error of the handler closes the connection: see
    /// [`error`](FakeStream::error).
    ///
    /// # Panics
    /// If the connection is over; a real client would get a reset.
    #[track_caller]
    pub fn send<M: Exported>(&mut self, child: &mut Child<'_, M>, data: &[u8]) -> Result<Vec<u8>, Failure> {
        assert!(self.over.is_none() && !self.end_told, "the connection is over: {:?}", self.over);
        self.unused.extend_from_slice(data);
        self.give(child)?;
        self.settle(child)?;
        if self.over.is_none() && self.unused.len() >= self.input_limit && self.wants_data(child.host()) {
            self.finish(child, CloseReason::Limit)?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// As [`send`](FakeStream::send), one byte at a time: a handler must not depend on how its data
    /// is cut. Stops when the connection is over.
    ///
    /// # Errors
    /// As [`send`](FakeStream::send).
    pub fn send_bytewise<M: Exported>(&mut self, child: &mut Child<'_, M>, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut received = Vec::new();
        for byte in data {
            if self.over.is_some() {
                break;
            }
            received.extend(self.send(child, &[*byte])?);
        }
        Ok(received)
    }

    /// Finishes sending as the client. Returns the bytes received.
    ///
    /// # Errors
    /// If the handler panics.
    pub fn end<M: Exported>(&mut self, child: &mut Child<'_, M>) -> Result<Vec<u8>, Failure> {
        if self.over.is_none() && !self.end_told {
            self.end_told = true;
            let unused = self.unused.len();
            match self.functions.on_end {
                Some(on_end) => self.call(child, |raw| i64::from(on_end(raw, unused)))?,
                None => child.host().fake(|fake| {
                    if let Some(connection) = fake.connections.get_mut(&self.raw.id) {
                        connection.close.get_or_insert(abi::CLOSE_AFTER_SENDING);
                    }
                }),
            }
            self.settle(child)?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Ends the connection from outside the handler: the client resets it, a time limit expires, or
    /// the worker stops.
    ///
    /// # Errors
    /// If the handler panics.
    pub fn close<M: Exported>(&mut self, child: &mut Child<'_, M>, reason: CloseReason) -> Result<(), Failure> {
        match self.over {
            None => self.finish(child, reason),
            Some(_) => Ok(()),
        }
    }

    /// Makes the client stop reading until [`read`](FakeStream::read): the queue grows up to its
    /// high-water mark.
    pub fn stop_reading(&mut self) {
        self.reads = false;
    }

    /// Makes the client read again. Returns the bytes received since the last call that returned
    /// some.
    ///
    /// # Errors
    /// If the handler, which may queue again, panics.
    pub fn read<M: Exported>(&mut self, child: &mut Child<'_, M>) -> Result<Vec<u8>, Failure> {
        self.reads = true;
        self.settle(child)?;
        Ok(std::mem::take(&mut self.received))
    }

    fn wants_data<M: Exported>(&self, host: &Running<M>) -> bool {
        let ready =
            |connection: &fake::stream::Connection| !connection.paused && matches!(connection.close, None | Some(abi::CLOSE_SENDING_SIDE));
        self.over.is_none() && !self.full && host.fake(|fake| fake.connections.get(&self.raw.id).is_some_and(ready))
    }

    /// Passes the unused bytes to the handler, repeatedly while it uses some and had to stop
    /// because the queue was full.
    fn give<M: Exported>(&mut self, child: &mut Child<'_, M>) -> Result<(), Failure> {
        while !self.unused.is_empty() && self.wants_data(child.host()) {
            let data = std::mem::take(&mut self.unused);
            let Some(on_data) = self.functions.on_data else { return Err(child.host().failure(&self.handler, "it has no on_data".into())) };
            let mut used = 0;
            let outcome = self.call(child, |raw| {
                let code = on_data(raw, data.as_ptr(), data.len());
                used = usize::try_from(code).unwrap_or(0);
                code.min(0)
            });
            self.unused = data[used..].to_vec();
            outcome?;
            let refused = child
                .host()
                .fake(|fake| fake.connections.get_mut(&self.raw.id).is_some_and(|connection| std::mem::take(&mut connection.refused)));
            self.stopped_by_full = refused && self.full;
            if !refused {
                break;
            }
        }
        Ok(())
    }

    /// Calls the handler once. An error closes the connection.
    fn call<M: Exported>(&mut self, child: &mut Child<'_, M>, function: impl FnOnce(*mut abi::Stream) -> i64) -> Result<(), Failure> {
        let raw = &raw mut *self.raw;
        let id = self.raw.id;
        child.host().fake(|fake| fake.stream_call = Some((raw.addr(), id)));
        let outcome = child.call(&self.handler.clone(), Ends::WithPanic, || i32::try_from(function(raw)).unwrap_or(abi::E_FAILED));
        child.host().fake(|fake| fake.stream_call = None);
        if let Err(failure) = outcome {
            if child.has_ended() {
                self.over = Some(CloseReason::Error);
                return Err(failure);
            }
            self.error = Some(failure.text().to_owned());
            self.over = Some(CloseReason::Error);
        }
        self.deliver(child.host());
        Ok(())
    }

    /// Delivers the queue to the client, if it reads.
    fn deliver<M: Exported>(&mut self, host: &Running<M>) {
        host.fake(|fake| {
            let Some(connection) = fake.connections.get_mut(&self.raw.id) else { return };
            if self.reads {
                self.received.append(&mut connection.queue);
            }
            self.full = match self.full {
                true => connection.queue.len() > self.output_limit / 4,
                false => connection.queue.len() >= self.output_limit,
            };
        });
    }

    /// To be called after every event: makes the calls that the handler waits for, and ends the
    /// connection if it is to end.
    fn settle<M: Exported>(&mut self, child: &mut Child<'_, M>) -> Result<(), Failure> {
        loop {
            let was_full = self.full;
            self.deliver(child.host());
            let room = was_full && !self.full && self.over.is_none();
            if let Some(on_writable) = self.functions.on_writable.filter(|_| room) {
                self.call(child, |raw| i64::from(on_writable(raw)))?;
            }
            let again = (room || self.stopped_by_full) && !self.full && !self.unused.is_empty();
            if !again {
                break;
            }
            self.stopped_by_full = false;
            self.give(child)?;
        }
        let state = |connection: &fake::stream::Connection| (connection.close, connection.queue.is_empty(), connection.cut_off);
        let Some((close, sent, cut_off)) = child.host().fake(|fake| fake.connections.get(&self.raw.id).map(state)) else { return Ok(()) };
        self.ended_sending |= close.is_some() && sent;
        let reason = match (self.over, close) {
            (Some(reason), _) => Some(reason),
            (None, _) if cut_off => Some(CloseReason::Peer),
            (None, Some(abi::CLOSE_NOW)) => Some(CloseReason::Normal),
            (None, Some(abi::CLOSE_AFTER_SENDING)) if sent => Some(CloseReason::Normal),
            (None, Some(abi::CLOSE_SENDING_SIDE)) if sent && self.end_told => Some(CloseReason::Normal),
            _ => None,
        };
        reason.map_or(Ok(()), |reason| self.finish(child, reason))
    }

    /// Ends the connection and tells the handler, once.
    fn finish<M: Exported>(&mut self, child: &mut Child<'_, M>, reason: CloseReason) -> Result<(), Failure> {
        self.over = Some(reason);
        let known = child.host().fake(|fake| fake.connections.remove(&self.raw.id).is_some());
        if let Some(on_close) = self.functions.on_close.filter(|_| self.opened && known) {
            self.opened = false;
            return self.call(child, |raw| {
                on_close(raw, reason.number());
                0
            });
        }
        Ok(())
    }
}
