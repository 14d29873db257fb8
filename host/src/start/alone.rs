//! No-fork mode: this very process is main, without a supervisor, and serves every listener itself.
//!
//! *Runs in:* main in no-fork mode. *Never:* forks anything but the timers and what modules
//! register.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use super::life::{Foundation, Halt, Life};
use super::sequence::Ready;
use crate::error::{EXIT_FAILED, EXIT_OK, Result};
use crate::net::bind;
use crate::net::listener::Service;
use crate::net::stream::server::ConnectionServer;
use crate::net::udp::{DatagramServer, GaveUp};
use crate::plan::Plan;
use crate::process::slots::Slots;
use crate::process::watch::{Event, Watch};
use crate::state::State;
use crate::supervise::certificates::{Certificates, Judge};
use crate::supervise::pid_file::PidFile;
use crate::sys::process::signal::Signals;
use crate::sys::udp::datagrams::ReceiveWait;
use crate::tls::CertificateSource;

/// The whole life of a host without forked workers. Returns its exit code, or why it could not
/// start.
pub fn no_fork(plan: Arc<Plan>, signals: Signals, started_ns: u64) -> Result<u8> {
    let pid_file = plan.config.host.pid_file.as_deref().map(PidFile::claim).transpose()?;
    let outcome = live(plan, signals, started_ns, pid_file.as_ref());
    if let Some(pid_file) = pid_file {
        pid_file.remove();
    }
    outcome
}

fn live(plan: Arc<Plan>, signals: Signals, started_ns: u64, pid_file: Option<&PidFile>) -> Result<u8> {
    let certificates = Certificates::of(plan.tls(), Judge::Here)?;
    let source = |of: &Certificates| Ok(CertificateSource { reader: of.vault().reader().try_clone()?, files: of.files().clone() });
    let tls = certificates.as_ref().map(source).transpose()?;
    let foundation = Foundation::make(&plan, Slots::new()?)?;
    let mut life = Life::new(plan, Watch::new(signals, None), foundation, tls, started_ns);
    life.own = pid_file.iter().map(|pid_file| pid_file.file().as_raw_fd()).collect();
    life.own.extend(certificates.iter().flat_map(|of| of.vault().descriptors()));
    life.certificates = certificates;
    let outcome = match life.start() {
        Ok(ready) => Ok(serve(&mut life, &ready)),
        Err(Halt::Stopped) => Ok(EXIT_OK),
        Err(Halt::Failed(error)) => Err(error),
    };
    life.stop();
    life.files.drain(..).for_each(|address| bind::unbind(&address));
    outcome
}

/// Serves every listener and supervises the few children, in one loop. Returns the exit code.
fn serve(life: &mut Life, ready: &Ready) -> u8 {
    let state = ready.state;
    if state.listeners.is_empty() {
        return life.supervise(ready);
    }
    match DatagramServer::new().and_then(|datagrams| Ok((datagrams, connection_server(state)?))) {
        Ok((datagrams, connections)) => match serve_until_stopped(life, state, &datagrams, connections) {
            Ok(()) => EXIT_OK,
            Err(GaveUp(code)) => code,
        },
        Err(error) => {
            tracing::error!("{error}");
            EXIT_FAILED
        }
    }
}

fn serve_until_stopped(
    life: &mut Life,
    state: &'static State,
    server: &DatagramServer,
    mut connections: Option<ConnectionServer>,
) -> Result<(), GaveUp> {
    let datagram_sockets: Vec<_> = state
        .listeners
        .iter()
        .filter_map(|listener| match &listener.service {
            Service::Datagrams(service) => Some(listener.sockets.iter().map(move |socket| (listener, service, socket))),
            Service::Connections(_) => None,
        })
        .flatten()
        .collect();
    loop {
        let wakeup_ns = connections.as_ref().and_then(ConnectionServer::next_wakeup_ns);
        let watched = datagram_sockets.iter().map(|(_, _, socket)| socket.as_fd());
        let watched = watched.chain(connections.as_ref().map(ConnectionServer::descriptor));
        match life.watch.next_or_readable(&state.family, watched, wakeup_ns) {
            Ok(Event::Stop) => return Ok(()),
            Ok(Event::Died { process_no, end, reached }) => life.watch.after_death(&state.family, process_no, end, reached),
            Ok(Event::ReadAgain) => life.read_again(),
            Ok(_) => {}
            Err(error) => {
                tracing::error!("{error}");
                return Err(GaveUp(EXIT_FAILED));
            }
        }
        life.watch.restart_due(&state.family);
        for (listener, service, socket) in &datagram_sockets {
            server.serve(listener, service, socket, ReceiveWait::Poll)?;
        }
        if let Some(connections) = &mut connections {
            connections.turn(Some(0))?;
        }
    }
}

/// Main serves connections, and receives from the processes with a link, which otherwise ends in
/// TCP main.
fn connection_server(state: &'static State) -> Result<Option<ConnectionServer>> {
    let Some(directory) = state.directory else { return Ok(None) };
    let mut server = ConnectionServer::new(directory, 0, &state.listeners, None, state.certificates()?)?;
    state.family.links().try_for_each(|(_, ends)| server.add_process_link(&ends.hub))?;
    Ok(Some(server))
}
