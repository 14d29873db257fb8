//! Packet information: the address that each datagram of a batch was sent to, and the long names of
//! Unix peers. Needed for sockets that are not bound to one internet address.
//!
//! *Runs in:* every process that serves such sockets. *Never:* touched by a process that serves
//! none: it has its own pages.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

use super::buffers::BATCH;
use super::socket::{BoundTo, Socket};
use crate::sys::socket::socket_address::{SOCKET_ADDRESS_BYTES, SocketAddress};

/// Size of the control messages of one received datagram: one `in_pktinfo` and one `in6_pktinfo`
/// with their headers, 32 and 40 bytes.
const IN_CONTROL_BYTES: usize = 80;
/// Size of the larger of them.
const OUT_CONTROL_BYTES: usize = 40;
/// Size of a `sockaddr_in6`.
const INET_BYTES: usize = 28;

type OutControl = [u64; OUT_CONTROL_BYTES / 8];

/// The information about one batch. Indices are those of the receive headers, unless noted.
#[repr(C)]
pub(super) struct PacketInfo {
    peers: [[u64; SOCKET_ADDRESS_BYTES / 8]; BATCH],
    in_control: [[u64; IN_CONTROL_BYTES / 8]; BATCH],
    out_control: [OutControl; BATCH],
    /// The IPv4 form of mapped peers, for the handler.
    unmapped_peers: [[u32; INET_BYTES / 4]; BATCH],
    locals: [[u32; INET_BYTES / 4]; BATCH],
    out_control_len: [u8; BATCH],
    peer_len: [u16; BATCH],
    /// By position in the handler's batch: the index of the header that received the datagram.
    header_of: [u8; BATCH],
}

/// The addresses of one datagram, as the handler sees them.
pub(super) struct Endpoints {
    pub peer: *const libc::c_void,
    pub peer_len: u16,
    pub local: *const libc::c_void,
    pub local_len: u16,
}

/// The destination of an answer, for the header of a message.
pub(super) struct ReplyDestination {
    pub name: *mut libc::c_void,
    pub name_len: u32,
    pub control: *mut libc::c_void,
    pub control_len: usize,
}

impl PacketInfo {
    /// Makes the header ready to receive.
    ///
    /// # Safety
    /// `this` is valid, zeroed at first, and outlives the header's use; `index` is below `BATCH`.
    pub unsafe fn prepare_header(this: *mut Self, index: usize, header: &mut libc::msghdr) {
        // SAFETY: the caller's contract.
        unsafe {
            header.msg_name = (&raw mut (*this).peers[index]).cast();
            header.msg_namelen = SOCKET_ADDRESS_BYTES as u32;
            header.msg_control = (&raw mut (*this).in_control[index]).cast();
            header.msg_controllen = IN_CONTROL_BYTES;
            header.msg_flags = 0;
        }
    }

    /// Records the datagram that was received with the header, as the `nth` of the handler's batch.
    ///
    /// # Safety
    /// As for `prepare_header`, which was called with this header before the datagram was received;
    /// `nth` is below `BATCH`.
    pub unsafe fn record(this: *mut Self, index: usize, nth: usize, header: &libc::msghdr, socket: &Socket) -> Endpoints {
        // SAFETY: the caller's contract; nobody else reads or writes the memory while this runs.
        let this = unsafe { &mut *this };
        this.header_of[nth] = index as u8;
        let len = header.msg_namelen.min(SOCKET_ADDRESS_BYTES as u32) as u16;
        // A Unix socket without a name has at most a family.
        let len = if len <= 2 { 0 } else { len };
        this.peer_len[index] = len;
        this.out_control_len[index] = 0;
        let bound = &socket.name;
        let mut ends =
            Endpoints { peer: this.peers[index].as_ptr().cast(), peer_len: len, local: bound.as_ptr(), local_len: bound.len_bytes() };
        if socket.bound_to == BoundTo::Unix {
            return ends;
        }
        if socket.bound_to == BoundTo::AnyAddress
            && let Some(peer) = peer_of(&this.peers[index], len)
            && let IpAddr::V4(ip) = peer.ip().to_canonical()
        {
            let unmapped = SocketAddress::from(SocketAddr::new(ip.into(), peer.port()));
            (ends.peer, ends.peer_len) = (this.unmapped_peers[index].as_ptr().cast(), unmapped.len_bytes());
            copy_inet(&unmapped, &mut this.unmapped_peers[index]);
        }
        // SAFETY: the kernel has just written the control messages that the header describes.
        if let Some(sent_to) = unsafe { SentTo::of(header) } {
            let port = bound.inet().map_or(0, |address| address.port());
            let local = SocketAddress::from(sent_to.local(port));
            (ends.local, ends.local_len) = (this.locals[index].as_ptr().cast(), local.len_bytes());
            copy_inet(&local, &mut this.locals[index]);
            if let Some(source) = sent_to.reply_source {
                this.out_control_len[index] = source.write(&mut this.out_control[index]) as u8;
            }
        }
        ends
    }

    /// The destination of the answer to the `nth` datagram of the batch. None if its sender has no
    /// name.
    ///
    /// # Safety
    /// `this` is valid; `nth` is below the number of recorded datagrams.
    pub unsafe fn reply_destination(this: *mut Self, nth: usize) -> Option<ReplyDestination> {
        // SAFETY: the caller's contract; `record` has noted an index below BATCH.
        unsafe {
            let index = usize::from((*this).header_of[nth]);
            let (name_len, control_len) = ((*this).peer_len[index], (*this).out_control_len[index]);
            let control = if control_len > 0 { (&raw mut (*this).out_control[index]).cast() } else { ptr::null_mut() };
            let name = (&raw mut (*this).peers[index]).cast();
            (name_len > 0).then_some(ReplyDestination { name, name_len: name_len.into(), control, control_len: control_len.into() })
        }
    }
}

fn peer_of(words: &[u64; SOCKET_ADDRESS_BYTES / 8], len: u16) -> Option<SocketAddr> {
    let mut bytes = [0; SOCKET_ADDRESS_BYTES];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddress::from_bytes(bytes.get(..usize::from(len))?)?.inet()
}

fn copy_inet(name: &SocketAddress, place: &mut [u32; INET_BYTES / 4]) {
    for (word, bytes) in place.iter_mut().zip(name.as_bytes().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

/// The address that a datagram was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SentTo {
    ip: IpAddr,
    interface: u32,
    /// None: the kernel chooses the source of the answer.
    reply_source: Option<ReplySource>,
}

impl SentTo {
    /// Reads the control messages of a received datagram.
    ///
    /// # Safety
    /// The header describes control messages that the kernel has written.
    unsafe fn of(header: &libc::msghdr) -> Option<Self> {
        let mut found = None;
        // SAFETY: the caller's contract; the macros stay inside the memory that the header
        // describes, and each message of the kernel is as long as the struct of its kind.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                let data = libc::CMSG_DATA(message);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        let ip = |address: libc::in_addr| Ipv4Addr::from(address.s_addr.to_ne_bytes());
                        let source = ip(info.ipi_spec_dst);
                        let reply_source = (!source.is_unspecified()).then_some(ReplySource::V4(source));
                        // For IPv4 this message is authoritative, also if both kinds are there.
                        return Some(Self { ip: ip(info.ipi_addr).into(), interface: info.ipi_ifindex.cast_unsigned(), reply_source });
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                        let (ip, interface) = (Ipv6Addr::from(info.ipi6_addr.s6_addr), info.ipi6_ifindex);
                        let can_reply = !ip.is_multicast() && ip.to_ipv4_mapped().is_none();
                        let reply_source = can_reply.then(|| ReplySource::of(ip.into(), interface));
                        found = Some(Self { ip: IpAddr::V6(ip).to_canonical(), interface, reply_source });
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        found
    }

    fn local(&self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), port),
            IpAddr::V6(ip) => {
                let scoped = ip.is_unicast_link_local() || ip.is_multicast();
                SocketAddrV6::new(ip, port, 0, if scoped { self.interface } else { 0 }).into()
            }
        }
    }
}

/// The address that an answer is sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplySource {
    V4(Ipv4Addr),
    /// With the number of the interface for a link-local address, 0 otherwise.
    V6(Ipv6Addr, u32),
}

impl ReplySource {
    /// Memory for `write`.
    pub const NO_CONTROL: OutControl = [0; OUT_CONTROL_BYTES / 8];

    pub fn of(ip: IpAddr, interface: u32) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip, if ip.is_unicast_link_local() { interface } else { 0 }),
        }
    }

    /// Writes it as a control message. Returns the message's length in bytes.
    pub fn write(self, control: &mut OutControl) -> usize {
        let start = control.as_mut_ptr().cast::<u8>();
        match self {
            Self::V4(ip) => {
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
                // SAFETY: the buffer has room for a header and either of the structs, aligned to 8.
                unsafe { write_control(start, libc::IPPROTO_IP, libc::IP_PKTINFO, info) }
            }
            Self::V6(ip, interface) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: interface };
                // SAFETY: as above.
                unsafe { write_control(start, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) }
            }
        }
    }
}

/// # Safety
/// `start` is aligned to 8 and has room for a header and `info`.
unsafe fn write_control<T>(start: *mut u8, level: i32, kind: i32, info: T) -> usize {
    // SAFETY: the caller's contract; CMSG_LEN and CMSG_SPACE compute with numbers only.
    unsafe {
        let header = start.cast::<libc::cmsghdr>();
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as usize;
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(info);
        libc::CMSG_SPACE(size_of::<T>() as u32) as usize
    }
}
