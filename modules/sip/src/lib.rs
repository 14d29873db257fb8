//! A stateless SIP server over UDP (RFC 3261), and a registrar that redirects to where its users are.
//!
//! Answers in workers; nothing is kept between two requests but what clients register, which lies in shared memory. Allocates nothing to
//! answer a request other than REGISTER.

#![forbid(unsafe_code)]

mod address;
mod answer;
mod bindings;
mod chars;
mod message;
mod registrar;
mod serve;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod uas;
mod uri;

use std::time::Instant;

use module_api::prelude::*;

use crate::serve::{Child, Server};
use crate::settings::Params;
use crate::store::SharedStore;

/// How often timer functions look for bindings that have ended. What has ended is not used in between.
const SWEEP_PERIOD: Duration = Duration::from_millis(250);

struct Sip {
    server: Server,
}

impl Module for Sip {
    type Params = Params;
    type Child = Child;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        let configured = settings::read(&params)?;
        let store = if configured.settings.registrar {
            cx.timer(Timer::every("expired bindings", SWEEP_PERIOD).slow(), |sip, child, _cx| sip.server.sweep(child))?;
            Some(SharedStore::new(cx)?)
        } else {
            None
        };
        Ok(Sip { server: Server::new(configured, store, Instant::now()) })
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
