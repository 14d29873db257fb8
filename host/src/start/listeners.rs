//! Steps 5: sockets for every listener, from the supervisor or bound here in no-fork mode.
//!
//! *Runs in:* main, in `seal`. *Never:* binds anything while there is a supervisor.

use std::os::fd::OwnedFd;

use module_api::abi;

use super::life::{Halt, Life, Step};
use crate::config::{Fork, ListenAddress};
use crate::control::ControlServer;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::net::address::Address;
use crate::net::listener::{DatagramService, Listener, Service, StreamService};
use crate::net::{bind, resolve};
use crate::state::ListenerRequest;
use crate::supervise::protocol::{FromMain, FromSupervisor};
use crate::sys::socket::seqpacket::Link;
use crate::sys::udp::socket::Socket;

/// Every listener with its sockets: those of the plan whose module is loaded, then those that
/// modules asked for, numbered in this order.
pub fn receive_all(life: &mut Life, modules: &[&'static Module], requests: &[ListenerRequest]) -> Step<Vec<Listener>> {
    let mut listeners = Vec::new();
    let plan = life.plan.clone();
    for (number, planned) in (0_u32..).zip(&plan.listeners) {
        let config = &planned.config;
        // The module of this listener is optional and was left out.
        let Some(module) = modules.iter().find(|module| module.name == config.handler.module).copied() else { continue };
        let request = ListenerRequest {
            addresses: config.addresses.clone(),
            options: config.options.clone(),
            module,
            handler: config.handler.handler.clone(),
            workers: config.workers,
        };
        let service = service(&request, plan.config.host.workers)?;
        let sockets = match life.watch.supervisor() {
            Some(_) => receive_planned(life, number)?,
            None => bind_here(life, planned.sockets()?)?,
        };
        listeners.push(listener(listeners.len(), &request, service, sockets)?);
    }
    for request in requests {
        let service = service(request, plan.config.host.workers)?;
        let mut addresses = Vec::new();
        for address in &request.addresses {
            addresses.extend(resolve::inet_sockets(address, &request.options.socket)?);
        }
        let sockets = match life.watch.supervisor() {
            Some(_) => {
                addresses.into_iter().map(|address| Ok(receive(life, &FromMain::ListenForModule(address))?.0)).collect::<Step<_>>()?
            }
            None => bind_here(life, addresses)?,
        };
        listeners.push(listener(listeners.len(), request, service, sockets)?);
    }
    Ok(listeners)
}

/// The control process before it serves: its socket, and its end of a new link to main. None
/// without a control socket and in no-fork mode.
pub fn receive_control(life: &mut Life) -> Step<Option<ControlServer>> {
    let (Some(_), Fork::Processes) = (&life.plan.config.host.control, life.plan.config.host.fork) else { return Ok(None) };
    let (socket, _) = receive(life, &FromMain::ListenForControl)?;
    let (ours, theirs) = Link::pair()?;
    life.watch.hear_control(ours);
    let names = life.plan.modules.iter().map(|module| module.name.clone()).collect();
    Ok(Some(ControlServer::new(socket, theirs, names, life.plan.config.host.stop_timeout)))
}

/// The handler of a listener, if its module has one for this kind of address.
fn service(request: &ListenerRequest, default_workers: u32) -> Step<(String, Service)> {
    let takes_connections = matches!(request.addresses.first(), Some(ListenAddress::Tcp(_) | ListenAddress::Unix(_)));
    let (kind, name) = if takes_connections { (abi::HANDLER_STREAM, "stream") } else { (abi::HANDLER_UDP, "datagram") };
    let handler = request.module.handler(kind, request.handler.as_deref());
    let service = handler.and_then(|handler| match (takes_connections, handler.on_datagrams, handler.stream) {
        (false, Some(on_datagrams), _) => {
            Some(Service::Datagrams(DatagramService { on_datagrams, workers: request.workers.unwrap_or(default_workers) }))
        }
        (true, _, Some(functions)) => {
            Some(Service::Connections(StreamService { functions, options: request.options.stream, tls: request.options.tls.clone() }))
        }
        _ => None,
    });
    match (handler, service) {
        (Some(handler), Some(service)) => Ok((handler.name.clone(), service)),
        _ => Err(Halt::Failed(
            Error::config(format!("module \"{}\" has no {name} handler for {}", request.module.name, first(request)))
                .detail(request.handler.clone().unwrap_or_default())
                .hint("see \"modhost inspect\" for its handlers"),
        )),
    }
}

fn listener(index: usize, request: &ListenerRequest, (handler, service): (String, Service), sockets: Vec<OwnedFd>) -> Result<Listener> {
    let socket = |descriptor| {
        Socket::of(descriptor)
            .map_err(|errno| Error::failed("cannot find out where a listener is bound").detail(format!("{}: {errno}", first(request))))
    };
    let sockets = sockets.into_iter().map(socket).collect::<Result<_>>()?;
    Ok(Listener { index: index as u32, sockets, module: request.module, handler, service })
}

fn first(request: &ListenerRequest) -> String {
    request.addresses.first().map(ToString::to_string).unwrap_or_default()
}

/// The sockets of a listener of the plan.
fn receive_planned(life: &mut Life, listener: u32) -> Step<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    loop {
        let (socket, left) = receive(life, &FromMain::Listen { listener, nth: sockets.len() as u32 })?;
        sockets.push(socket);
        if left == 0 {
            return Ok(sockets);
        }
    }
}

/// A socket from the supervisor, and how many more its listener has.
fn receive(life: &Life, request: &FromMain) -> Step<(OwnedFd, u32)> {
    let supervisor = life.watch.supervisor().ok_or_else(|| Error::fault("there is no supervisor to ask for a socket"))?;
    supervisor.tell(request)?;
    match supervisor.wait()? {
        FromSupervisor::Socket(socket, left) => Ok((socket, left)),
        FromSupervisor::Refused(error) => Err(Halt::Failed(error)),
        FromSupervisor::Stop => Err(Halt::Stopped),
    }
}

fn bind_here(life: &mut Life, addresses: Vec<Address>) -> Step<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    for address in addresses {
        sockets.push(bind::bind(&address)?);
        life.files.push(address);
    }
    Ok(sockets)
}
