//! Tests of the module without a host: the parser is compared with a slow one, the registrar uses a
//! store in the memory of the test.

mod answers;
mod parser;
mod registrar;
mod store;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::registrar::Buffers;
use crate::request;
use crate::server::Server;
use crate::settings::{self, Params};
use store::LocalStore;

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| item.to_string()).collect()
}

/// Small limits, no registrar.
fn defaults() -> Params {
    Params {
        answer: "200 OK".into(),
        methods: texts(&["INVITE", "ACK", "OPTIONS", "BYE", "CANCEL", "REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE"]),
        accept: Vec::new(),
        server: String::new(),
        max_message: 4000,
        registrar: false,
        domains: Vec::new(),
        default_expires: Duration::from_secs(3600),
        min_expires: Duration::from_secs(60),
        max_expires: Duration::from_secs(7200),
        max_contacts: 3,
    }
}

/// A server without a host, and the address of a client.
struct TestServer {
    inner: Server<LocalStore>,
    buffers: Buffers,
    client: SocketAddr,
}

impl TestServer {
    fn with(change: impl FnOnce(&mut Params)) -> TestServer {
        let mut params = defaults();
        change(&mut params);
        let configuration = settings::read(&params).expect("parameters");
        let store = params.registrar.then(LocalStore::default);
        TestServer {
            inner: Server::new(configuration, store, Instant::now()),
            buffers: Buffers::default(),
            client: "192.0.2.7:5999".parse().unwrap(),
        }
    }

    fn registrar() -> TestServer {
        TestServer::with(|params| {
            params.registrar = true;
            params.domains = texts(&["example.com", "[2001:db8::5]"]);
        })
    }

    /// Sends a datagram of the client. Returns the answer and its destination; `None` for no
    /// answer.
    fn send(&mut self, datagram: &[u8]) -> Option<(Reply, SocketAddr)> {
        let request = request::parse(datagram)?;
        let mut buffer = vec![0xAA; 65_507];
        let (length, destination) = self.inner.respond(&request, datagram.len(), self.client, &mut self.buffers, &mut buffer)?;
        Some((Reply::of(&buffer[..length.expect("room")]), destination))
    }

    /// Sends a request that must be answered.
    #[track_caller]
    fn ask(&mut self, text: &str) -> Reply {
        self.send(text.as_bytes()).unwrap_or_else(|| panic!("no answer to {text:?}")).0
    }
}

/// An answer as text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    text: String,
}

impl Reply {
    /// Checks that the answer is well-formed.
    #[track_caller]
    fn of(bytes: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let reply = Reply { text };
        assert!(reply.text.starts_with("SIP/2.0 ") && reply.text.ends_with("\r\n\r\n"), "{:?}", reply.text);
        let inner = &reply.text[..reply.text.len() - 4];
        for line in inner.split("\r\n").skip(1) {
            let (name, _) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {:?}", reply.text));
            assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic() || c == '-'), "{line:?}");
            assert!(!line.contains(['\r', '\n']), "{line:?}");
        }
        assert_eq!(reply.all("Content-Length"), ["0"]);
        reply
    }

    fn status(&self) -> &str {
        self.text["SIP/2.0 ".len()..].split("\r\n").next().unwrap_or_default()
    }

    fn code(&self) -> u16 {
        self.status()[..3].parse().expect("a code")
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.text.split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(": ")).filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
    }

    #[track_caller]
    fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {:?}", self.text);
        all[0]
    }
}

/// A valid request. Each of `lines` replaces the usual line of the same name, or is added. A line
/// that is only a name removes the usual one.
fn request(method: &str, uri: &str, lines: &[&str]) -> String {
    let cseq = format!("CSeq: 1 {method}");
    let usual = [
        "Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-a",
        "Max-Forwards: 70",
        "From: <sip:carol@example.org>;tag=c1",
        "To: <sip:alice@example.com>",
        "Call-ID: call-1@example.org",
        &cseq,
        "Content-Length: 0",
    ];
    let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_lowercase();
    let mut text = format!("{method} {uri} SIP/2.0\r\n");
    for line in usual {
        if !lines.iter().any(|other| name(other) == name(line)) {
            text += &format!("{line}\r\n");
        }
    }
    for line in lines.iter().filter(|line| line.contains(':')) {
        text += &format!("{line}\r\n");
    }
    text + "\r\n"
}
