//! Serving datagrams: receive a batch, call the handler, send the answers.
//!
//! *Runs in:* UDP workers; main in no-fork mode. *Never:* allocates per datagram; never ends the
//! process because of what a sender has sent.

use std::fmt;

use module_api::abi::UdpBatch;
use nix::errno::Errno;

use super::listener::{DatagramService, Listener};
use crate::error::{EXIT_FAILED, EXIT_FAULT, EXIT_OK, Result};
use crate::module::call::{self, CallSite};
use crate::process::phase::Phase;
use crate::stats::{HostCounter, HostCounters};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::signal;
use crate::sys::socket::readiness::ReadySockets;
use crate::sys::udp::datagrams::{Datagrams, ReceiveWait};
use crate::sys::udp::socket::Socket;

#[derive(Debug)]
pub struct DatagramServer {
    datagrams: &'static Datagrams,
    counts: HostCounters,
    site: CallSite,
}

/// The process must end with this code, because a handler failed or the system refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaveUp(pub u8);

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a handler ended its process with code {}", self.0)
    }
}

/// Serves until the process is to stop. Returns the exit code.
pub fn work(listener: &Listener, service: &DatagramService) -> u8 {
    let server = match signal::stop_by_flag().and_then(|()| DatagramServer::new()) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("{error}");
            return EXIT_FAILED;
        }
    };
    let outcome = match listener.sockets.as_slice() {
        // A single socket needs no epoll: the call that receives waits. See decision 0012.
        [socket] => work_at_one(&server, listener, service, socket),
        sockets => work_at_several(&server, listener, service, sockets),
    };
    match outcome {
        Ok(()) => EXIT_OK,
        Err(GaveUp(code)) => code,
    }
}

fn work_at_one(server: &DatagramServer, listener: &Listener, service: &DatagramService, socket: &Socket) -> Result<(), GaveUp> {
    while !signal::stop_requested() {
        server.serve(listener, service, socket, ReceiveWait::Block)?;
    }
    Ok(())
}

fn work_at_several(server: &DatagramServer, listener: &Listener, service: &DatagramService, sockets: &[Socket]) -> Result<(), GaveUp> {
    let mut ready = ReadySockets::watch(sockets).map_err(|error| {
        tracing::error!("{error}");
        GaveUp(EXIT_FAILED)
    })?;
    while !signal::stop_requested() {
        let found = ready.wait().map_err(|errno| {
            tracing::error!("cannot wait for datagrams listener=\"{listener}\": epoll_wait: {errno}");
            GaveUp(EXIT_FAILED)
        })?;
        for socket in found.filter_map(|index| sockets.get(index)) {
            server.serve(listener, service, socket, ReceiveWait::Poll)?;
        }
    }
    Ok(())
}

impl DatagramServer {
    #[inline(always)]
    pub fn new() -> Result<Self> {
        Ok(Self { datagrams: Datagrams::new()?, counts: HostCounters::of_this_process(), site: CallSite::here() })
    }

    /// Serves one batch that arrived at one socket of the listener.
    #[inline(always)]
    pub fn serve(&self, listener: &Listener, service: &DatagramService, socket: &Socket, wait: ReceiveWait) -> Result<(), GaveUp> {
        let datagrams = self.datagrams;
        match datagrams.receive(socket, listener.index, wait) {
            Ok(0) => {
                log_too_long(listener, datagrams.take_too_long());
                return Ok(());
            }
            Ok(received) => {
                self.counts.add(HostCounter::Received, received as u64);
                self.counts.add(HostCounter::Batches, 1);
            }
            Err(errno) => return receive_failed(listener, errno),
        }
        let batch = datagrams.batch();
        let process = this_process();
        process.serve(Some(datagrams));
        let code = self.site.enter(listener.module, Phase::Handler, || (service.on_datagrams)(batch));
        // Also if the handler has failed: its clients get what it queued before.
        datagrams.send_queued();
        process.serve(None);
        let (sent, refused) = datagrams.take_sent();
        self.counts.add(HostCounter::Sent, sent);
        if refused > 0 {
            self.counts.add(HostCounter::Refused, refused);
            tracing::debug!("answers could not be sent listener=\"{listener}\" count={refused}");
        }
        log_too_long(listener, datagrams.take_too_long());
        if code < 0 { Err(gave_up(listener, code)) } else { Ok(()) }
    }
}

fn log_too_long(listener: &Listener, count: u32) {
    if count > 0 {
        tracing::debug!("datagrams were longer than 65507 bytes and are left out listener=\"{listener}\" count={count}");
    }
}

/// The buffers of a batch, if it is the one that this process is handling now.
#[inline(always)]
pub fn serving(batch: *mut UdpBatch) -> Option<&'static Datagrams> {
    this_process().serving().filter(|datagrams| datagrams.batch() == batch)
}

/// Errors that the kernel reports for earlier answers do not end the process.
#[cold]
fn receive_failed(listener: &Listener, errno: Errno) -> Result<(), GaveUp> {
    match errno {
        Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENOMEM | Errno::ENOBUFS => {
            tracing::debug!("receiving was interrupted listener=\"{listener}\": recvmmsg: {errno}");
            Ok(())
        }
        errno => {
            tracing::error!("cannot receive listener=\"{listener}\": recvmmsg: {errno}");
            Err(GaveUp(EXIT_FAILED))
        }
    }
}

/// After a failure or a panic the process ends, so that its replacement starts clean.
#[cold]
fn gave_up(listener: &Listener, code: i32) -> GaveUp {
    let (module, handler) = (&listener.module.name, &listener.handler);
    let text = call::error_text();
    call::ends_after(listener.module, Phase::Handler);
    if code == module_api::abi::E_PANIC {
        tracing::error!("a datagram handler panicked module=\"{module}\" handler=\"{handler}\" error=\"{text}\"");
        GaveUp(EXIT_FAULT)
    } else {
        tracing::error!("a datagram handler failed module=\"{module}\" handler=\"{handler}\" code={code} error=\"{text}\"");
        GaveUp(EXIT_FAILED)
    }
}
