//! Batches over real sockets: sizes, order, the source of answers, Unix peers.

use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::*;
use crate::net::address::{Address, InetBind};
use crate::sys::socket::socket_address::SocketAddress;

fn echo(datagrams: &Datagrams, socket: &Socket) -> usize {
    let count = datagrams.receive(socket, 3, ReceiveWait::Block).unwrap();
    for index in 0..count {
        // SAFETY: `receive` has filled in `count` datagrams.
        let datagram = unsafe { &*(*datagrams.batch()).datagrams.add(index) };
        if index % 2 == 0 {
            datagrams.queue(index, datagram.data, datagram.len as usize).unwrap();
        } else {
            // SAFETY: data and len describe the received bytes.
            datagrams.copy(index, unsafe { std::slice::from_raw_parts(datagram.data, datagram.len as usize) }).unwrap();
        }
    }
    datagrams.send_queued();
    count
}

#[test]
fn datagrams_of_every_size_are_echoed_unchanged() {
    let (server, client) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    let server = Socket::of(server.into()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let datagrams = Datagrams::new().unwrap();
    let mut back = vec![0; 70_000];
    for length in [0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 9_000, MAX_DATAGRAM_BYTES] {
        let sent: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        client.send(&sent).unwrap();
        assert_eq!(echo(datagrams, &server), 1);
        let received = client.recv(&mut back).unwrap();
        assert!(back[..received] == sent[..], "length {length}");
    }
    for round in 0..3 * BATCH {
        client.send(&[round as u8; 100]).unwrap();
    }
    let mut answered = 0;
    while answered < 3 * BATCH {
        answered += echo(datagrams, &server);
    }
    for round in 0..3 * BATCH {
        let received = client.recv(&mut back).unwrap();
        assert_eq!(back[..received], [round as u8; 100]);
    }
}

#[test]
fn answers_out_of_range_are_refused() {
    let socket = Socket::of(UdpSocket::bind("127.0.0.1:0").unwrap().into()).unwrap();
    let datagrams = Datagrams::new().unwrap();
    assert_eq!(datagrams.receive(&socket, 0, ReceiveWait::Poll), Ok(0));
    assert_eq!(datagrams.queue(0, b"x".as_ptr(), 1), Err(Errno::EINVAL), "nothing was received");
    assert!(datagrams.buffer(MAX_DATAGRAM_BYTES + 1).is_none());
    assert!(datagrams.buffer(10).is_some());
    assert_eq!(datagrams.commit(0, 11), Err(Errno::EINVAL));
}

/// The peer and the local address of the first datagram of the batch.
fn ends(datagrams: &Datagrams) -> (Option<SocketAddress>, SocketAddress) {
    // SAFETY: a datagram was received, and the batch describes its addresses.
    unsafe {
        let datagram = &*(*datagrams.batch()).datagrams;
        let bytes = |start: *const libc::c_void, len: u16| std::slice::from_raw_parts(start.cast::<u8>(), len.into());
        let peer = SocketAddress::from_bytes(bytes(datagram.peer, datagram.peer_len));
        (peer, SocketAddress::from_bytes(bytes(datagram.local, datagram.local_len)).unwrap())
    }
}

#[test]
fn a_socket_of_all_addresses_answers_from_the_address_that_was_asked() {
    let server =
        Socket::of(crate::net::bind::bind(&Address::Udp(InetBind::with_default_options("0.0.0.0:0".parse().unwrap()))).unwrap()).unwrap();
    let port = server.name.inet().unwrap().port();
    let datagrams = Datagrams::new().unwrap();
    for asked in ["127.0.0.1", "127.0.0.2", "127.3.2.1"] {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", (asked, port)).unwrap();
        assert_eq!(echo(datagrams, &server), 1);
        let (peer, local) = ends(datagrams);
        assert_eq!((peer.unwrap().inet(), local.to_string()), (client.local_addr().ok(), format!("{asked}:{port}")));
        let (_, from) = client.recv_from(&mut [0; 9]).unwrap();
        assert_eq!(from.to_string(), format!("{asked}:{port}"));
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = SocketAddress::from(client.local_addr().unwrap());
    server.send(Some("127.0.0.9".parse().unwrap()), &name, b"y").unwrap();
    assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1.to_string(), format!("127.0.0.9:{port}"));
    assert!(server.send(Some("192.0.2.99".parse().unwrap()), &name, b"y").is_err(), "not an address of this machine");
}

#[test]
fn unix_peers_may_have_no_name_and_send_too_long_datagrams() {
    let name = |name: &str| SocketAddr::from_abstract_name(format!("modhost-test-{}-{name}", std::process::id())).unwrap();
    let server = Socket::of(UnixDatagram::bind_addr(&name("server")).unwrap().into()).unwrap();
    let named = UnixDatagram::bind_addr(&name("client")).unwrap();
    let datagrams = Datagrams::new().unwrap();
    named.send_to_addr(b"hello", &name("server")).unwrap();
    assert_eq!(echo(datagrams, &server), 1);
    let (peer, local) = ends(datagrams);
    assert_eq!(
        (peer.unwrap().to_string(), local.to_string()),
        (format!("@modhost-test-{}-client", std::process::id()), format!("@modhost-test-{}-server", std::process::id()))
    );
    let mut back = [0; 9];
    assert_eq!((named.recv(&mut back).unwrap(), &back[..5]), (5, &b"hello"[..]));

    UnixDatagram::unbound().unwrap().send_to_addr(b"anonymous", &name("server")).unwrap();
    assert_eq!(datagrams.receive(&server, 0, ReceiveWait::Block), Ok(1));
    assert!(ends(datagrams).0.is_none());
    assert_eq!(datagrams.queue(0, b"x".as_ptr(), 1), Err(Errno::EDESTADDRREQ));
    assert_eq!(datagrams.copy(0, b"x"), Err(Errno::EDESTADDRREQ));

    // A datagram that is too long, between two that are not: the batch has those, with their
    // senders.
    named.send_to_addr(b"first", &name("server")).unwrap();
    named.send_to_addr(&vec![1; MAX_DATAGRAM_BYTES + 1], &name("server")).unwrap();
    named.send_to_addr(&vec![2; MAX_DATAGRAM_BYTES], &name("server")).unwrap();
    let mut answered = 0;
    while answered < 2 {
        answered += echo(datagrams, &server);
    }
    assert_eq!((datagrams.take_too_long(), datagrams.take_sent().1), (1, 0));
    let mut back = vec![0; 70_000];
    assert_eq!((named.recv(&mut back).unwrap(), named.recv(&mut back).unwrap()), (5, MAX_DATAGRAM_BYTES));

    // A peer that does not read: answers that do not fit into its queue are counted, and nobody
    // waits.
    named.set_nonblocking(true).unwrap();
    for _ in 0..500 {
        named.send_to_addr(b"again", &name("server")).unwrap();
        assert_eq!(echo(datagrams, &server), 1);
    }
    assert!(datagrams.take_sent().1 > 0);
}
