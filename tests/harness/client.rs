//! A UDP client.

use std::net::{SocketAddr, UdpSocket};

use crate::watch::{Deadline, PATIENCE};

/// One socket, whose address does not change.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Client {
    pub fn of(server: SocketAddr) -> Self {
        let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).expect("a socket for the client");
        Self { socket, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("the client's address")
    }

    pub fn send(&self, data: &[u8]) {
        self.socket.send_to(data, self.server).unwrap_or_else(|error| panic!("cannot send {} bytes: {error}", data.len()));
    }

    /// The next datagram from the server before the deadline.
    pub fn receive_before(&self, deadline: Deadline) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        loop {
            // A timeout of zero would mean no timeout.
            self.socket.set_read_timeout(Some(deadline.left().max(std::time::Duration::from_millis(1)))).expect("a timeout");
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    assert_eq!(from, self.server, "an answer from another address");
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(_) if deadline.has_passed() => return None,
                Err(_) => {}
            }
        }
    }

    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        self.receive_before(Deadline::after(PATIENCE)).expect("no answer in time")
    }

    /// Sends and waits for the answer.
    #[track_caller]
    pub fn ask(&self, data: &[u8]) -> Vec<u8> {
        self.send(data);
        self.receive()
    }

    /// The same for text.
    #[track_caller]
    pub fn ask_text(&self, text: &str) -> String {
        self.ask_text_of(text.as_bytes())
    }

    /// Sends any bytes and expects text.
    #[track_caller]
    pub fn ask_text_of(&self, data: &[u8]) -> String {
        String::from_utf8(self.ask(data)).expect("an answer in text")
    }
}
