//! TLS on the way from an accepted socket to a connection that a handler sees.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* calls a handler before the handshake is finished.

use module_api::abi;

use super::ConnectionServer;
use crate::net::listener::{Listener, StreamService};
use crate::net::stream::connection::Connection;
use crate::net::stream::tls::Tls;
use crate::net::udp::GaveUp;

/// The connection cannot be encrypted as configured, and so is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

impl ConnectionServer {
    /// The beginning of a session with the newest certificates; none if the listener has none.
    #[inline]
    pub(super) fn begin_tls(&mut self, listener: &Listener, service: &StreamService) -> Result<Option<Box<Tls>>, Refused> {
        if service.tls.is_none() {
            return Ok(None);
        }
        match self.tls.as_mut().map(|current| current.session(listener.index as usize)) {
            Some(Ok(session)) => Ok(Some(Tls::new(session))),
            Some(Err(error)) => {
                tracing::error!("a connection was refused listener=\"{listener}\": {error}");
                Err(Refused)
            }
            None => {
                tracing::error!(target: "fault", "a connection was refused, there are no certificates listener=\"{listener}\"");
                Err(Refused)
            }
        }
    }

    /// The handshake of a connection with TLS; the handler hears of the connection when it is finished. Says whether it is.
    #[cold]
    pub(super) fn agree(&mut self, connection: &mut Connection) -> Result<bool, GaveUp> {
        match connection.agree(&mut self.wire) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(errno) => {
                tracing::debug!("a TLS handshake has failed listener=\"{}\": {errno}", connection.listener);
                connection.over = Some(abi::CLOSED_BY_PEER);
                return Ok(false);
            }
        }
        connection.active_ns = self.now_ns;
        // Data may have come with the end of the handshake.
        connection.readable = true;
        self.begin(connection)?;
        if connection.over.is_none() && !connection.is_sent() {
            // From other processes, meanwhile.
            self.send_more(connection)?;
        }
        Ok(connection.over.is_none())
    }
}
