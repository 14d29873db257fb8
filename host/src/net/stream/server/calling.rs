//! Calling a handler, and sending what it has queued.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits for a peer to take bytes; never
//! sends during a call.

use module_api::abi;
use nix::errno::Errno;

use super::ConnectionServer;
use crate::error::EXIT_FAULT;
use crate::module::call;
use crate::net::stream::connection::Connection;
use crate::net::stream::directory::QueueState;
use crate::net::stream::handler_call::Reading;
use crate::net::udp::GaveUp;
use crate::process::phase::Phase;
use crate::stats::HostCounter;

impl ConnectionServer {
    /// Calls one function of the handler and carries out what it has asked for.
    #[inline]
    pub(super) fn call(&mut self, connection: &mut Connection, function: impl FnOnce(*mut abi::Stream) -> i32) -> Result<(), GaveUp> {
        let stream = &raw mut connection.stream;
        self.handler_call.begin(stream, connection.output.queued_bytes(), connection.service.options.output_limit_bytes as u64);
        let code = call::enter(connection.listener.module, Phase::Stream, || function(stream));
        let (close, reading) = self.handler_call.end();
        if let Some(reading) = reading {
            connection.paused = reading == Reading::Pause;
        }
        if !self.handler_call.is_empty() {
            self.send(connection);
        }
        if self.handler_call.was_refused() {
            self.note_refused_write(connection);
        }
        if let Some(mode) = close {
            self.end(connection, mode);
        }
        if code < 0 { self.handler_failed(connection, code) } else { Ok(()) }
    }

    /// Closes the connection whose handler has failed. A panic ends the process.
    #[cold]
    fn handler_failed(&mut self, connection: &mut Connection, code: i32) -> Result<(), GaveUp> {
        let (module, handler) = (&connection.listener.module.name, &connection.listener.handler);
        let text = call::error_text();
        connection.close_reason = Some(abi::CLOSED_BY_ERROR);
        if code == abi::E_PANIC {
            call::ends_after(connection.listener.module, Phase::Stream);
            tracing::error!("a stream handler panicked module=\"{module}\" handler=\"{handler}\" error=\"{text}\"");
            return Err(GaveUp(EXIT_FAULT));
        }
        tracing::debug!("a stream handler failed module=\"{module}\" handler=\"{handler}\" code={code} error=\"{text}\"");
        Ok(())
    }

    /// Sends what the call has queued, after what was queued before.
    #[inline]
    fn send(&mut self, connection: &mut Connection) {
        let progress = self.handler_call.take_output(|bytes, files| {
            if connection.output.is_empty() && files.is_empty() {
                let sent = connection.send_now(bytes)?;
                connection.output.push(&bytes[sent..]);
                return Ok((sent > 0).then_some(sent as u64));
            }
            let mut from = 0;
            for piece in files {
                connection.output.push(&bytes[from..piece.after_bytes]);
                from = piece.after_bytes;
                connection.output.push_file(piece.file, piece.offset, piece.bytes);
            }
            connection.output.push(&bytes[from..]);
            connection.flush()
        });
        self.note_progress(connection, progress);
    }

    /// After an attempt to send. The number of bytes is none if the kernel has taken nothing.
    pub(super) fn note_progress(&mut self, connection: &mut Connection, progress: Result<Option<u64>, Errno>) {
        match progress {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                connection.active_ns = self.now_ns;
                self.counts.add(HostCounter::BytesOut, bytes);
            }
            Err(errno) => {
                tracing::debug!("a connection broke listener=\"{}\": send: {errno}", connection.listener);
                connection.output.clear();
                connection.close_reason = Some(abi::CLOSED_BY_PEER);
                return;
            }
        }
        if connection.output.queued_bytes() >= connection.service.options.output_limit_bytes as u64 && !connection.full {
            connection.full = true;
            self.directory.set_queue_state(connection.id, QueueState::Full);
        }
    }

    /// Sends more of the queue, now that the kernel takes more.
    pub(super) fn send_more(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        let progress = connection.flush();
        self.note_progress(connection, progress);
        if connection.close_reason.is_some() {
            return Ok(());
        }
        self.end_back_pressure(connection)?;
        self.end_when_flushed(connection);
        Ok(())
    }
}
