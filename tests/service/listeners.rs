//! Addresses and sockets of listeners: Unix sockets, both families, several addresses, interfaces,
//! groups.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr as UnixName, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

use harness::setup::{module, quoted};
use harness::{Client, Host, PATIENCE, Setup, fixture, is_root, processes};
use rustix::net::sockopt;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A client of a Unix datagram listener, bound in the host's folder.
struct UnixClient(UnixDatagram);

impl UnixClient {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).expect("a socket for the client"))
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(socket)
    }

    fn ask(&self, server: &Path, text: &str) -> String {
        self.0.send_to(text.as_bytes(), server).expect("a listener");
        self.receive()
    }

    fn receive(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

/// Says on stderr that a test was skipped for want of something.
fn not_run(what: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {what}: not run", std::thread::current().name().unwrap_or("a test"));
}

fn has_ipv6() -> bool {
    let has = UdpSocket::bind("[::1]:0").is_ok();
    if !has {
        not_run("needs the loopback address of IPv6");
    }
    has
}

fn port_of(host: &Host) -> u16 {
    host.address(0).port()
}

fn ask(server: SocketAddr, text: &str) -> String {
    Client::of(server).ask_text(text)
}

/// Runs a test in a new network namespace that these commands prepare. Needs root, `ip` and
/// `unshare`.
fn in_own_network(commands: &str, test: impl FnOnce() + Send + 'static) {
    if !is_root() {
        return;
    }
    // The namespace exists until the shell's standard input ends.
    let script = format!("ip link set lo up; {commands} && echo made; read end");
    let made = Command::new("unshare").args(["-n", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut keeper) = made else { return not_run("needs unshare and ip") };
    let mut outcome = String::new();
    BufReader::new(keeper.stdout.take().expect("its output")).read_line(&mut outcome).expect("its output");
    let namespace = fs::File::open(format!("/proc/{}/ns/net", keeper.id()));
    drop(keeper.stdin.take());
    keeper.wait().expect("its end");
    if outcome != "made\n" {
        return not_run("needs ip and virtual interfaces");
    }
    let namespace = namespace.expect("a namespace");
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let inside = std::thread::Builder::new().name(name).spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("to enter the namespace");
        test();
    });
    if let Err(panic) = inside.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

/// Two connected interfaces; `va` has addresses.
const VETH: &str = "ip link add va type veth peer name vb && ip link set vb up && ip link set va up && ip addr add 10.9.8.7/24 dev va && \
                    ip addr add 10.9.8.6/24 dev va && ip addr add fd00:98::7/64 dev va nodad && ip addr add fe80::7/64 dev va nodad && \
                    ip route add 239.0.0.0/8 dev va";

#[test]
fn a_unix_socket_answers_named_clients_and_receives_from_others() {
    let setup = Setup::new().module(fixture("recorder_a")).module(module("echo"));
    let keys = [format!("unixgram = {}", setup.path("a")), format!("unixgram = [{}, {}]", setup.path("e"), setup.path("f"))];
    let host = setup.listen_with(&keys[0], "recorder_a:serve", Some(1)).listen_with(&keys[1], "echo", Some(2)).control().start();
    let (server, client) = (host.path("a"), UnixClient::at(&host.path("client")));
    assert_eq!(client.ask(&server, "peer"), host.path("client").display().to_string());
    assert_eq!(client.ask(&server, "local"), server.display().to_string());
    assert_eq!(client.ask(&server, "addresses"), server.display().to_string());
    let abstract_name = UnixName::from_abstract_name(format!("modhost-test-client-{}", host.pid())).unwrap();
    let hidden = UnixClient::of(UnixDatagram::bind_addr(&abstract_name).unwrap());
    assert_eq!(hidden.ask(&server, "peer"), format!("@modhost-test-client-{}", host.pid()));
    assert_eq!(client.ask(&host.path("e"), "one"), "one");
    assert_eq!(client.ask(&host.path("f"), ""), "");
    // Asks to send from another socket of the listener. There is only this one.
    client.0.send_to(format!("send_from {} back", server.display()).as_bytes(), &server).unwrap();
    assert_eq!(client.receive(), "back");
    assert!(client.ask(&server, &format!("send_from {} back", host.path("e").display())).starts_with("the datagram is too long, or"));

    // A client without a name cannot be answered. The answer is refused, and no process ends:
    // neither in a module that checks nor in one that does not.
    let unnamed = UnixDatagram::unbound().unwrap();
    for _ in 0..40 {
        unnamed.send_to(b"max_procs", &server).unwrap();
        unnamed.send_to(b"max_procs", host.path("e")).unwrap();
    }
    let seen = host.wait_for_records("the unnamed peers", 40, |record| record.event == "no_peer");
    assert!(seen.iter().all(|record| record.text("peer") == "unnamed" && record.text("answerable") == "false"));
    assert_eq!(client.ask(&host.path("e"), "still"), "still");
    let info = client.ask(&server, "info");
    assert!(info.contains(" restarts=0 "), "{info}");

    // Titles and the process table name the socket.
    let titles: Vec<String> = host.children_of(host.main_pid()).into_iter().map(processes::title).collect();
    let title = format!("modhost: worker 1 unixgram {}", server.display());
    assert!(titles.iter().any(|found| title.starts_with(found.as_str()) || *found == title), "{title}: {titles:?}");
    assert_eq!(host.addresses(1), [host.path("e").display().to_string(), host.path("f").display().to_string()]);
    let paths = ["a", "e", "f"].map(|name| host.path(name));
    let folder = host.stop();
    drop(folder);
    assert!(paths.iter().all(|path| !path.exists()));
}

#[test]
fn a_unix_client_that_does_not_read_delays_no_other() {
    let setup = Setup::new().module(module("echo"));
    let keys = format!("unixgram = {}", setup.path("a"));
    let host = setup.listen_with(&keys, "echo", Some(1)).start();
    let (lazy, client) = (UnixClient::at(&host.path("lazy")), UnixClient::at(&host.path("client")));
    for _ in 0..1000 {
        lazy.0.send_to(b"no room for this", host.path("a")).unwrap();
    }
    assert_eq!(client.ask(&host.path("a"), "quick"), "quick");
    // A datagram longer than the internet allows is dropped whole.
    client.0.send_to(&vec![b'x'; 65_508], host.path("a")).unwrap();
    assert_eq!(client.ask(&host.path("a"), "next"), "next");
    host.stop();
}

#[test]
fn an_abstract_unix_name_has_no_file() {
    let name = format!("modhost-test-{}", std::process::id());
    let keys = format!("unixgram = \"@{name}\"");
    let host = Setup::new().module(fixture("recorder_a")).listen_with(&keys, "recorder_a:serve", None).start();
    let client = UnixClient::at(&host.path("client"));
    let server = UnixName::from_abstract_name(&name).unwrap();
    client.0.send_to_addr(b"local", &server).unwrap();
    assert_eq!(client.receive(), format!("@{name}"));
    // While the host runs, a second one cannot have the name.
    let ended = Setup::new()
        .module(fixture("recorder_a"))
        .listen_with(&keys, "recorder_a:serve", None)
        .expect_log(&format!("modhost: cannot listen on unixgram @{name}"))
        .fails(1);
    assert!(ended.log.contains("another program has that name"), "{}", ended.log);
    host.stop();
    UnixDatagram::bind_addr(&server).expect("free again");
}

#[test]
fn the_file_of_a_unix_socket_is_created_replaced_and_removed() {
    let setup = |mode: &str| {
        let setup = Setup::new().module(module("echo"));
        let keys = format!("unixgram = {}\n{mode}", setup.path("a"));
        setup.listen_with(&keys, "echo", Some(1))
    };
    let mode = |host: &Host| {
        let found = fs::symlink_metadata(host.path("a")).unwrap();
        assert!(found.file_type().is_socket());
        found.permissions().mode() & 0o7777
    };
    // The file that a killed program leaves: no process listens at it.
    let stale = setup("");
    drop(UnixDatagram::bind(stale.folder().join("a")).unwrap());
    assert!(stale.folder().join("a").exists());
    let host = stale.start();
    assert_eq!(mode(&host), 0o660);
    host.stop();
    let host = setup("mode = \"0606\"").start();
    assert_eq!(mode(&host), 0o606);
    host.stop();
    // A socket in use, of this kind or the other; and a file that is no socket.
    let taken = setup("");
    let _server = UnixDatagram::bind(taken.folder().join("a")).unwrap();
    let fails = |setup: Setup, reason: &str| {
        let ended = setup.expect_log("modhost: cannot listen on unixgram ").fails(1);
        assert!(ended.log.contains(reason), "{reason}: {}", ended.log);
    };
    fails(taken, "another process serves it");
    let taken = setup("");
    let _server = std::os::unix::net::UnixListener::bind(taken.folder().join("a")).unwrap();
    fails(taken, "another process serves it");
    let file = setup("");
    fs::write(file.folder().join("a"), "").unwrap();
    fails(file, "something that is not a socket is there");
    let nowhere = Setup::new().module(module("echo"));
    let keys = format!("unixgram = {}", nowhere.path("no/x"));
    fails(nowhere.listen_with(&keys, "echo", None), "create its folder first");
    if is_root() {
        let host = setup("owner = \"65534\"\ngroup = \"12345\"").host("user", "\"65534\"").start();
        let found = fs::symlink_metadata(host.path("a")).unwrap();
        assert_eq!((found.uid(), found.gid(), mode(&host)), (65_534, 12_345, 0o660));
        let client = UnixClient::at(&host.path("client"));
        fs::set_permissions(host.path("client"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(client.ask(&host.path("a"), "as nobody"), "as nobody");
        host.stop();
    }
}

#[test]
fn a_unix_socket_outlives_main_and_is_removed_at_the_end() {
    let setup = Setup::new().module(module("echo"));
    let keys = format!("unixgram = {}", setup.path("a"));
    let host = setup.listen_with(&keys, "echo", Some(1)).expect_log("starting a new main").start();
    let (client, inode) = (UnixClient::at(&host.path("client")), fs::metadata(host.path("a")).unwrap().ino());
    host.kill(host.main_pid());
    host.wait_for_log_lines("ready in ", 2);
    assert_eq!(client.ask(&host.path("a"), "again"), "again");
    assert_eq!(fs::metadata(host.path("a")).unwrap().ino(), inode);
    host.stop();

    let setup = Setup::new().module(fixture("recorder_a")).argument("--no-fork");
    let keys = format!("unixgram = {}", setup.path("a"));
    let host = setup.listen_with(&keys, "recorder_a:serve", None).listen("recorder_a:serve", 1).start();
    let client = UnixClient::at(&host.path("client"));
    assert_eq!(client.ask(&host.path("a"), "local"), host.path("a").display().to_string());
    assert_eq!(ask(host.address(0), "local"), host.address(0).to_string());
    let path = host.path("a");
    host.signal(Signal::TERM);
    let ended = host.ends(0, PATIENCE);
    assert!(!path.exists(), "{}", ended.log);
}

#[test]
fn the_command_line_accepts_unix_sockets() {
    let setup = Setup::new().module(module("echo"));
    let option = format!("unixgram://{}=echo", setup.folder().join("a").display());
    let host = setup.argument("--listen").argument(&option).start();
    assert_eq!(UnixClient::at(&host.path("client")).ask(&host.path("a"), "hello"), "hello");
    host.stop();
}

#[test]
fn all_workers_serve_all_addresses() {
    let keys = "udp = [\"127.0.0.1:0\", \"127.0.0.2:0\", \"127.0.0.3:0\"]";
    let host = Setup::new().module(fixture("recorder_a")).listen_with(keys, "recorder_a:serve", Some(3)).start();
    let addresses: Vec<SocketAddr> = host.addresses(0).iter().map(|address| address.parse().unwrap()).collect();
    assert_eq!(addresses.len(), 3);
    for address in &addresses {
        assert_eq!(ask(*address, "local"), address.to_string());
        assert_eq!(ask(*address, "addresses"), addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    }
    // A stopped worker holds back nothing at any address: the two others serve everything.
    let stopped = host.records().child_inits(1)[0].pid();
    processes::Process::open(stopped).unwrap().stop(harness::Deadline::after(PATIENCE));
    for round in 0..30 {
        let info = ask(addresses[round % 3], "info");
        assert!(!info.contains(&format!(" pid={stopped} ")), "{info}");
    }
    processes::signal_process(stopped, Signal::CONT);
    let titles: Vec<String> = host.children_of(host.main_pid()).into_iter().map(processes::title).collect();
    let title = format!("modhost: worker 1 udp {} (and 2 more)", addresses[0]);
    assert!(titles.contains(&title), "{title}: {titles:?}");
    // Another address of the same listener answers if the module says so.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(format!("send_from {} elsewhere", addresses[1]).as_bytes(), addresses[0]).unwrap();
    let (length, from) = client.recv_from(&mut [0; 100]).unwrap();
    assert_eq!((length, from), (9, addresses[1]));
    host.stop();
}

#[test]
fn many_datagrams_to_several_addresses_are_all_answered() {
    let keys = "udp = [\"127.0.0.1:0\", \"0.0.0.0:0\"]";
    let host = Setup::new().module(module("echo")).listen_with(keys, "echo", Some(2)).start();
    let addresses: Vec<SocketAddr> = host.addresses(0).iter().map(|address| address.parse().unwrap()).collect();
    let second = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addresses[1].port());
    let clients: Vec<Client> = (0..50).map(|number| Client::of(if number % 2 == 0 { addresses[0] } else { second })).collect();
    for round in 0..20 {
        let text = |number: usize| format!("{round} {number}").into_bytes();
        clients.iter().enumerate().for_each(|(number, client)| client.send(&text(number)));
        clients.iter().enumerate().for_each(|(number, client)| assert_eq!(client.receive(), text(number)));
    }
    host.stop();
}

#[test]
fn a_dying_worker_with_several_addresses_leaves_nothing() {
    let keys = "udp = [\"127.0.0.1:0\", \"127.0.0.1:0\"]";
    let host = Setup::new()
        .module(fixture("recorder_a"))
        .listen_with(keys, "recorder_a:serve", Some(1))
        .expect_log("how=\"was killed by SIGSEGV\"")
        .expect_log("a process died and is replaced")
        .start();
    let addresses: Vec<SocketAddr> = host.addresses(0).iter().map(|address| address.parse().unwrap()).collect();
    let (first, second) = (Client::of(addresses[0]), Client::of(addresses[1]));
    first.send(b"segv");
    second.send(b"info");
    let info = String::from_utf8(second.receive()).unwrap();
    assert!(info.contains(" restarts=1 ") || info.contains(" restarts=0 "), "{info}");
    assert!(first.ask_text("info").contains(" restarts=1 "));
    host.stop();
}

#[test]
fn answers_come_from_the_requested_address() {
    let host = Setup::new().module(fixture("recorder_a")).listen_at("0.0.0.0:0", "recorder_a:serve", Some(1)).start();
    let port = port_of(&host);
    for asked in ["127.0.0.1", "127.0.0.2", "127.200.3.4"] {
        let server: SocketAddr = format!("{asked}:{port}").parse().unwrap();
        // The client accepts answers from this address only.
        assert_eq!(ask(server, "local"), server.to_string());
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let server: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    client.send_to(format!("send_from 127.9.9.9:{port} chosen").as_bytes(), server).unwrap();
    let (_, from) = client.recv_from(&mut [0; 100]).unwrap();
    assert_eq!(from.to_string(), format!("127.9.9.9:{port}"));
    // An address of another machine, another port, a group, another family.
    for local in [format!("192.0.2.254:{port}"), "127.0.0.1:9".into(), format!("239.1.1.1:{port}"), format!("[::1]:{port}")] {
        let answer = ask(server, &format!("send_from {local} x"));
        assert!(answer.contains("cannot reach the peer"), "{local}: {answer}");
    }
    host.stop();
}

#[test]
fn ipv6_only_by_default_and_both_families_if_configured() {
    if !has_ipv6() {
        return;
    }
    let host = Setup::new().module(fixture("recorder_a")).listen_at("[::]:0", "recorder_a:serve", Some(1)).start();
    let port = port_of(&host);
    let v6: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    assert_eq!(ask(v6, "local"), v6.to_string());
    // An address that no other program uses, whichever ports are in use.
    UdpSocket::bind(("127.77.88.99", port)).expect("IPv4 is free");
    host.stop();

    let host =
        Setup::new().module(fixture("recorder_a")).listen_with("udp = \"[::]:0\"\nv6only = false", "recorder_a:serve", Some(1)).start();
    let port = port_of(&host);
    for asked in ["[::1]", "127.0.0.1", "127.0.0.2"] {
        let server: SocketAddr = format!("{asked}:{port}").parse().unwrap();
        let client = Client::of(server);
        assert_eq!(client.ask_text("local"), server.to_string());
        // The module sees an IPv4 peer with its IPv4 address.
        assert_eq!(client.ask_text("peer"), client.address().to_string());
        assert_eq!(client.ask_text(&format!("send 0 {} direct", "127.0.0.1:9")), "0");
    }
    let client = Client::of(format!("127.0.0.3:{port}").parse().unwrap());
    client.send(format!("send_from 127.0.0.3:{port} chosen").as_bytes());
    assert_eq!(client.receive(), b"chosen");
    host.stop();

    let keys = "udp = [\"127.0.0.1:0\", \"[::1]:0\"]";
    let host = Setup::new().module(fixture("recorder_a")).listen_with(keys, "recorder_a:serve", Some(2)).start();
    for address in host.addresses(0) {
        assert_eq!(ask(address.parse().unwrap(), "local"), address);
    }
    host.stop();
}

#[test]
fn a_listener_can_be_bound_to_an_interface() {
    let host = Setup::new().module(fixture("recorder_a")).listen_at("lo:0", "recorder_a:serve", Some(1)).start();
    let addresses = host.addresses(0);
    assert!(addresses.iter().any(|address| address.starts_with("127.0.0.1:")), "{addresses:?}");
    for address in &addresses {
        assert_eq!(ask(address.parse().unwrap(), "local"), *address);
    }
    host.stop();
    // Only datagrams that arrive at the interface.
    let host = Setup::new()
        .module(fixture("recorder_a"))
        .listen_with("udp = \"0.0.0.0:0\"\ninterface = \"lo\"", "recorder_a:serve", Some(1))
        .start();
    let server = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port_of(&host));
    assert_eq!(ask(server, "local"), server.to_string());
    host.stop();
    for (keys, name) in [("udp = \"nowhere0:0\"", "nowhere0"), ("udp = \"0.0.0.0:0\"\ninterface = \"nowhere1\"", "nowhere1")] {
        let ended = Setup::new()
            .module(fixture("recorder_a"))
            .listen_with(keys, "recorder_a:serve", None)
            .expect_log(&format!("there is no interface \"{name}\""))
            .fails(2);
        assert!(ended.log.contains("the interfaces here are ") && ended.log.contains("lo"), "{}", ended.log);
    }
}

#[test]
fn a_listener_joins_an_ipv4_multicast_group() {
    let host = Setup::new()
        .module(fixture("recorder_a"))
        .listen_with("udp = \"0.0.0.0:0\"\nmulticast = \"239.1.2.3%lo\"", "recorder_a:serve", Some(1))
        .start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    sockopt::set_ip_multicast_if(&client, &Ipv4Addr::LOCALHOST).unwrap();
    client.send_to(b"local", ("239.1.2.3", port_of(&host))).unwrap();
    let mut buffer = [0; 100];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..length]), format!("239.1.2.3:{}", port_of(&host)));
    assert_eq!(from, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port_of(&host)), "from an address of the interface");
    host.stop();
}

#[test]
fn link_local_addresses_groups_and_interfaces_on_a_real_network() {
    in_own_network(VETH, || {
        let keys = "udp = [\"[fe80::7%va]:0\", \"va:0\"]";
        let host = Setup::new().module(fixture("recorder_a")).listen_with(keys, "recorder_a:serve", Some(1)).start();
        let addresses = host.addresses(0);
        assert!(addresses[0].starts_with("[fe80::7%"), "{addresses:?}");
        for own in ["10.9.8.7:", "10.9.8.6:", "[fd00:98::7]:", "[fe80::7%"] {
            assert!(addresses[1..].iter().any(|address| address.starts_with(own)), "{own} {addresses:?}");
        }
        let peer = UdpSocket::bind(addresses[0].parse::<SocketAddr>().map(|own| SocketAddr::new(own.ip(), 0)).unwrap());
        assert!(peer.is_err(), "a link-local address needs its interface");
        for address in addresses.iter().filter(|address| !address.contains('%')) {
            let server: SocketAddr = address.parse().unwrap();
            let client = UdpSocket::bind(SocketAddr::new(server.ip(), 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"local", server).unwrap();
            let mut buffer = [0; 100];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((String::from_utf8_lossy(&buffer[..length]).as_ref(), from), (address.as_str(), server));
        }
        host.stop();

        // Groups of both families at a socket for both families. They are joined on the listener's
        // interface.
        let keys = "udp = \"[::]:0\"\nv6only = false\ninterface = \"va\"\nmulticast = [\"239.1.2.3\", \"ff02::1:3\"]";
        let host = Setup::new().module(fixture("recorder_a")).listen_with(keys, "recorder_a:serve", Some(1)).start();
        let port = port_of(&host);
        let mut buffer = [0; 100];
        let scope = addresses[0].split(['%', ']']).nth(1).unwrap().to_owned();
        for (own, group, answers) in [
            ("10.9.8.7:0".to_owned(), format!("239.1.2.3:{port}"), "10.9.8.".to_owned()),
            (format!("[fe80::7%{scope}]:0"), format!("[ff02::1:3%{scope}]:{port}"), "[fe80::".to_owned()),
        ] {
            let client = UdpSocket::bind(own.parse::<SocketAddr>().unwrap()).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"local", group.parse::<SocketAddr>().unwrap()).unwrap();
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..length]), group);
            assert!(from.to_string().starts_with(&answers), "{from}");
            // A datagram to the address itself is answered from it.
            client.send_to(b"local", from).unwrap();
            let (length, again) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((String::from_utf8_lossy(&buffer[..length]).into_owned(), again), (from.to_string(), from));
        }
        host.stop();

        // No route and no interface: the error names the group.
        let ended = Setup::new()
            .module(fixture("recorder_a"))
            .listen_with("udp = \"0.0.0.0:0\"\nmulticast = \"224.7.7.7\"", "recorder_a:serve", None)
            .expect_log("cannot join the multicast group 224.7.7.7 for udp 0.0.0.0:0")
            .fails(1);
        assert!(ended.log.contains("name the interface: \"224.7.7.7%eth0\""), "{}", ended.log);
    });
}

#[test]
fn buffer_sizes_and_busy_polling_are_set() {
    let keys = "udp = \"127.0.0.1:0\"\nreceive_buffer = \"64KiB\"\nsend_buffer = \"64KiB\"";
    let host = Setup::new().module(module("echo")).listen_with(keys, "echo", Some(1)).start();
    assert_eq!(host.client().ask(b"x"), b"x");
    // The kernel counts twice the requested size.
    if let Some(memory) = socket_memory(port_of(&host)) {
        assert!(memory.contains(",rb131072,") && memory.contains(",tb131072,"), "{memory}");
    }
    host.stop();
    if is_root() {
        let keys = "udp = \"127.0.0.1:0\"\nreceive_buffer = \"16MiB\"\nbusy_poll = \"50us\"";
        let host = Setup::new().module(module("echo")).listen_with(keys, "echo", Some(1)).start();
        assert_eq!(host.client().ask(b"x"), b"x");
        if let Some(memory) = socket_memory(port_of(&host)) {
            assert!(memory.contains(",rb33554432,"), "root goes past the limit: {memory}");
        }
        host.stop();
        // Another user cannot exceed the limits: the host logs their names and serves.
        let keys = "udp = \"127.0.0.1:0\"\nreceive_buffer = \"512MiB\"\nsend_buffer = \"512MiB\"\nbusy_poll = \"5ms\"";
        let host = Setup::new()
            .module(module("echo"))
            .listen_with(keys, "echo", Some(1))
            .expect_log("the receive buffer is smaller than configured")
            .expect_log("raise net.core.rmem_max")
            .expect_log("raise net.core.wmem_max")
            .expect_log("busy polling is off")
            .start_as(65_534);
        assert_eq!(host.client().ask(b"x"), b"x");
        host.stop();
    }
}

/// The memory of the socket at that port as `ss` shows it. None without `ss`; that is said on
/// stderr.
fn socket_memory(port: u16) -> Option<String> {
    let output = Command::new("ss").args(["-lunmH", &format!("sport = :{port}")]).output();
    let Ok(output) = output else {
        not_run("needs ss");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn check_and_ps_name_every_address() {
    let setup = Setup::new().module(module("echo"));
    let keys = format!("unixgram = [{}, \"@x\"]", setup.path("a"));
    let setup = setup.listen_with("udp = [\"127.0.0.1:0\", \"lo:7\"]", "echo", None).listen_with(&keys, "echo", None);
    let checked = setup.run("check");
    assert_eq!(checked.code, 0, "{}", checked.errors);
    let path = setup.folder().join("a").display().to_string();
    for part in ["udp://127.0.0.1:0, udp://lo:7", &format!("unixgram://{path}, unixgram://@x")] {
        assert!(checked.output.contains(part), "{part}: {}", checked.output);
    }
    // Errors that depend on this machine: users, interfaces, and the length of a full path.
    let long = "x".repeat(100);
    let setup = Setup::new()
        .module(module("echo"))
        .listen_with("unixgram = \"x\"\nowner = \"no-such-user\"", "echo", None)
        .listen_with("udp = \"0.0.0.0:1\"\nmulticast = \"239.1.1.1%nowhere2\"", "echo", None)
        .listen_with(&format!("unixgram = {}", quoted(&format!("{long}y"))), "echo", None);
    let checked = setup.run("check");
    assert_eq!(checked.code, 2);
    for part in ["unknown user \"no-such-user\"", "there is no interface \"nowhere2\"", "the path of a socket is too long", "modhost.toml:"]
    {
        assert!(checked.errors.contains(part), "{part}: {}", checked.errors);
    }
}
