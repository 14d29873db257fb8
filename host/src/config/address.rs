//! Addresses and handlers of listeners, as they stand in the file and on the command line.
//!
//! *Runs in:* the supervisor, before anything is forked.
//! *Never:* looks up a host name: what a listener is bound to must not depend on a name service at start-up.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{HandlerRef, ListenAddress, NAME_MAX_BYTES, is_name};
use crate::error::Error;

/// Longest path of a Unix socket in bytes, without its NUL.
pub const UNIX_PATH_MAX_BYTES: usize = 107;

/// What comes before `://` on the command line and is the key in `[[listen]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
    /// A Unix socket.
    Unix,
}

impl Scheme {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 3] = [("udp", Self::Udp), ("tcp", Self::Tcp), ("unix", Self::Unix)];
}

/// Reads the address of a listener.
pub fn parse_address(scheme: Scheme, text: &str) -> Result<ListenAddress, Error> {
    match scheme {
        Scheme::Udp => parse_socket_address(text).map(ListenAddress::Udp),
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

/// Reads `udp://ADDR=HANDLER`, as the option `--listen` has it.
pub fn parse_listen(text: &str) -> Result<(ListenAddress, HandlerRef), Error> {
    const SHAPE: &str = "write udp://127.0.0.1:5060=module or tcp://[::]:80=module:handler";
    let bad = |detail: &str| Error::config(format!("\"{text}\" is not a listener")).detail(detail).hint(SHAPE);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it has no \"://\""))?;
    let (_, scheme) =
        Scheme::ALL.into_iter().find(|(name, _)| *name == scheme).ok_or_else(|| bad("it must start with udp, tcp or unix"))?;
    // From the right: the path of a Unix socket may hold an equals sign, a handler may not.
    let (address, handler) = rest.rsplit_once('=').ok_or_else(|| bad("it names no handler"))?;
    Ok((parse_address(scheme, address)?, parse_handler(handler)?))
}

/// Refuses what cannot be the name of a module or handler.
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

fn parse_socket_address(text: &str) -> Result<SocketAddr, Error> {
    if let Ok(address) = text.parse() {
        return Ok(address);
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
        _ if plain_v6 => bad().hint("an IPv6 address stands in brackets, as in \"[::1]:5060\""),
        Err(_) => bad().detail(format!("\"{port}\" is not a port; expected a number from 0 to 65535")),
        Ok(_) if host.is_empty() || host == "*" => bad().hint(format!("every interface: \"0.0.0.0:{port}\" or \"[::]:{port}\"")),
        Ok(_) if host == "localhost" => bad().hint(format!("names are not looked up; write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
        Ok(_) => bad().hint("names are not looked up; write the IP address, as in \"127.0.0.1:5060\""),
    })
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
    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:5060", "[::1]:80", "[fe80::1%2]:0", "0.0.0.0:65535"] {
            assert!(parse_socket_address(text).is_ok(), "{text}");
        }
        for (text, part) in [
            ("5060", "0.0.0.0:5060"),
            (":5060", "0.0.0.0:5060"),
            ("*:5060", "0.0.0.0:5060"),
            ("localhost:5060", "127.0.0.1:5060"),
            ("example.org:80", "not looked up"),
            ("::1:5060", "brackets"),
            ("127.0.0.1", "add a port"),
            ("127.0.0.1:70000", "not a port"),
            ("127.0.0.1:", "not a port"),
            ("", "add a port"),
        ] {
            let error = parse_socket_address(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
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
        assert!(parse_address(Scheme::Unix, &"x".repeat(108)).is_err());
    }
}
