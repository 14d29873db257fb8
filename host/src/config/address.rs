//! Addresses and handlers of listeners, as the file and the command line write them.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* looks up a host name: what a
//! listener is bound to must not depend on a name service.
//!
//! *Pure:* no clock, no environment, no system call.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{HandlerRef, NAME_MAX_BYTES, is_name};
use crate::error::Error;

/// Longest path of a Unix socket in bytes, without its NUL.
pub const UNIX_PATH_MAX_BYTES: usize = 107;
/// Longest name of a network interface in bytes.
pub const INTERFACE_MAX_BYTES: usize = 15;

/// An address to bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Udp(SocketAddr),
    /// An address of one interface, such as a link-local one: IP, interface, port.
    UdpScoped(Ipv6Addr, String, u16),
    /// Every address of an interface: its name, and the port.
    UdpInterface(String, u16),
    /// A Unix datagram socket.
    Unixgram(UnixName),
    Tcp(SocketAddr),
    /// A Unix stream socket; the path is relative to the working directory of the command.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::UdpScoped(ip, interface, port) => write!(f, "udp://[{ip}%{interface}]:{port}"),
            Self::UdpInterface(interface, port) => write!(f, "udp://{interface}:{port}"),
            Self::Unixgram(name) => write!(f, "unixgram://{name}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The name of a Unix socket, at most 107 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// Relative to the working directory of the command.
    Path(PathBuf),
    /// The bytes after the `@`.
    Abstract(Vec<u8>),
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MulticastGroup {
    pub ip: IpAddr,
    /// Where to join it; none: the kernel chooses by its routes.
    pub interface: Option<String>,
}

impl fmt::Display for MulticastGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

/// The kind of an address: a key in `[[listen]]`, the part before `://` on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Udp,
    /// A Unix datagram socket.
    Unixgram,
    Tcp,
    /// A Unix stream socket.
    Unix,
}

impl Scheme {
    pub const ALL: [(&str, Self); 4] = [("udp", Self::Udp), ("unixgram", Self::Unixgram), ("tcp", Self::Tcp), ("unix", Self::Unix)];
}

pub fn parse_address(scheme: Scheme, text: &str) -> Result<ListenAddress, Error> {
    match scheme {
        Scheme::Udp => parse_udp_address(text),
        Scheme::Unixgram => parse_unix_name(text).map(ListenAddress::Unixgram),
        Scheme::Tcp => parse_socket_address(text).map(ListenAddress::Tcp),
        Scheme::Unix => parse_unix_path(text).map(ListenAddress::Unix),
    }
}

/// Reads `module` or `module:handler`.
pub fn parse_handler(text: &str) -> Result<HandlerRef, Error> {
    let (module, handler) = match text.split_once(':') {
        Some((module, handler)) => (module, Some(handler)),
        None => (text, None),
    };
    for name in [Some(module), handler].into_iter().flatten() {
        check_name(name).map_err(|error| Error {
            what: format!("\"{text}\" is not a handler"),
            detail: error.what,
            hint: "write \"module\" or \"module:handler\"".to_string(),
            ..error
        })?;
    }
    Ok(HandlerRef { module: module.to_string(), handler: handler.map(str::to_string) })
}

/// Reads the value of `--listen`: `udp://ADDR=HANDLER`.
pub fn parse_listen(text: &str) -> Result<(ListenAddress, HandlerRef), Error> {
    const SHAPE: &str = "write udp://127.0.0.1:5060=module or unixgram:///run/x.sock=module:handler";
    let bad = |detail: &str| Error::config(format!("\"{text}\" is not a listener")).detail(detail).hint(SHAPE);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it has no \"://\""))?;
    let (_, scheme) =
        Scheme::ALL.into_iter().find(|(name, _)| *name == scheme).ok_or_else(|| bad("it must start with udp, unixgram, tcp or unix"))?;
    // From the right: the path of a Unix socket may hold an equals sign, a handler may not.
    let (address, handler) = rest.rsplit_once('=').ok_or_else(|| bad("it names no handler"))?;
    Ok((parse_address(scheme, address)?, parse_handler(handler)?))
}

/// Refuses a text that cannot be the name of a module or handler.
pub fn check_name(name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::config(if name.is_empty() {
        "a name is empty".to_string()
    } else if name.len() > NAME_MAX_BYTES {
        format!("the name \"{name}\" is longer than {NAME_MAX_BYTES} bytes")
    } else {
        format!("the name \"{name}\" has other characters than a-z, 0-9, - and _")
    }))
}

/// Reads the name of a network interface, which need not exist.
pub fn parse_interface(text: &str) -> Result<String, Error> {
    let bad = |detail: String| Err(Error::config(format!("\"{}\" is not the name of an interface", text.escape_debug())).detail(detail));
    if text.is_empty() {
        return bad("it is empty".into());
    }
    if text.len() > INTERFACE_MAX_BYTES {
        return bad(format!("{} bytes, the system's limit is {INTERFACE_MAX_BYTES}", text.len()));
    }
    let no_part = |byte: u8| !byte.is_ascii_graphic() || b"/:%[]".contains(&byte);
    if text.bytes().any(no_part) || text == "." || text == ".." {
        return bad("it has a character that no interface's name has".into());
    }
    Ok(text.to_string())
}

/// Reads a multicast group, with or without its interface: `239.1.2.3%eth0`.
pub fn parse_group(text: &str) -> Result<MulticastGroup, Error> {
    let bad = || Error::config(format!("\"{}\" is not a multicast group", text.escape_debug()));
    let (ip, interface) = match text.split_once('%') {
        Some((ip, interface)) => (ip, Some(parse_interface(interface).map_err(|error| bad().detail(error))?)),
        None => (text, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return Err(bad().detail("expected an IP address without a port").hint("write \"239.1.2.3\", \"ff02::1:3%eth0\""));
    };
    if !ip.is_multicast() {
        return Err(bad().hint("groups are 224.0.0.0 to 239.255.255.255, and ff00:: and above"));
    }
    Ok(MulticastGroup { ip, interface })
}

/// Reads the address of a datagram listener: IP, IP and interface, or interface alone.
fn parse_udp_address(text: &str) -> Result<ListenAddress, Error> {
    let Some((host, port)) = text.rsplit_once(':') else { return parse_socket_address(text).map(ListenAddress::Udp) };
    if let (Some((ip, interface)), Ok(port)) =
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).and_then(|host| host.split_once('%')), port.parse::<u16>())
        && interface.parse::<u32>().is_err()
        && let Ok(ip) = ip.parse::<Ipv6Addr>()
    {
        let interface = parse_interface(interface)
            .map_err(|error| Error::config(format!("\"{}\" is not an address", text.escape_debug())).detail(error))?;
        return Ok(ListenAddress::UdpScoped(ip, interface, port));
    }
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if let (Ok(interface), Ok(port)) = (parse_interface(host), port.parse::<u16>())
        && !is_number
        && !["*", "localhost"].contains(&host)
    {
        return Ok(ListenAddress::UdpInterface(interface, port));
    }
    parse_socket_address(text).map(ListenAddress::Udp)
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, Error> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
                let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
                Err(Error::config(format!("\"{text}\" is an IPv4 address written as IPv6")).hint(format!("write \"{plain}\"")))
            }
            address => Ok(address),
        };
    }
    let bad = || Error::config(format!("\"{text}\" is not an address")).detail("expected IP:PORT");
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(bad().hint(match text.parse::<u16>() {
            Ok(_) => format!("every interface: \"0.0.0.0:{text}\", this machine only: \"127.0.0.1:{text}\""),
            Err(_) => format!("add a port, as in \"{text}:5060\""),
        }));
    };
    let plain_v6 = host.contains(':') && !host.starts_with('[');
    Err(match port.parse::<u16>() {
        _ if plain_v6 => bad().hint("an IPv6 address needs brackets, as in \"[::1]:5060\""),
        Err(_) => bad().detail(format!("\"{port}\" is not a port; expected a number from 0 to 65535")),
        Ok(_) if host.is_empty() || host == "*" => bad().hint(format!("every interface: \"0.0.0.0:{port}\" or \"[::]:{port}\"")),
        Ok(_) if host == "localhost" => bad().hint(format!("names are not looked up; write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
        Ok(_) => bad().hint("names are not looked up; write the IP address, as in \"127.0.0.1:5060\""),
    })
}

/// Reads the name of a Unix datagram socket: a path, or `@` and an abstract name.
fn parse_unix_name(text: &str) -> Result<UnixName, Error> {
    match text.strip_prefix('@') {
        None => parse_unix_path(text).map(UnixName::Path),
        Some(name) => parse_unix_path(name).map(|_| UnixName::Abstract(name.as_bytes().to_vec())),
    }
}

fn parse_unix_path(text: &str) -> Result<PathBuf, Error> {
    let bad = |detail: String| Err(Error::config(format!("\"{text}\" is not the path of a socket")).detail(detail));
    if text.is_empty() {
        return bad("it is empty".to_string());
    }
    if text.contains('\0') {
        return bad("it contains a NUL".to_string());
    }
    if text.len() > UNIX_PATH_MAX_BYTES {
        return bad(format!("{} bytes, the system's limit is {UNIX_PATH_MAX_BYTES}", text.len()));
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV6};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:5060", "[::1]:80", "[fe80::1%2]:0", "0.0.0.0:65535", "[fe80::1%eth0]:5060", "eth0.100:5060", "br-a_1:0"] {
            assert_eq!(parse_address(Scheme::Udp, text).map(|address| address.to_string()), Ok(format!("udp://{text}")));
        }
        for (text, part) in [
            ("5060", "0.0.0.0:5060"),
            (":5060", "0.0.0.0:5060"),
            ("*:5060", "0.0.0.0:5060"),
            ("localhost:5060", "127.0.0.1:5060"),
            ("sip.example.org.:80", "not looked up"),
            ("127.0.0.256:80", "not looked up"),
            ("[::ffff:127.0.0.1]:80", "write \"127.0.0.1:80\""),
            ("[fe80::1%]:80", "it is empty"),
            ("[fe80::1%a/b]:80", "no interface's name"),
            ("eth0:x", "not a port"),
            ("::1:5060", "brackets"),
            ("127.0.0.1", "add a port"),
            ("127.0.0.1:70000", "not a port"),
            ("127.0.0.1:", "not a port"),
            ("", "add a port"),
        ] {
            let error = parse_address(Scheme::Udp, text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn groups() {
        for text in ["239.1.2.3", "224.0.0.1%eth0", "ff02::1:3", "ff02::1:3%br-0.1"] {
            assert_eq!(parse_group(text).map(|group| group.to_string()), Ok(text.to_string()));
        }
        for (text, part) in [
            ("127.0.0.1", "224.0.0.0"),
            ("239.1.2.3:5060", "without a port"),
            ("", "without a port"),
            ("239.1.2.3%", "empty"),
            ("239.1.2.3%0123456789abcdef", "16 bytes"),
            ("%eth0", "without a port"),
        ] {
            let error = parse_group(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        /// An accepted address is displayed in a form that is parsed to the same address.
        #[test]
        fn what_is_accepted_survives_a_round_trip(
            scheme in prop::sample::select(Scheme::ALL.to_vec()),
            text in prop_oneof![
                r"\PC{0,120}",
                r"\[[0-9a-f:.]{2,20}(%[a-z0-9.-]{0,17})?\]:[0-9]{1,6}",
                r"[a-z0-9.@/-]{0,20}:[0-9]{1,6}",
            ],
        ) {
            if let Ok(address) = parse_address(scheme.1, &text) {
                let shown = address.to_string();
                let (name, rest) = shown.split_once("://").unwrap();
                prop_assert_eq!(name, scheme.0);
                prop_assert_eq!(parse_address(scheme.1, rest), Ok(address));
            }
            if let Ok(group) = parse_group(&text) {
                prop_assert_eq!(parse_group(&group.to_string()), Ok(group));
            }
        }

        #[test]
        fn every_address_can_be_written(bits: u128, v4: bool, port: u16, scope in 0_u32..100, interface in "[a-z][a-z0-9.-]{0,14}") {
            let ip = if v4 { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(bits)) };
            prop_assume!(ip.to_canonical() == ip && interface != "localhost");
            let mut addresses = vec![ListenAddress::Udp(SocketAddr::new(ip, port)), ListenAddress::UdpInterface(interface.clone(), port)];
            if let IpAddr::V6(v6) = ip {
                addresses.push(ListenAddress::Udp(SocketAddrV6::new(v6, port, 0, scope).into()));
                addresses.push(ListenAddress::UdpScoped(v6, interface, port));
            }
            for address in addresses {
                let shown = address.to_string();
                prop_assert_eq!(parse_address(Scheme::Udp, shown.strip_prefix("udp://").unwrap()), Ok(address));
            }
        }
    }

    #[test]
    fn handlers() {
        let with = parse_handler("sip:answer").unwrap();
        assert_eq!((with.module.as_str(), with.handler.as_deref()), ("sip", Some("answer")));
        assert_eq!(with.to_string(), "sip:answer");
        assert_eq!(parse_handler("sip").unwrap().to_string(), "sip");
        for text in ["", ":", "sip:", ":x", "Sip", "a:b:c", "a b", &"x".repeat(32)] {
            assert!(parse_handler(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners_of_the_command_line() {
        let (address, handler) = parse_listen("unix:///tmp/a=b=sip:x").unwrap();
        assert_eq!((address.to_string(), handler.to_string()), ("unix:///tmp/a=b".to_string(), "sip:x".to_string()));
        assert_eq!(parse_listen("tcp://[::]:80=web").unwrap().0.to_string(), "tcp://[::]:80");
        for text in ["127.0.0.1:1=a", "sctp://127.0.0.1:1=a", "udp://127.0.0.1:1", "udp://x=a", "udp://127.0.0.1:1=", "unix://=a"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
        assert_eq!(parse_listen("unixgram://@a b=x").unwrap().0, ListenAddress::Unixgram(UnixName::Abstract(b"a b".to_vec())));
        assert!(parse_listen("unixgram://@=x").is_err());
        assert!(parse_address(Scheme::Unix, &"x".repeat(108)).is_err());
        assert!(parse_address(Scheme::Unixgram, &format!("@{}", "x".repeat(107))).is_ok());
        assert!(parse_address(Scheme::Unixgram, &format!("@{}", "x".repeat(108))).is_err());
    }
}
