//! What an engine needs beyond plain datagrams: long names, and where a datagram was sent to.
//!
//! *Runs in:* every process that serves such sockets. *Never:* touched by one that serves none: it lies on pages of its own.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use crate::sys::socket::options::v6only;
use crate::sys::socket::socket_address::{SOCKET_ADDRESS_BYTES, SocketAddress, mapped};
use crate::sys::udp::datagrams::{BATCH, MAX_DATAGRAM_BYTES};

/// Room for the control messages of one datagram: one `in_pktinfo` and one `in6_pktinfo` with their headers, 32 and 40 bytes.
const IN_CONTROL_BYTES: usize = 80;
/// Room for one of them.
const OUT_CONTROL_BYTES: usize = 40;
/// Room for a `sockaddr_in6`.
const INET_BYTES: usize = 28;

/// What must be known about a socket besides its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketForm {
    /// Bound to one address of the internet: nothing.
    Plain,
    /// Bound to every IPv4 address.
    Any4,
    /// Bound to every IPv6 address.
    Any6,
    /// Bound to every address of both families.
    AnyBoth,
    /// A Unix socket.
    Unix,
}

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    /// Where it is bound.
    pub name: SocketAddress,
    /// What kind it is.
    pub form: SocketForm,
}

impl Socket {
    /// Asks the kernel what it is.
    pub fn of(descriptor: OwnedFd) -> Result<Self, Errno> {
        let name = SocketAddress::of(descriptor.as_fd())?;
        let form = match name.inet() {
            None => SocketForm::Unix,
            Some(address) if !address.ip().is_unspecified() => SocketForm::Plain,
            Some(SocketAddr::V4(_)) => SocketForm::Any4,
            Some(SocketAddr::V6(_)) if v6only(&descriptor)? => SocketForm::Any6,
            Some(SocketAddr::V6(_)) => SocketForm::AnyBoth,
        };
        Ok(Self { descriptor, name, form })
    }

    /// Whether it can send to that address.
    pub fn reaches(&self, peer: &SocketAddress) -> bool {
        match (peer.inet(), self.name.inet()) {
            (None, None) => peer.is_unix(),
            (Some(peer), Some(own)) => peer.is_ipv4() == own.is_ipv4() || self.form == SocketForm::AnyBoth,
            _ => false,
        }
    }

    /// Sends one datagram at once, without waiting; from that address, or from the one that the kernel chooses.
    pub fn send(&self, from: Option<IpAddr>, peer: &SocketAddress, data: &[u8]) -> Result<(), Errno> {
        if data.len() > MAX_DATAGRAM_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        let peer = match peer.inet() {
            Some(peer) if self.form == SocketForm::AnyBoth => mapped(peer).into(),
            _ => *peer,
        };
        let mut control = [0_u64; OUT_CONTROL_BYTES / 8];
        // SAFETY: all zeros is an empty header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        header.msg_name = peer.as_ptr().cast_mut();
        header.msg_namelen = peer.len_bytes().into();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        if let Some(from) = from {
            let to = peer.inet().map_or(0, |peer| if let SocketAddr::V6(v6) = peer { v6.scope_id() } else { 0 });
            header.msg_controllen = Source::of(from, to).write(&mut control);
            header.msg_control = control.as_mut_ptr().cast();
        }
        loop {
            // SAFETY: the header points to live buffers of the stated lengths; the kernel copies them before it returns.
            let sent = unsafe { libc::sendmsg(self.descriptor.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
            match Errno::result(sent) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    V4(Ipv4Addr),
    /// With the number of the interface for an address that has a meaning there only, 0 otherwise.
    V6(Ipv6Addr, u32),
}

impl Source {
    fn of(ip: IpAddr, interface: u32) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip, if ip.is_unicast_link_local() { interface } else { 0 }),
        }
    }

    /// As a control message. Its length in bytes.
    fn write(self, control: &mut [u64; OUT_CONTROL_BYTES / 8]) -> usize {
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

/// The memory.
#[repr(C)]
pub(super) struct PacketInfo {
    peers: [[u64; SOCKET_ADDRESS_BYTES / 8]; BATCH],
    in_control: [[u64; IN_CONTROL_BYTES / 8]; BATCH],
    out_control: [[u64; OUT_CONTROL_BYTES / 8]; BATCH],
    /// IPv4 peers of a socket of both families, as IPv4.
    shown: [[u32; INET_BYTES / 4]; BATCH],
    locals: [[u32; INET_BYTES / 4]; BATCH],
    out_control_len: [u8; BATCH],
    peer_len: [u16; BATCH],
    /// Where the n-th datagram that the handler sees was received.
    origin: [u8; BATCH],
}

/// What the engine tells the handler about one datagram.
pub(super) struct PacketEnds {
    pub peer: *const libc::c_void,
    pub peer_len: u16,
    pub local: *const libc::c_void,
    pub local_len: u16,
}

/// Where an answer goes, for the header of a message.
pub(super) struct Envelope {
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
    pub unsafe fn arm(this: *mut Self, index: usize, header: &mut libc::msghdr) {
        // SAFETY: the caller's contract.
        unsafe {
            header.msg_name = (&raw mut (*this).peers[index]).cast();
            header.msg_namelen = SOCKET_ADDRESS_BYTES as u32;
            header.msg_control = (&raw mut (*this).in_control[index]).cast();
            header.msg_controllen = IN_CONTROL_BYTES;
            header.msg_flags = 0;
        }
    }

    /// Looks at what was received with the header, and notes it as the `nth` of the batch.
    ///
    /// # Safety
    /// As for `arm`, which was called with this header before the datagram was received; `nth` is below `BATCH`.
    pub unsafe fn take(this: *mut Self, index: usize, nth: usize, header: &libc::msghdr, socket: &Socket) -> PacketEnds {
        // SAFETY: the caller's contract; nobody else reads or writes the memory while this runs.
        let this = unsafe { &mut *this };
        this.origin[nth] = index as u8;
        let len = header.msg_namelen.min(SOCKET_ADDRESS_BYTES as u32) as u16;
        // A Unix socket without a name has a family at most.
        let len = if len <= 2 { 0 } else { len };
        this.peer_len[index] = len;
        this.out_control_len[index] = 0;
        let bound = &socket.name;
        let mut ends =
            PacketEnds { peer: this.peers[index].as_ptr().cast(), peer_len: len, local: bound.as_ptr(), local_len: bound.len_bytes() };
        if socket.form == SocketForm::Unix {
            return ends;
        }
        if socket.form == SocketForm::AnyBoth
            && let Some(peer) = peer_of(&this.peers[index], len)
            && let IpAddr::V4(ip) = peer.ip().to_canonical()
        {
            let shown = SocketAddress::from(SocketAddr::new(ip.into(), peer.port()));
            (ends.peer, ends.peer_len) = (this.shown[index].as_ptr().cast(), shown.len_bytes());
            copy_inet(&shown, &mut this.shown[index]);
        }
        // SAFETY: the kernel has just written the control messages that the header describes.
        if let Some(target) = unsafe { target(header) } {
            let port = bound.inet().map_or(0, |address| address.port());
            let local = SocketAddress::from(target.local(port));
            (ends.local, ends.local_len) = (this.locals[index].as_ptr().cast(), local.len_bytes());
            copy_inet(&local, &mut this.locals[index]);
            if let Some(source) = target.source {
                this.out_control_len[index] = source.write(&mut this.out_control[index]) as u8;
            }
        }
        ends
    }

    /// Where the answer to the `nth` datagram goes. None: nowhere.
    ///
    /// # Safety
    /// `this` is valid; `nth` is below the number of datagrams that were taken.
    pub unsafe fn envelope(this: *mut Self, nth: usize) -> Option<Envelope> {
        // SAFETY: the caller's contract; `take` has noted an index below BATCH.
        unsafe {
            let index = usize::from((*this).origin[nth]);
            let (name_len, control_len) = ((*this).peer_len[index], (*this).out_control_len[index]);
            let control = if control_len > 0 { (&raw mut (*this).out_control[index]).cast() } else { ptr::null_mut() };
            let name = (&raw mut (*this).peers[index]).cast();
            (name_len > 0).then_some(Envelope { name, name_len: name_len.into(), control, control_len: control_len.into() })
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

/// Where a datagram was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    ip: IpAddr,
    interface: u32,
    /// Where the answer must come from; none: the kernel chooses.
    source: Option<Source>,
}

impl Target {
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

/// Reads the control messages of a received datagram.
///
/// # Safety
/// The header describes control messages that the kernel has written.
unsafe fn target(header: &libc::msghdr) -> Option<Target> {
    let mut found = None;
    // SAFETY: the caller's contract; the macros walk inside of what the header describes, and the kernel's messages are whole: each is
    // as long as the struct that belongs to its kind.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let ip = |address: libc::in_addr| Ipv4Addr::from(address.s_addr.to_ne_bytes());
                    let source = ip(info.ipi_spec_dst);
                    let source = (!source.is_unspecified()).then_some(Source::V4(source));
                    // This one knows best about IPv4, also where both are there.
                    return Some(Target { ip: ip(info.ipi_addr).into(), interface: info.ipi_ifindex.cast_unsigned(), source });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let (ip, interface) = (Ipv6Addr::from(info.ipi6_addr.s6_addr), info.ipi6_ifindex);
                    let answers = !ip.is_multicast() && ip.to_ipv4_mapped().is_none();
                    let source = answers.then(|| Source::of(ip.into(), interface));
                    found = Some(Target { ip: IpAddr::V6(ip).to_canonical(), interface, source });
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    found
}
