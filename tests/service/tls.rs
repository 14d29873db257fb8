//! TLS: handlers see the same as without TLS, and errors of one peer affect no other.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::setup::quoted;
use harness::{Deadline, Host, PATIENCE, Setup, fixture, is_root, processes};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

static V12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static V13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// A certificate authority and the certificates that it has issued.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `NAME.pem` and `NAME.key` for that host name, valid until the end of that year. Both
    /// are replaced by a rename.
    pub(super) fn certify(&self, folder: &Path, name: &str, host: &str, last_year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        put(folder, &format!("{name}.key"), &key.serialize_pem());
        put(folder, &format!("{name}.pem"), &certificate.pem());
    }

    /// The trust and the certificate of a client.
    pub(super) fn client(&self) -> ClientOffer {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        ClientOffer { roots, alpn: Vec::new(), own: None, versions: rustls::ALL_VERSIONS }
    }
}

pub(super) fn put(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(format!("{name}.new")), text).expect("a file");
    fs::rename(folder.join(format!("{name}.new")), folder.join(name)).expect("its place");
}

pub(super) struct ClientOffer {
    roots: RootCertStore,
    alpn: Vec<Vec<u8>>,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    versions: &'static [&'static SupportedProtocolVersion],
}

pub(super) type Session = StreamOwned<ClientConnection, TcpStream>;

impl ClientOffer {
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(self.versions).unwrap();
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap(),
        };
        config.alpn_protocols = self.alpn.clone();
        Arc::new(config)
    }

    pub(super) fn connect(&self, address: SocketAddr, host: &str) -> std::io::Result<Session> {
        connect(self.config(), address, host)
    }
}

fn connect(config: Arc<ClientConfig>, address: SocketAddr, host: &str) -> std::io::Result<Session> {
    connect_over(plain(address), config, host)
}

/// The same over an open socket.
pub(super) fn connect_over(socket: TcpStream, config: Arc<ClientConfig>, host: &str) -> std::io::Result<Session> {
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let session = ClientConnection::new(config, name).expect("a session");
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn plain(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// One line of an answer.
fn line(session: &mut impl Read) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while session.read(&mut byte).expect("an answer") == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

pub(super) fn ask(session: &mut (impl Read + Write), text: &str) -> String {
    session.write_all(format!("{text}\n").as_bytes()).expect("a question");
    line(session)
}

/// Everything until the other side ends, which must be orderly.
fn rest(session: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.read_to_end(&mut bytes).expect("an end with close_notify");
    bytes
}

/// A host with one listener for `teller`, with these lines in its `[listen.tls]` beside the files
/// of `server`.
pub(super) fn setup(authority: &Authority, tls: &str) -> Setup {
    let setup = Setup::new();
    authority.certify(setup.folder(), "server", "localhost", 2090);
    let keys = format!("{},{tls}", files("server"));
    setup.module(fixture("teller")).listen_with(&listener(&keys), "teller", None)
}

pub(super) fn files(name: &str) -> String {
    format!("certificate = \"{name}.pem\", key = \"{name}.key\"")
}

pub(super) fn listener(tls: &str) -> String {
    format!("tcp = \"127.0.0.1:0\"\ntls = {{ {} }}", tls.trim_end_matches(','))
}

fn address(host: &Host) -> SocketAddr {
    host.addresses(0)[0].parse().expect("an address")
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place % 251) as u8).collect()
}

#[test]
fn handlers_see_plain_bytes_and_the_negotiated_parameters() {
    let authority = Authority::new();
    let host = setup(&authority, "alpn = [\"second\", \"first\"]").start();
    let at = address(&host);
    for versions in [&V13, &V12] {
        let mut offer = ClientOffer { versions, ..authority.client() };
        let mut session = offer.connect(at, "localhost").unwrap();
        assert!(ask(&mut session, "tls").starts_with("tls alpn=- name=localhost "), "{versions:?}");
        assert_eq!(ask(&mut session, "say hello"), "hello");
        assert_eq!(ask(&mut session, "close"), "bye");
        assert_eq!(rest(&mut session), b"");
        offer.alpn = vec![b"first".to_vec(), b"second".to_vec()];
        let mut session = offer.connect(at, "localhost").unwrap();
        assert!(ask(&mut session, "tls").starts_with("tls alpn=second name=localhost "), "the server chooses");
        offer.alpn = vec![b"third".to_vec()];
        let error = offer.connect(at, "localhost").unwrap_err().to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }
    host.stop();
}

#[test]
fn large_transfers_in_both_directions() {
    const COUNT: usize = 40_000_000;
    let authority = Authority::new();
    let setup = setup(&authority, "");
    fs::write(setup.folder().join("large"), pattern(3_000_000)).unwrap();
    let file = setup.folder().join("large");
    let host = setup.start();
    for versions in [&V13, &V12] {
        let offer = ClientOffer { versions, ..authority.client() };
        let mut session = offer.connect(address(&host), "localhost").unwrap();
        session.write_all(format!("big {COUNT}\n").as_bytes()).unwrap();
        let mut bytes = vec![0; COUNT];
        session.read_exact(&mut bytes).unwrap();
        assert!(bytes == pattern(COUNT), "other bytes than were sent");
        session.write_all(format!("file 3000000 {}\n", file.display()).as_bytes()).unwrap();
        session.read_exact(&mut bytes[..3_000_000]).unwrap();
        assert!(bytes[..3_000_000] == pattern(3_000_000), "another file than was sent");
        session.write_all(b"count\n").unwrap();
        session.write_all(&bytes).unwrap();
        session.conn.send_close_notify();
        session.flush().unwrap();
        assert_eq!(
            String::from_utf8(rest(&mut session)).unwrap(),
            format!("counted {COUNT}\n"),
            "the end of one side is not that of the other"
        );
    }
    host.stop();
}

#[test]
fn the_server_stops_reading_a_client_that_does_not_read() {
    let authority = Authority::new();
    let host = setup(&authority, "").start();
    let mut session = authority.client().connect(address(&host), "localhost").unwrap();
    session.write_all(b"big 30000000\n").unwrap();
    // Both directions are full: the client reads no answer, so the server reads no request.
    session.sock.set_nonblocking(true).unwrap();
    let mut written = 0;
    let mut idle = Deadline::after(Duration::from_millis(300));
    while !idle.has_passed() {
        match session.write(b"say x\n") {
            Ok(count) => {
                written += count;
                idle = Deadline::after(Duration::from_millis(300));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                std::thread::yield_now();
            }
        }
        assert!(written < 50_000_000, "it is still read from");
    }
    // Other clients are unaffected.
    let mut other = authority.client().connect(address(&host), "localhost").unwrap();
    assert_eq!(ask(&mut other, "say hello"), "hello");
    session.sock.set_nonblocking(false).unwrap();
    // Not by the stream's `read`, which first waits until its output is sent: then neither side
    // would read.
    let mut bytes = Vec::new();
    while bytes.len() < 30_000_000 {
        assert_ne!(session.conn.read_tls(&mut session.sock).unwrap(), 0, "the end after {} bytes", bytes.len());
        session.conn.process_new_packets().unwrap();
        if let Err(error) = session.conn.reader().read_to_end(&mut bytes) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    }
    // The first answers to later requests may be there too.
    assert!(bytes[..30_000_000] == pattern(30_000_000), "other bytes than were sent");
    host.stop();
}

#[test]
fn each_side_ends_its_half_separately() {
    let authority = Authority::new();
    let host = setup(&authority, "").start();
    let mut session = authority.client().connect(address(&host), "localhost").unwrap();
    assert_eq!(ask(&mut session, "half"), "half");
    assert_eq!(rest(&mut session), b"", "nothing follows from the server");
    session.write_all(&pattern(500_000)).unwrap();
    session.conn.send_close_notify();
    session.flush().unwrap();
    host.wait_for_log("closed reason=Normal counted=500000");
    // Cut off without close_notify: not an orderly end.
    let mut session = authority.client().connect(address(&host), "localhost").unwrap();
    assert_eq!(ask(&mut session, "say x"), "x");
    session.sock.shutdown(Shutdown::Write).unwrap();
    host.wait_for_log("closed reason=Peer counted=0");
    // Aborted by the server: the client must not take it for an orderly end either.
    let mut session = authority.client().connect(address(&host), "localhost").unwrap();
    session.write_all(b"abort\n").unwrap();
    session.read_to_end(&mut Vec::new()).unwrap_err();
    host.stop();
}

#[test]
fn garbage_and_silence_do_no_harm() {
    let authority = Authority::new();
    let host = setup(&authority, "handshake_timeout = \"700ms\"").log("level", "\"debug\"").start();
    let at = address(&host);
    let begun = Instant::now();
    let silent = plain(at);
    let mut slow = plain(at);
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0xff; 40_000], &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], b"\x16\x03\x01\xff\xff"] {
        let mut socket = plain(at);
        // The server may close the connection meanwhile.
        let _ = socket.write_all(garbage);
        let _ = socket.shutdown(Shutdown::Write);
        let _ = socket.read_to_end(&mut Vec::new());
    }
    // A handshake byte by byte, which takes longer than the limit. The limit does not restart with
    // each byte.
    let mut byte = 0;
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let slow_ended = loop {
        let head = [0x16, 3, 1, 0x02, 0x00, 1, 0, 0x01, 0xfc, 3, 3];
        let written = slow.write(&[*head.get(byte).unwrap_or(&7)]);
        byte += 1;
        match slow.read(&mut [0]) {
            Ok(0) => break begun.elapsed(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && written.is_ok() => {}
            Err(_) => break begun.elapsed(),
            Ok(_) => panic!("an answer to half a handshake"),
        }
        assert!(begun.elapsed() < PATIENCE, "a handshake that does not finish");
    };
    assert!(slow_ended >= Duration::from_millis(500), "ended after {slow_ended:?}");
    assert_eq!((&silent).read(&mut [0]).unwrap_or(0), 0, "the silent client is ended too");
    let mut session = authority.client().connect(at, "localhost").unwrap();
    assert_eq!(ask(&mut session, "say still here"), "still here");
    drop(session);
    host.wait_for_log("closed reason=");
    let ended = host.stop();
    assert_eq!(ended.log.count("opened tls="), 1, "the handler is called after the handshake");
    assert!(ended.log.count("a TLS handshake has failed") >= 4);
}

#[test]
fn client_bytes_may_arrive_in_any_pieces() {
    let authority = Authority::new();
    let host = setup(&authority, "").start();
    for versions in [&V13, &V12] {
        let offer = ClientOffer { versions, ..authority.client() };
        for cut in [1, 2, 7, 100, 1500] {
            let name = ServerName::try_from("localhost").unwrap();
            let mut session = ClientConnection::new(offer.config(), name).unwrap();
            let mut socket = plain(address(&host));
            socket.set_nodelay(true).unwrap();
            session.writer().write_all(b"say cut to pieces\n").unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") {
                let mut out = Vec::new();
                while session.wants_write() {
                    session.write_tls(&mut out).unwrap();
                }
                for piece in out.chunks(cut) {
                    socket.write_all(piece).unwrap();
                }
                session.read_tls(&mut (&mut socket).take(cut as u64)).unwrap();
                session.process_new_packets().unwrap();
                if let Err(error) = session.reader().read_to_end(&mut answer) {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                }
            }
            assert_eq!(answer, b"cut to pieces\n", "pieces of {cut}");
        }
    }
    host.stop();
}

#[test]
fn the_host_name_chooses_the_certificate() {
    let authority = Authority::new();
    let setup = Setup::new();
    authority.certify(setup.folder(), "one", "one.example", 2090);
    authority.certify(setup.folder(), "any", "*.two.example", 2090);
    let tables = format!("tcp = \"127.0.0.1:0\"\ntls = [{{ {} }}, {{ {} }}]", files("one"), files("any"));
    let host = setup.module(fixture("teller")).listen_with(&tables, "teller", None).start();
    for name in ["one.example", "a.two.example"] {
        let mut session = authority.client().connect(address(&host), name).unwrap();
        assert!(ask(&mut session, "tls").contains(&format!("name={name} ")));
    }
    // All other names get the first certificate, which the client may reject.
    let error = authority.client().connect(address(&host), "three.example").unwrap_err().to_string();
    assert!(error.contains("one.example"), "{error}");
    host.stop();
}

#[test]
fn clients_are_asked_for_a_certificate() {
    let authority = Authority::new();
    let setup = setup(&authority, "client_ca = \"ca.pem\", min_version = \"1.3\"");
    put(setup.folder(), "ca.pem", &authority.0.pem());
    let stranger = Authority::new();
    let own = |authority: &Authority, name: &str| {
        authority.certify(setup.folder(), name, "client.example", 2090);
        let read = |kind: &str| fs::read(setup.folder().join(format!("{name}.{kind}"))).unwrap();
        (CertificateDer::from_pem_slice(&read("pem")).unwrap(), PrivateKeyDer::from_pem_slice(&read("key")).unwrap())
    };
    let (good, bad) = (own(&authority, "good"), own(&stranger, "bad"));
    let host = setup.start();
    let offer = |own| ClientOffer { own, ..authority.client() };
    let mut session = offer(Some(good)).connect(address(&host), "localhost").unwrap();
    assert!(ask(&mut session, "tls").starts_with("tls "));
    for own in [None, Some(bad)] {
        // In TLS 1.3 a client learns of the refusal when it reads.
        let refused = offer(own).connect(address(&host), "localhost").and_then(|mut session| {
            session.write_all(b"say x\n")?;
            session.read(&mut [0])
        });
        refused.unwrap_err();
    }
    let old = ClientOffer { versions: &V12, ..authority.client() };
    assert!(old.connect(address(&host), "localhost").unwrap_err().to_string().contains("ProtocolVersion"));
    host.stop();
}

/// The certificate that a new connection gets.
pub(super) fn offered(offer: &ClientOffer, at: SocketAddr) -> CertificateDer<'static> {
    let session = offer.connect(at, "localhost").unwrap();
    session.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

pub(super) fn written(host: &Host, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&fs::read(host.path(name)).unwrap()).unwrap()
}

#[test]
fn a_certificate_is_replaced_under_load() {
    let authority = Authority::new();
    let host = setup(&authority, "").host("workers", "3").expect_log("the certificates stay as they were").start();
    let (at, offer) = (address(&host), authority.client());
    let mut old: Vec<Session> = (0..20).map(|_| offer.connect(at, "localhost").unwrap()).collect();
    let first = written(&host, "server.pem");
    assert_eq!(offered(&offer, at), first);
    for round in 1..=5 {
        authority.certify(host.folder(), "server", "localhost", 2090);
        let load = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            let mut session = offer.connect(at, "localhost").unwrap();
                            assert_eq!(ask(&mut session, "say x"), "x");
                        }
                    })
                })
                .collect();
            host.signal(Signal::HUP);
            host.wait_for_log_lines("certificates read again", round);
            // After that line every worker has it.
            let new = written(&host, "server.pem");
            for _ in 0..9 {
                assert_eq!(offered(&offer, at), new, "round {round}");
            }
            clients.into_iter().map(|client| client.join()).collect::<Vec<_>>()
        });
        assert!(load.iter().all(Result::is_ok));
        old.iter_mut().for_each(|session| assert_eq!(ask(session, "say old"), "old"));
    }
    // The key of another certificate, no certificate, no file: the working certificate stays.
    let good = written(&host, "server.pem");
    let text = fs::read_to_string(host.path("server.pem")).unwrap();
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (round, (name, bytes)) in [("server.key", key.as_str()), ("server.pem", "nothing\n")].into_iter().enumerate() {
        put(host.folder(), name, bytes);
        host.signal(Signal::HUP);
        host.wait_for_log_lines("the certificates stay as they were", round + 1);
        assert_eq!(offered(&offer, at), good);
    }
    fs::remove_file(host.path("server.pem")).unwrap();
    host.signal(Signal::HUP);
    host.wait_for_log_lines("the certificates stay as they were", 3);
    put(host.folder(), "server.pem", &text);
    // A new worker has it too.
    for pid in host.children() {
        if processes::title(pid).contains("TCP worker") {
            host.kill(pid);
        }
    }
    for _ in 0..6 {
        assert_eq!(offered(&offer, at), good);
    }
    let host = host.allowing("a process died and is replaced");
    old.clear();
    host.stop();
}

#[test]
fn a_new_main_keeps_the_certificates() {
    let authority = Authority::new();
    let host = setup(&authority, "").expect_log("starting a new main").start();
    let certificate = written(&host, "server.pem");
    fs::remove_file(host.path("server.pem")).unwrap();
    // The first main logs its listener after it is ready; it is killed after that.
    host.wait_for_log("  listener tcp ");
    host.kill(host.main_pid());
    host.wait_for_log_lines("ready in ", 2);
    host.wait_for_log_lines("  listener tcp ", 2);
    assert_eq!(offered(&authority.client(), address(&host)), certificate);
    host.stop();
}

#[test]
fn a_key_readable_only_by_root() {
    if !is_root() {
        return;
    }
    let authority = Authority::new();
    let setup = setup(&authority, "").host("user", "\"nobody\"");
    fs::set_permissions(setup.folder().join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let host = setup.start();
    assert_eq!(offered(&authority.client(), address(&host)), written(&host, "server.pem"));
    authority.certify(host.folder(), "server", "localhost", 2090);
    fs::set_permissions(host.path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    host.signal(Signal::HUP);
    host.wait_for_log("certificates read again");
    assert_eq!(offered(&authority.client(), address(&host)), written(&host, "server.pem"));
    // Only the TCP workers hold the bytes. Main keeps the files open for later workers.
    for pid in host.processes() {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let vaults = links.filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().contains("modhost-tls"))).count();
        let title = processes::title(pid);
        let expected = match () {
            () if pid == host.pid() => 2,
            () if pid == host.main_pid() || title.contains("TCP worker") => 1,
            () => 0,
        };
        assert_eq!(vaults, expected, "{title}");
    }
    host.stop();
}

#[test]
fn without_forks() {
    let authority = Authority::new();
    let host = setup(&authority, "").argument("--no-fork").start();
    let mut session = authority.client().connect(address(&host), "localhost").unwrap();
    assert!(ask(&mut session, "tls").ends_with(&format!("pid={}", host.pid())));
    authority.certify(host.folder(), "server", "localhost", 2090);
    host.signal(Signal::HUP);
    host.wait_for_log("certificates read again");
    assert_eq!(offered(&authority.client(), address(&host)), written(&host, "server.pem"));
    assert_eq!(ask(&mut session, "say old"), "old");
    host.stop();
}

#[test]
fn tls_on_a_unix_socket_and_beside_a_plain_listener() {
    let authority = Authority::new();
    let setup = setup(&authority, "").listen_with("unix = \"socket\"", "teller", None);
    let host = setup.start();
    let mut plain = std::os::unix::net::UnixStream::connect(host.path("socket")).unwrap();
    assert!(ask(&mut plain, "tls").starts_with("no tls "));
    // A handler that waited for room is told when there is room, also if the kernel took everything
    // at once.
    for count in [300_000, 1_000_000, 20_000_000] {
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        plain.write_all(format!("big {count}\n").as_bytes()).unwrap();
        let mut bytes = vec![0; count];
        plain.read_exact(&mut bytes).unwrap();
        assert!(bytes == pattern(count), "other bytes than were sent");
    }
    let mut session = authority.client().connect(address(&host), "localhost").unwrap();
    assert!(ask(&mut session, "tls").starts_with("tls "));
    drop((plain, session));
    host.stop();
}

/// A program of another project, if it is installed. Otherwise says so on stderr.
fn installed(program: &str) -> Option<Command> {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        // Written directly: the test runner hides the output of tests that pass.
        let _ = writeln!(std::io::stderr(), "{program} is not installed: a test with it was not run");
    }
    found.then(|| Command::new(program))
}

#[test]
fn openssl_and_curl() {
    let authority = Authority::new();
    let setup = setup(&authority, "alpn = [\"http/1.1\"]");
    put(setup.folder(), "ca.pem", &authority.0.pem());
    let host = setup.start();
    let (at, ca) = (address(&host), host.path("ca.pem"));
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(mut openssl) = installed("openssl") else { break };
        openssl.args(["s_client", version, "-quiet", "-verify_return_error", "-servername", "localhost", "-alpn", "http/1.1", "-CAfile"]);
        openssl.arg(&ca).arg("-connect").arg(at.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = openssl.spawn().expect("openssl");
        client.stdin.take().unwrap().write_all(b"tls\nsay hello\nclose\n").unwrap();
        let output = client.wait_with_output().unwrap();
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with("tls alpn=http/1.1 name=localhost ") && text.ends_with("\nhello\nbye\n"), "{text}{errors}");
        assert!(output.status.success(), "{errors}");
    }
    if let Some(mut curl) = installed("curl") {
        curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]).arg(&ca);
        let url = format!("https://localhost:{}/", at.port());
        let output = curl.arg("--resolve").arg(format!("localhost:{}:127.0.0.1", at.port())).arg(url).output().unwrap();
        assert!(output.status.success() && output.stdout == b"ok", "{}", String::from_utf8_lossy(&output.stderr));
    }
    host.stop();
}

#[test]
fn check_validates_certificates() {
    let authority = Authority::new();
    let folder = |setup: &Setup| setup.folder().to_path_buf();
    let good = setup(&authority, "");
    let checked = good.run("check");
    assert_eq!((checked.code, checked.errors.as_str()), (0, ""));
    // Expired: a warning, and the host would start.
    authority.certify(&folder(&good), "server", "localhost", 2021);
    let checked = good.run("check");
    assert_eq!(checked.code, 0, "{}", checked.errors);
    assert!(
        checked.errors.contains("a certificate expired on 2021-12-31: ") && checked.errors.contains("modhost.toml:"),
        "{}",
        checked.errors
    );
    // All errors at once, each with a position.
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (name, text, parts) in [
        ("server.key", key.as_str(), ["the key does not belong to the certificate", "comes first in its file"]),
        ("server.key", "nothing", ["there is no private key in the file", "BEGIN PRIVATE KEY"]),
        ("server.pem", "nothing", ["there is no certificate in the file", "BEGIN CERTIFICATE"]),
        ("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ["a certificate cannot be parsed", "server.pem"]),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ["something other than authorities", "ca.pem"]),
    ] {
        let setup = setup(&authority, "client_ca = \"ca.pem\"");
        put(setup.folder(), "ca.pem", &authority.0.pem());
        put(setup.folder(), name, text);
        let checked = setup.run("check");
        assert_eq!(checked.code, 2, "{}", checked.errors);
        for part in parts.into_iter().chain(["modhost.toml:"]) {
            assert!(checked.errors.contains(part), "{name}: without {part:?}: {}", checked.errors);
        }
        // The host does not start, for the same reason.
        let ended = setup.allow_log("").fails(2);
        assert!(ended.log.contains(parts[0]));
    }
    let missing = setup(&authority, "");
    fs::remove_file(folder(&missing).join("server.key")).unwrap();
    let checked = missing.run("check");
    assert!(checked.code == 2 && checked.errors.contains("cannot read") && checked.errors.contains("no such file"), "{}", checked.errors);
    assert!(checked.errors.contains(quoted(&folder(&missing).join("server.key").display().to_string()).trim_matches('"')));
}
