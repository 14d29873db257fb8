//! A process of the fake host: its identity, its child state, and the calls into the module.

use std::net::SocketAddr;

use super::stream::{Dial, FakeStream};
use super::table::{self, RawBatch};
use super::{Failure, Running};
use crate::abi::{self, ProcessInfo};
use crate::export::Exported;
use crate::fake::FakeMutex;
use crate::process::Rank;
use crate::sockaddr::RawAddress;
use crate::{Batch, Result};

/// Longest datagram, in bytes.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// A process of a [`Running`] host, with its own child state.
///
/// What ends a real process also ends this one: an error or a panic of a handler or of an entry
/// function, and a panic of a timer function. After that each call fails, until
/// [`restart`](Child::restart). For a lock that it held when it panicked, the next owner is told
/// that the last one died.
pub struct Child<'h, M: Exported> {
    host: &'h Running<M>,
    info: ProcessInfo,
    state: Option<M::Child>,
    ended: bool,
    listener: u32,
}

impl<'h, M: Exported> Child<'h, M> {
    pub(super) fn new(host: &'h Running<M>, info: ProcessInfo) -> Result<Child<'h, M>, Failure> {
        let mut child = Child::bare(host, info);
        child.init()?;
        Ok(child)
    }

    /// Without `child_init`.
    pub(super) fn bare(host: &'h Running<M>, info: ProcessInfo) -> Child<'h, M> {
        Child { host, info, state: None, ended: false, listener: 0 }
    }

    fn init(&mut self) -> Result<(), Failure> {
        if self.host.exports.header.flags & abi::FLAG_NO_CHILD_INIT != 0 {
            return Ok(());
        }
        let rank = self.info.rank;
        let init_child_f = self.host.exports.init_child_f;
        self.call("child_init", Ends::WithError, || init_child_f.map_or(abi::E_FAILED, |init_child_f| init_child_f(rank)))
    }

    /// Rank of the process.
    pub fn rank(&self) -> Rank {
        Rank::new(self.info.rank)
    }

    /// Index in the process table.
    pub fn process_no(&self) -> usize {
        self.info.process_no.unsigned_abs() as usize
    }

    /// Whether an error or a panic has ended it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The module's child state of this process; none if it has ended, or never had a `child_init`.
    pub fn state(&self) -> Option<&M::Child> {
        self.state.as_ref()
    }

    /// Makes later datagrams and connections arrive at the listener with this number, instead of
    /// the first one.
    pub fn at_listener(&mut self, number: u32) -> &mut Self {
        self.listener = number;
        self
    }

    /// Ends the process and starts another one in its slot, as a host does: with the same rank and
    /// a new child state.
    ///
    /// # Errors
    /// If `child_init` fails or panics.
    pub fn restart(&mut self) -> Result<(), Failure> {
        (self.state, self.ended) = (None, false);
        self.lose_connections();
        self.info.restarts += 1;
        let (process_no, restarts) = (self.process_no(), self.info.restarts);
        self.host.fake(|fake| {
            if let Some(row) = fake.processes.get_mut(process_no) {
                row.restarts = restarts;
            }
        });
        self.init()
    }

    /// Calls the handler of that name with one batch: sender and data of each datagram. Returns the
    /// answers in the order in which they were given.
    ///
    /// # Errors
    /// If the handler fails or panics, there is no such handler, the batch is empty, or a datagram
    /// is longer than 65,507 bytes.
    pub fn datagrams(&mut self, handler: &str, datagrams: &[(SocketAddr, impl AsRef<[u8]>)]) -> Result<Vec<Answer>, Failure> {
        let function = table::handler(self.host.exports, handler).map_err(|text| self.host.failure(handler, text))?;
        self.serve(handler, datagrams, |batch| function(batch.as_ptr()))
    }

    /// As [`datagrams`](Child::datagrams), for a function that need not be an exported handler.
    ///
    /// # Errors
    /// As [`datagrams`](Child::datagrams).
    pub fn serve_with<H>(&mut self, handler: H, datagrams: &[(SocketAddr, impl AsRef<[u8]>)]) -> Result<Vec<Answer>, Failure>
    where
        H: for<'b> Fn(&'b M, &mut M::Child, &Batch<'b>) -> Result<()>,
    {
        self.serve("handler", datagrams, |batch| table::call::<M, H>(batch, handler))
    }

    fn serve(
        &mut self,
        name: &str,
        datagrams: &[(SocketAddr, impl AsRef<[u8]>)],
        call: impl FnOnce(&mut RawBatch<'_>) -> i32,
    ) -> Result<Vec<Answer>, Failure> {
        if datagrams.is_empty() || datagrams.iter().any(|(_, data)| data.as_ref().len() > MAX_DATAGRAM_BYTES) {
            return Err(self.host.failure(name, format!("a host passes at least one datagram, and none above {MAX_DATAGRAM_BYTES} bytes")));
        }
        let peers: Vec<RawAddress> = datagrams.iter().map(|(peer, _)| RawAddress::inet(*peer)).collect();
        let mut batch = RawBatch::new(self.listener, peers.iter().zip(datagrams.iter().map(|(_, data)| data.as_ref())));
        self.host.fake(|fake| fake.replies.clear());
        self.call(name, Ends::WithError, || call(&mut batch))?;
        let replies = self.host.fake(|fake| std::mem::take(&mut fake.replies));
        let answer = |(datagram, data, _): (u32, Vec<u8>, _)| {
            let datagram = datagram as usize;
            Answer { datagram, to: datagrams[datagram].0, data }
        };
        Ok(replies.into_iter().map(answer).collect())
    }

    /// Calls the timer function of that name, as if `expirations` of its periods were due. An error
    /// does not end the process: a host logs it.
    ///
    /// # Errors
    /// If the function fails or panics, or there is no such timer.
    pub fn fire_timer(&mut self, name: &str, expirations: u64) -> Result<(), Failure> {
        let found = self.host.fake(|fake| fake.timer_names.iter().position(|timer| timer == name).map(|index| fake.timers[index]));
        let Some(timer) = found else {
            let names: Vec<String> = self.host.timers().into_iter().map(|timer| timer.name).collect();
            return Err(self.host.failure(name, format!("there is no timer \"{name}\", only {names:?}")));
        };
        self.call(name, Ends::WithPanic, || (timer.function)(timer.data, expirations))
    }

    /// Ends the connections of this process, as its end does.
    fn lose_connections(&self) {
        let process_no = self.info.process_no;
        self.host.fake(|fake| fake.connections.retain(|_, connection| connection.process_no != process_no));
    }

    /// Connects a client to the stream handler of that name. It reads everything that it gets; see
    /// [`Dial`] for other clients.
    ///
    /// # Errors
    /// If there is no such handler, the handler panics, or the process has ended. An error of
    /// `open` closes the connection at once.
    pub fn connect(&mut self, handler: &str) -> Result<FakeStream, Failure> {
        self.dial(&Dial::new(handler))
    }

    /// As [`connect`](Child::connect), for the client that `dial` describes.
    ///
    /// # Errors
    /// As [`connect`](Child::connect).
    pub fn dial(&mut self, dial: &Dial) -> Result<FakeStream, Failure> {
        let functions = table::stream_handler(self.host.exports, &dial.handler).map_err(|text| self.host.failure(&dial.handler, text))?;
        FakeStream::open(self, dial, functions)
    }

    pub(super) fn host(&self) -> &'h Running<M> {
        self.host
    }

    pub(super) fn info(&self) -> ProcessInfo {
        self.info
    }

    pub(super) fn listener(&self) -> u32 {
        self.listener
    }

    pub(super) fn run(&mut self, name: &str, entry: impl FnOnce() -> i32) -> Result<(), Failure> {
        self.call(name, Ends::WithError, entry)
    }

    /// Makes this process the current one for one call into the module.
    pub(super) fn call(&mut self, step: &str, ends: Ends, function: impl FnOnce() -> i32) -> Result<(), Failure> {
        if self.ended {
            return Err(self.host.failure(step, format!("process {} has ended, and was not restarted", self.info.process_no)));
        }
        let main = self.host.fake(|fake| std::mem::replace(&mut fake.process, self.info));
        M::cell().swap_child(&mut self.state);
        let code = function();
        M::cell().swap_child(&mut self.state);
        self.host.fake(|fake| {
            fake.process = main;
            if code == abi::E_PANIC {
                for lock in fake.mutexes.values_mut() {
                    if matches!(lock, FakeMutex::Held | FakeMutex::HeldDamaged) {
                        *lock = FakeMutex::OwnerDied;
                    }
                }
            }
        });
        if code == abi::E_PANIC || code < 0 && ends == Ends::WithError {
            (self.ended, self.state) = (true, None);
            self.lose_connections();
        }
        self.host.outcome(step, code)
    }
}

/// The outcome of a call that ends the process, besides a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    WithError,
    WithPanic,
}

/// An answer to a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    datagram: usize,
    to: SocketAddr,
    data: Vec<u8>,
}

impl Answer {
    /// Index of the answered datagram in the batch.
    pub fn datagram(&self) -> usize {
        self.datagram
    }

    /// Address that it is sent to.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}
