//! Tests of the module without a host: bytes in, bytes out.

mod files;
mod properties;
mod requests;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use module_api::StreamError;
use module_api::prelude::*;

use crate::connection::{Connection, Worker};
use crate::reply::Output;
use crate::settings::{self, AccessLog, Params, Settings};

/// Sun, 22 Nov 2026 23:26:40 GMT.
pub const NOW: u64 = 1_795_390_000;

/// Small limits, some routes, no files.
pub fn params() -> Params {
    let routes = [
        ("/ok", "200 text/plain ok"),
        ("/old", "301 /ok"),
        ("/none", "204"),
        ("/busy", "503"),
        ("/page", "200 text/html;charset=utf-8 <p>a page"),
    ];
    Params {
        routes: routes.into_iter().map(|(path, answer)| (path.to_owned(), answer.to_owned())).collect::<BTreeMap<_, _>>(),
        root: None,
        index: "index.html".to_owned(),
        cache: Size::new(1 << 20),
        max_head: Size::new(1024),
        max_target: Size::new(256),
        max_body: Size::new(1000),
        server: String::new(),
        access_log: AccessLog::Off,
    }
}

/// The client's side of a connection, with the host's output queue.
#[derive(Debug, Default)]
pub struct Client {
    pub received: Vec<u8>,
    pub is_closed: bool,
    /// Bytes in the output queue.
    queued: u64,
    /// At how many bytes the queue is full; `None` for never.
    limit: Option<u64>,
    /// Whether the queue has refused a write.
    was_full: bool,
}

impl Client {
    fn queue(&mut self, len: u64) -> Result<(), StreamError> {
        if self.is_closed {
            return Err(StreamError::Gone);
        }
        if self.limit.is_some_and(|limit| self.queued >= limit) {
            self.was_full = true;
            return Err(StreamError::Busy);
        }
        self.queued += len;
        Ok(())
    }
}

impl Output for Client {
    fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.queue(data.len() as u64)?;
        self.received.extend_from_slice(data);
        Ok(())
    }

    fn write_with(&mut self, size: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<(), StreamError> {
        let mut buffer = vec![0; size];
        let len = write(&mut buffer);
        assert_eq!(len, size, "the size is exact");
        self.write(&buffer)
    }

    fn write_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), StreamError> {
        self.queue(len)?;
        let mut buffer = vec![0; len as usize];
        File::from(file.try_clone_to_owned().unwrap()).read_exact_at(&mut buffer, offset).unwrap();
        self.received.extend_from_slice(&buffer);
        Ok(())
    }

    fn close(&mut self) {
        self.is_closed = true;
    }

    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

/// The module, and the state of one worker.
pub struct Server {
    pub settings: Settings,
    pub worker: Worker,
}

impl Server {
    pub fn new(params: Params) -> Server {
        let settings = settings::read(params).unwrap();
        let mut worker = Worker::new(&settings);
        worker.set_time(NOW);
        Server { settings, worker }
    }

    pub fn with_files(root: &Path) -> Server {
        Server::new(Params { root: Some(root.to_owned()), ..params() })
    }

    /// Sends the pieces one after the other on one connection, whose output queue is full at
    /// `limit` bytes.
    pub fn converse<'p>(&mut self, pieces: impl IntoIterator<Item = &'p [u8]>, limit: Option<u64>) -> Client {
        let (mut client, mut connection) = (Client { limit, ..Client::default() }, Connection::default());
        let mut unused = Vec::new();
        for piece in pieces {
            if client.is_closed {
                break;
            }
            unused.extend_from_slice(piece);
            // Like the host: after a refused write, empties the queue and passes the unused bytes
            // again.
            while !unused.is_empty() && !client.is_closed {
                (client.was_full, client.queued) = (false, 0);
                let used = connection.data(&self.settings, &mut self.worker, &mut client, &unused).unwrap();
                unused.drain(..used);
                if !client.was_full {
                    break;
                }
            }
        }
        client
    }

    /// Sends the bytes on one connection.
    pub fn send(&mut self, request: &[u8]) -> Client {
        self.converse([request], None)
    }

    /// Sends a request, or several. The answers must be UTF-8.
    pub fn answer(&mut self, request: &str) -> String {
        String::from_utf8(self.send(request.as_bytes()).received).unwrap()
    }

    /// The status code of the first answer, and whether the connection is closed. `None` if nothing
    /// was answered.
    pub fn code(&mut self, request: &[u8]) -> (Option<u16>, bool) {
        let client = self.send(request);
        let code = client.received.strip_prefix(b"HTTP/1.1 ").map(|rest| std::str::from_utf8(&rest[..3]).unwrap().parse().unwrap());
        assert_eq!(code.is_none(), client.received.is_empty(), "{}", String::from_utf8_lossy(&client.received));
        (code, client.is_closed)
    }
}
