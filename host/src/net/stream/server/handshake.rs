//! The TLS handshake, between the opening of a connection and the first call of its handler.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* calls a handler before the handshake is
//! finished.

use module_api::abi;

use super::ConnectionServer;
use crate::net::listener::{Listener, StreamService};
use crate::net::stream::connection::Connection;
use crate::net::stream::tls::Tls;
use crate::net::udp::GaveUp;

/// The connection cannot be encrypted as configured, so it is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoSession;

impl ConnectionServer {
    /// Begins a session with the newest certificates; none if the listener has no TLS.
    #[inline]
    pub(super) fn begin_tls(&mut self, listener: &Listener, service: &StreamService) -> Result<Option<Box<Tls>>, NoSession> {
        if service.tls.is_none() {
            return Ok(None);
        }
        match self.tls.as_mut().map(|current| current.session(listener.index as usize)) {
            Some(Ok(session)) => Ok(Some(Tls::new(session))),
            Some(Err(error)) => {
                tracing::error!("a connection was refused listener=\"{listener}\": {error}");
                Err(NoSession)
            }
            None => {
                tracing::error!(target: "fault", "a connection was refused, there are no certificates listener=\"{listener}\"");
                Err(NoSession)
            }
        }
    }

    /// Continues the handshake, and opens the connection when it is finished. True: serve it.
    #[cold]
    pub(super) fn handshake(&mut self, connection: &mut Connection) -> Result<bool, GaveUp> {
        match connection.handshake(&mut self.ciphertext) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(errno) => {
                tracing::debug!("a TLS handshake has failed listener=\"{}\": {errno}", connection.listener);
                connection.close_reason = Some(abi::CLOSED_BY_PEER);
                return Ok(false);
            }
        }
        connection.active_ns = self.now_ns;
        // Data may have come with the end of the handshake.
        connection.readable = true;
        self.call_on_open(connection)?;
        if connection.close_reason.is_none() && !connection.is_flushed() {
            // Bytes that other processes have sent during the handshake.
            self.send_more(connection)?;
        }
        Ok(connection.close_reason.is_none())
    }
}
