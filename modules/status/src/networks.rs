//! The clients that get an answer: those on this machine, and those in the configured networks.
//!
//! Pure.

use std::net::IpAddr;

/// The addresses that share the first `bits` bits of `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// Length of the prefix, 0 to 32 for IPv4 and 0 to 128 for IPv6.
    bits: u32,
}

/// The networks that `allow` names.
#[derive(Debug)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Parses texts such as `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
    pub fn parse(texts: &[String]) -> Result<Networks, String> {
        texts.iter().map(|text| Network::parse(text)).collect::<Result<_, _>>().map(Networks)
    }

    /// Whether a client with this address gets an answer. A loopback address always does.
    pub fn admit(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_loopback() || self.0.iter().any(|network| network.contains(client))
    }
}

impl Network {
    fn parse(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is not a network (hint: \"192.0.2.0/24\", \"2001:db8::/32\", or an address)");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        // `admit` compares canonical addresses, so an IPv4-mapped one would match no client.
        if address != address.to_canonical() {
            return Err(wrong());
        }
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        let network = Network { address, bits };
        if bits > width {
            return Err(wrong());
        }
        if !network.is_whole() {
            return Err(format!("{text:?} is an address inside a network (hint: the bits after the first {bits} must be zero)"));
        }
        Ok(network)
    }

    /// Whether the bits after the prefix are zero.
    fn is_whole(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => address.to_bits() & !mask_v4(self.bits) == 0,
            IpAddr::V6(address) => address.to_bits() & !mask_v6(self.bits) == 0,
        }
    }

    fn contains(&self, client: IpAddr) -> bool {
        match (self.address, client) {
            (IpAddr::V4(address), IpAddr::V4(client)) => (address.to_bits() ^ client.to_bits()) & mask_v4(self.bits) == 0,
            (IpAddr::V6(address), IpAddr::V6(client)) => (address.to_bits() ^ client.to_bits()) & mask_v6(self.bits) == 0,
            _ => false,
        }
    }
}

/// `bits` ones, then zeros.
fn mask_v4(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0)
}

fn mask_v6(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Result<Networks, String> {
        Networks::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn networks_admit_the_addresses_from_first_to_last() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", &["192.0.2.0", "192.0.2.255"][..], &["192.0.1.255", "192.0.3.0", "2001:db8::1", "::1.2.3.4"][..]),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            ("192.0.2.7/32", &["192.0.2.7"], &["192.0.2.6"]),
            ("0.0.0.0/0", &["8.8.8.8", "::ffff:8.8.8.8"], &["2001:db8::1"]),
            ("::/0", &["2001:db8::1"], &["8.8.8.8"]),
            ("10.0.0.0/7", &["10.0.0.1", "11.255.255.255"], &["9.255.255.255", "12.0.0.0"]),
            ("2001:db8::/33", &["2001:db8:7fff::"], &["2001:db8:8000::"]),
            ("2001:db8::1", &["2001:db8::1"], &["2001:db8::2", "2001:db8::"]),
        ] {
            let networks = networks(&[network]).unwrap();
            for (clients, admitted) in [(inside, true), (outside, false)] {
                for client in clients {
                    assert_eq!(networks.admit(client.parse().unwrap()), admitted, "{client} in {network}");
                }
            }
        }
        let several = networks(&["192.0.2.0/24", "198.51.100.0/24"]).unwrap();
        assert!(several.admit("198.51.100.1".parse().unwrap()) && several.admit("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn an_invalid_network_is_an_error_that_quotes_it() {
        for text in [
            "",
            "/",
            "/8",
            "x",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.0/-1",
            "192.0.2.0/+8",
            "192.0.2/24",
            "::/129",
            "::/1/1",
            "::/4294967296",
            "::ffff:192.0.2.0/120",
            "all",
        ] {
            let error = networks(&["127.0.0.1", text]).unwrap_err();
            assert!(error.contains(&format!("{text:?} is not a network (hint: ")), "{error}");
        }
        for (text, bits) in [("192.0.2.1/24", 24), ("2001:db8::1/64", 64), ("1.0.0.0/0", 0)] {
            let error = networks(&[text]).unwrap_err();
            assert!(error.contains(&format!("after the first {bits} must be zero")), "{error}");
        }
    }
}
