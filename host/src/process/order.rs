//! The orders of the control process to main: one byte each on the link between the two.
//!
//! *Runs in:* the control process (sending), main (receiving). *Never:* carries data: main must not
//! parse anything that a client sent.

use std::io::IoSlice;

use nix::errno::Errno;

use crate::sys::socket::seqpacket::{Link, Wait};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MainOrder {
    /// Stop the host, as on SIGTERM.
    Stop = 1,
}

/// Every order, to recognise a received byte.
const ORDERS: [MainOrder; 1] = [MainOrder::Stop];

impl MainOrder {
    /// Sends it to main. Waits while the link is full.
    pub fn send(self, link: &Link) -> Result<(), Errno> {
        link.send(&[IoSlice::new(&[self as u8])], &[], Wait::Block)
    }

    /// The next order that has arrived, or the byte of an unknown one. None: nothing has arrived.
    pub fn receive(link: &Link) -> Option<Result<Self, u8>> {
        let mut byte = [0];
        match link.receive(&mut byte, &mut Vec::new(), Wait::Poll) {
            Ok(1..) => Some(ORDERS.into_iter().find(|order| *order as u8 == byte[0]).ok_or(byte[0])),
            // Not even a closed link is an event: main notices the death of the control process.
            Ok(0) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_and_an_unknown_byte_is_named() {
        let (control, main) = Link::pair().unwrap();
        assert_eq!(MainOrder::receive(&main), None);
        MainOrder::Stop.send(&control).unwrap();
        control.send(&[IoSlice::new(&[9])], &[], Wait::Block).unwrap();
        assert_eq!([MainOrder::receive(&main), MainOrder::receive(&main)], [Some(Ok(MainOrder::Stop)), Some(Err(9))]);
        drop(control);
        assert_eq!(MainOrder::receive(&main), None);
    }
}
