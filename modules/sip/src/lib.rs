//! A stateless SIP server over UDP (RFC 3261), and a registrar that redirects to its users'
//! contacts.
//!
//! Answers in UDP workers. Between two requests it keeps only the registrations, in shared memory.
//! Buffers for REGISTER, redirections and answers to another port are kept; other answers allocate
//! nothing.

#![forbid(unsafe_code)]

mod address;
mod answer;
mod bindings;
mod decision;
mod header;
mod method;
mod registrar;
mod request;
mod server;
mod settings;
mod store;
mod syntax;
#[cfg(test)]
mod tests;
mod uri;
mod via;

use std::time::Instant;

use module_api::prelude::*;

use crate::server::{Child, Server};
use crate::settings::Params;
use crate::store::SharedStore;

/// Time between two sweeps of a part of the expired bindings. Until it is swept, an expired binding
/// is ignored.
const SWEEP_PERIOD: Duration = Duration::from_millis(250);

struct Sip {
    server: Server,
}

impl Module for Sip {
    type Params = Params;
    type Child = Child;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        let configuration = settings::read(&params)?;
        let store = if configuration.settings.registrar {
            cx.timer(Timer::every("expired bindings", SWEEP_PERIOD).slow(), |sip, child, _cx| sip.server.sweep(child))?;
            Some(SharedStore::new(cx)?)
        } else {
            None
        };
        Ok(Sip { server: Server::new(configuration, store, Instant::now()) })
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<Child> {
        Ok(Child::default())
    }
}

impl Sip {
    fn serve(&self, child: &mut Child, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            self.server.answer(child, &datagram);
        }
        Ok(())
    }
}

export_module! {
    Sip,
    name: "sip",
    summary: "a stateless SIP server with a registrar",
    udp: {
        /// Answers SIP requests.
        "sip" => Sip::serve,
    },
}
