//! The sockets that the supervisor has bound: they outlive each main, so that nothing queued is
//! lost.
//!
//! *Runs in:* the supervisor. *Never:* binds an address of the file system that is not configured.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::error::{Error, Result, io_text};
use crate::net::address::Address;
use crate::net::bind;

/// Every socket that is bound, whichever main has a duplicate of it.
#[derive(Debug, Default)]
pub struct Sockets {
    bound: Vec<BoundSocket>,
    last: u64,
}

/// Names one bound socket for as long as the supervisor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketId(u64);

#[derive(Debug)]
struct BoundSocket {
    id: SocketId,
    address: Address,
    descriptor: OwnedFd,
}

impl Sockets {
    /// A duplicate of a socket at that address: one that another main has or had, if this main was
    /// not given it yet; else a new one. With port 0 an address may be asked for more than once,
    /// each time for another socket.
    pub fn open(&mut self, address: &Address, given: &mut Vec<SocketId>) -> Result<OwnedFd> {
        let index = match self.bound.iter().position(|kept| kept.address == *address && !given.contains(&kept.id)) {
            Some(index) => index,
            None => {
                let descriptor = bind::bind(address)?;
                self.last += 1;
                self.bound.push(BoundSocket { id: SocketId(self.last), address: address.clone(), descriptor });
                self.bound.len() - 1
            }
        };
        let kept = &self.bound[index];
        given.push(kept.id);
        kept.descriptor.try_clone().map_err(|error| {
            Error::failed("cannot pass a listener on")
                .detail(format!("dup: {}", io_text(&error)))
                .hint("raise the limit on open files (ulimit -n)")
        })
    }

    /// Closes what no living main was given, such as an address that its interface has lost: nobody
    /// would read what arrives there.
    pub fn close_unused(&mut self, in_use: &[SocketId]) {
        let (used, unused) = std::mem::take(&mut self.bound).into_iter().partition(|socket| in_use.contains(&socket.id));
        self.bound = used;
        unused.into_iter().for_each(close);
    }

    /// Closes everything and removes the files of Unix sockets.
    pub fn close_all(&mut self) {
        self.bound.drain(..).for_each(close);
    }

    /// What a forked main must close.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.bound.iter().map(|socket| socket.descriptor.as_raw_fd())
    }
}

fn close(socket: BoundSocket) {
    drop(socket.descriptor);
    bind::unbind(&socket.address);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::InetBind;
    use crate::sys::socket::socket_address::SocketAddress;
    use std::os::fd::AsFd;

    #[test]
    fn each_main_gets_every_socket_once() {
        let any_port = Address::Udp(InetBind::with_default_options("127.0.0.1:0".parse().unwrap()));
        let place = |socket: &OwnedFd| SocketAddress::of(socket.as_fd()).unwrap().inet().unwrap();
        let mut sockets = Sockets::default();
        let (mut first_main, mut second_main) = (Vec::new(), Vec::new());
        let first: Vec<_> = (0..2).map(|_| place(&sockets.open(&any_port, &mut first_main).unwrap())).collect();
        assert_ne!(first[0], first[1], "two sockets");
        let second: Vec<_> = (0..3).map(|_| place(&sockets.open(&any_port, &mut second_main).unwrap())).collect();
        assert_eq!(second[..2], first[..], "the same ones for another main");
        sockets.close_unused(&second_main[..1]);
        assert_eq!(sockets.descriptors().count(), 1);
        sockets.close_all();
        assert_eq!(sockets.descriptors().count(), 0);
    }
}
