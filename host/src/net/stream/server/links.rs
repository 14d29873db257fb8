//! Messages from other processes: accepted connections, and bytes for connections of this process.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits for a message.

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{ConnectionServer, PROCESS_LINKS};
use crate::error::{EXIT_FAILED, Error, Result};
use crate::net::stream::connection::Ending;
use crate::net::stream::messages::{self, LinkMessage};
use crate::net::stream::sender;
use crate::net::udp::GaveUp;
use crate::sys::socket::seqpacket::Link;

impl ConnectionServer {
    /// In no-fork mode: receives the messages of another process, too.
    pub fn add_process_link(&mut self, link: &'static Link) -> Result<()> {
        let token = PROCESS_LINKS + self.process_links.len() as u64;
        self.epoll
            .add(link, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .map_err(|errno| Error::failed("cannot wait for connections").detail(format!("epoll_ctl: {errno}")))?;
        self.process_links.push(link);
        Ok(())
    }

    /// Receives what waits in a link.
    pub(super) fn receive_messages(&mut self, link: Option<&'static Link>) -> Result<(), GaveUp> {
        let Some(link) = link else { return Ok(()) };
        if self.message_buffer.is_empty() {
            self.message_buffer.resize(messages::MESSAGE_BYTES, 0);
        }
        loop {
            let sent = self.directory.sent_count(self.worker);
            let mut buffer = std::mem::take(&mut self.message_buffer);
            let outcome = match messages::receive(link, &mut buffer) {
                Ok(LinkMessage::Connections(accepted)) => accepted.into_iter().try_for_each(|connection| self.open(connection)),
                Ok(LinkMessage::Bytes(request, bytes)) => {
                    sender::accept_send(&self.inbox, self.directory, link, request, bytes);
                    Ok(())
                }
                // An answer that came too late.
                Ok(LinkMessage::Answer(..)) => Ok(()),
                Err(Errno::EAGAIN) => {
                    self.message_buffer = buffer;
                    self.directory.set_received(self.worker, sent);
                    return Ok(());
                }
                Err(Errno::EBADMSG) => {
                    tracing::error!(target: "fault", "a link carried a malformed message");
                    Ok(())
                }
                Err(errno) => {
                    tracing::error!("cannot receive from the TCP main process: recvmsg: {errno}");
                    Err(GaveUp(EXIT_FAILED))
                }
            };
            self.message_buffer = buffer;
            outcome?;
        }
    }

    /// Queues the bytes that other processes, and handlers of this one, have sent.
    pub(super) fn queue_sends(&mut self) -> Result<(), GaveUp> {
        while let Some(send) = self.inbox.next_send() {
            self.with_connection(send.id.slot() as u32, |server, connection| {
                if connection.id == send.id && connection.ending == Ending::No {
                    connection.output.push(&send.bytes);
                    let progress = connection.flush();
                    server.note_progress(connection, progress);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
