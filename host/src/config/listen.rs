//! `[[listen]]`: a listener, and the options of its sockets.
//!
//! *Runs in:* the supervisor, before anything is forked; main only reads the result. *Never:* looks
//! up interfaces or users: that is done when the plan is made.
//!
//! *Pure:* no clock, no environment, no system call.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use super::address::{ListenAddress, MulticastGroup, Scheme, UnixName, parse_address, parse_group, parse_handler, parse_interface};
use super::reader::{Found, Section};
use super::stream_options::{self, StreamOptions, read_stream_options};
use super::tls::{TlsOptions, read_tls};
use super::{HandlerRef, Position, WORKERS_MAX};
use crate::error::Error;

/// Most addresses of one listener, and most multicast groups.
const ADDRESSES_MAX: usize = 64;
const MODE_DEFAULT: u32 = 0o660;
const BUFFER_MIN_BYTES: u64 = 4 << 10;
/// The kernel doubles what it is asked for, and counts in 31 bits.
const BUFFER_MAX_BYTES: u64 = 1 << 30;
const BUSY_POLL_MIN: Duration = Duration::from_micros(1);
const BUSY_POLL_MAX: Duration = Duration::from_millis(10);

/// One `[[listen]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenConfig {
    /// At least one; all of one kind.
    pub addresses: Vec<ListenAddress>,
    pub options: ListenOptions,
    pub handler: HandlerRef,
    /// None: `host.workers`.
    pub workers: Option<u32>,
    pub position: Position,
}

/// The addresses, separated by commas.
impl fmt::Display for ListenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListenOptions {
    pub socket: SocketOptions,
    pub stream: StreamOptions,
    /// None: connections are not encrypted.
    pub tls: Option<TlsOptions>,
}

/// How the sockets of a listener are made. A new option is a field here, its key in [`OPTIONS`] and
/// `read_socket_options`, and its system call in `net/bind.rs` and `sys/socket/options.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOptions {
    /// Receive only what arrives at this interface.
    pub interface: Option<String>,
    /// Whether `[::]` does not serve IPv4.
    pub v6only: bool,
    pub multicast: Vec<MulticastGroup>,
    /// None: the host's default for datagrams, the kernel's for connections.
    pub receive_buffer_bytes: Option<usize>,
    /// None: the kernel's default.
    pub send_buffer_bytes: Option<usize>,
    /// How long a waiting worker polls the network device.
    pub busy_poll: Option<Duration>,
    /// Mode of a Unix socket's file.
    pub mode: u32,
    /// Owner of a Unix socket's file, a name or a number; none: the starting user.
    pub owner: Option<String>,
    /// Group of a Unix socket's file, likewise.
    pub group: Option<String>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            interface: None,
            v6only: true,
            multicast: Vec::new(),
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            busy_poll: None,
            mode: MODE_DEFAULT,
            owner: None,
            group: None,
        }
    }
}

/// The keys beside address and handler, with the kinds of address that each is for. Those of
/// `stream_options` are for [`STREAMS`].
const OPTIONS: &[(&str, &[Scheme])] = &[
    ("interface", &[Scheme::Udp, Scheme::Tcp]),
    ("v6only", &[Scheme::Udp, Scheme::Tcp]),
    ("multicast", &[Scheme::Udp]),
    ("receive_buffer", &[Scheme::Udp, Scheme::Unixgram, Scheme::Tcp, Scheme::Unix]),
    ("send_buffer", &[Scheme::Udp, Scheme::Unixgram, Scheme::Tcp, Scheme::Unix]),
    ("busy_poll", &[Scheme::Udp, Scheme::Tcp]),
    ("mode", &[Scheme::Unixgram, Scheme::Unix]),
    ("owner", &[Scheme::Unixgram, Scheme::Unix]),
    ("group", &[Scheme::Unixgram, Scheme::Unix]),
    ("workers", &[Scheme::Udp, Scheme::Unixgram]),
    ("tls", STREAMS),
];

const STREAMS: &[Scheme] = &[Scheme::Tcp, Scheme::Unix];

fn keys() -> impl Iterator<Item = (&'static str, &'static [Scheme])> {
    OPTIONS.iter().copied().chain(stream_options::KEYS.map(|key| (key, STREAMS)))
}

/// Reads one `[[listen]]`; none if its address or its handler is missing or wrong. Paths of
/// certificates are relative to `folder`.
pub(super) fn read_listen(section: &Section<'_, '_>, folder: &Path) -> Option<ListenConfig> {
    let mut known = vec!["udp", "unixgram", "tcp", "unix", "handler"];
    known.extend(keys().map(|(key, _)| key));
    section.only(&known);
    let workers = section.integer("workers", 1..=WORKERS_MAX);
    let addresses = read_addresses(section);
    let socket = read_socket_options(section);
    let options = ListenOptions { socket, stream: read_stream_options(section), tls: read_tls(section, folder) };
    let handler = read_handler(section);
    let (scheme, addresses) = addresses?;
    check_options(section, scheme, &addresses, &options);
    Some(ListenConfig { addresses, options, handler: handler?, workers, position: section.position(section.offset) })
}

fn read_addresses(section: &Section<'_, '_>) -> Option<(Scheme, Vec<ListenAddress>)> {
    let mut written = Scheme::ALL.into_iter().filter(|(key, _)| section.has(key));
    let Some((key, scheme)) = written.next() else {
        section.report(
            section.offset,
            Error::config("a [[listen]] has no address").hint("add udp = \"127.0.0.1:5060\", unixgram = ..., tcp = ... or unix = ..."),
        );
        return None;
    };
    if let Some((second, _)) = written.next() {
        let error = Error::config(format!("a [[listen]] has both \"{key}\" and \"{second}\"")).hint("write a second [[listen]]");
        section.report(section.key_offset(second), error);
        return None;
    }
    let found = at_most(section, key, section.one_or_more(key)?)?;
    let addresses: Vec<Option<ListenAddress>> =
        found.into_iter().map(|found| section.ok_or_report(found.offset, parse_address(scheme, &found.value))).collect();
    // Each wrong one was reported.
    addresses.into_iter().collect::<Option<_>>().map(|addresses| (scheme, addresses))
}

fn at_most(section: &Section<'_, '_>, key: &str, found: Vec<Found<String>>) -> Option<Vec<Found<String>>> {
    if let Some(extra) = found.get(ADDRESSES_MAX) {
        let error = Error::config(format!("\"{key}\" in [[listen]] has too many entries"))
            .detail(format_args!("{} of at most {ADDRESSES_MAX}", found.len()))
            .hint("write a second [[listen]]");
        section.report(extra.offset, error);
        return None;
    }
    Some(found)
}

fn read_socket_options(section: &Section<'_, '_>) -> SocketOptions {
    let interface = section.parsed("interface", parse_interface);
    let groups = section.one_or_more("multicast").and_then(|found| at_most(section, "multicast", found)).unwrap_or_default();
    let group = |found: Found<String>| {
        let group = section.ok_or_report(found.offset, parse_group(&found.value))?;
        // A group without an interface is joined at the listener's.
        Some(MulticastGroup { interface: group.interface.or_else(|| interface.clone()), ..group })
    };
    let default = SocketOptions::default();
    SocketOptions {
        multicast: groups.into_iter().filter_map(group).collect(),
        v6only: section.boolean("v6only").unwrap_or(default.v6only),
        receive_buffer_bytes: section.size("receive_buffer", BUFFER_MIN_BYTES..=BUFFER_MAX_BYTES),
        send_buffer_bytes: section.size("send_buffer", BUFFER_MIN_BYTES..=BUFFER_MAX_BYTES),
        busy_poll: section.duration("busy_poll", BUSY_POLL_MIN..=BUSY_POLL_MAX),
        mode: section.parsed("mode", parse_mode).unwrap_or(default.mode),
        owner: section.text("owner"),
        group: section.text("group"),
        interface,
    }
}

fn read_handler(section: &Section<'_, '_>) -> Option<HandlerRef> {
    if !section.has("handler") {
        let error = Error::config("a [[listen]] names no handler").hint("add handler = \"module\" or \"module:handler\"");
        section.report(section.offset, error);
        return None;
    }
    section.parsed("handler", parse_handler)
}

/// Reads the mode of a file: `0660`.
fn parse_mode(text: &str) -> Result<u32, Error> {
    let mode = Some(text).filter(|text| matches!(text.len(), 3 | 4) && text.bytes().all(|byte| byte.is_ascii_digit()));
    mode.and_then(|text| u32::from_str_radix(text, 8).ok()).filter(|mode| *mode <= 0o777).ok_or_else(|| {
        Error::config(format!("\"{}\" is not the mode of a file", text.escape_debug()))
            .detail("expected three octal digits, with or without a 0 before them")
            .hint("for the owner and the group: \"0660\", for everybody: \"0666\"")
    })
}

/// Reports options that do not fit the addresses.
fn check_options(section: &Section<'_, '_>, scheme: Scheme, addresses: &[ListenAddress], options: &ListenOptions) {
    let report = |key: &str, error: Error| section.report(section.key_offset(key), error);
    for (key, schemes) in keys() {
        if section.has(key) && !schemes.contains(&scheme) {
            let name = |wanted: &Scheme| Scheme::ALL.iter().find(|(_, scheme)| scheme == wanted).map_or("", |(name, _)| name);
            let names: Vec<&str> = schemes.iter().map(name).collect();
            let error = Error::config(format!("\"{key}\" means nothing for a {} listener", name(&scheme)));
            report(key, error.detail(format_args!("it is for {}", names.join(", "))).hint("remove it"));
        }
    }
    for key in ["mode", "owner", "group"] {
        if section.has(key) && addresses.iter().any(|address| matches!(address, ListenAddress::Unixgram(UnixName::Abstract(_)))) {
            let error = Error::config(format!("\"{key}\" means nothing for an abstract name")).detail("it has no file");
            report(key, error.hint("everybody in the same network namespace can send to it; to limit that, listen at a path"));
        }
    }
    let wildcard = |address: &ListenAddress| match address {
        ListenAddress::Udp(address) | ListenAddress::Tcp(address) => address.ip() == Ipv6Addr::UNSPECIFIED,
        _ => false,
    };
    if section.has("v6only") && matches!(scheme, Scheme::Udp | Scheme::Tcp) && !addresses.iter().any(wildcard) {
        let error = Error::config("\"v6only\" means nothing here").detail("no address of this listener is [::]");
        report("v6only", error.hint("remove it, or listen on \"[::]:PORT\""));
    }
    for group in options.socket.multicast.iter().filter(|_| scheme == Scheme::Udp) {
        let receives = |address: &ListenAddress| match address {
            ListenAddress::Udp(address) if address.ip().is_unspecified() => {
                address.is_ipv4() == group.ip.is_ipv4() || (address.is_ipv6() && !options.socket.v6only)
            }
            ListenAddress::Udp(address) => address.ip() == group.ip,
            _ => false,
        };
        if !addresses.iter().any(receives) {
            let (any, own) = if group.ip.is_ipv4() { ("0.0.0.0", group.ip.to_string()) } else { ("[::]", format!("[{}]", group.ip)) };
            let error = Error::config(format!("no address of this listener would get what is sent to the group {}", group.ip));
            report("multicast", error.hint(format!("listen on \"{any}:PORT\" or on \"{own}:PORT\"")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{self, ListenConfig};

    fn read(text: &str) -> Result<ListenConfig, Vec<String>> {
        let text = format!("[[listen]]\nhandler = \"x\"\n{text}");
        let config = config::parse(&text, Path::new("t.toml"));
        config.map(|mut config| config.listeners.remove(0)).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_option_is_read() {
        let text = "udp = \"[::]:1\"\ninterface = \"eth0\"\nv6only = false\nmulticast = [\"239.1.2.3\", \"ff02::1%lo\"]\n\
                    receive_buffer = \"1MiB\"\nsend_buffer = 8192\nbusy_poll = \"50us\"";
        let listener = read(text).unwrap();
        let options = listener.options;
        assert_eq!((options.socket.interface.as_deref(), options.socket.v6only), (Some("eth0"), false));
        let groups: Vec<String> = options.socket.multicast.iter().map(ToString::to_string).collect();
        assert_eq!(groups, ["239.1.2.3%eth0", "ff02::1%lo"], "the interface of the listener where a group names none");
        assert_eq!((options.socket.receive_buffer_bytes, options.socket.send_buffer_bytes), (Some(1 << 20), Some(8192)));
        assert_eq!(options.socket.busy_poll, Some(std::time::Duration::from_micros(50)));
        let unix = read("unixgram = [\"run/x\", \"/y\"]\nmode = \"666\"\nowner = \"root\"\ngroup = \"0\"").unwrap();
        assert_eq!(unix.to_string(), "unixgram://run/x, unixgram:///y");
        let options = unix.options;
        assert_eq!(
            (options.socket.mode, options.socket.owner.as_deref(), options.socket.group.as_deref()),
            (0o666, Some("root"), Some("0"))
        );
        let default = read("unixgram = \"@name\"").unwrap();
        assert_eq!(
            (default.to_string().as_str(), default.options.socket.mode, default.options.socket.v6only),
            ("unixgram://@name", 0o660, true)
        );
    }

    #[test]
    fn each_error_says_where_what_and_how() {
        for (text, parts) in [
            ("udp = []", &["t.toml:3:7", "wrong value for \"udp\"", "a list"][..]),
            ("udp = [1]", &["t.toml:3:8", "expected a list of strings, found the number 1", "put it in quotes"]),
            ("udp = [\"127.0.0.1:1\", \"x\"]", &["t.toml:3:23", "\"x\" is not an address", "add a port"]),
            ("udp = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", &["t.toml:1:1", "udp://127.0.0.1:1 is listened on twice"]),
            ("udp = \"127.0.0.1:1\"\nunixgram = \"x\"", &["t.toml:4:1", "both \"udp\" and \"unixgram\"", "second [[listen]]"]),
            ("unixgram = \"\"", &["t.toml:3:12", "is not the path of a socket: it is empty"]),
            ("unixgram = \"@\"", &["t.toml:3:12", "it is empty"]),
            ("unixgram = \"x\"\nmode = 0o660", &["t.toml:4:8", "expected a string"]),
            ("unixgram = \"x\"\nmode = \"0668\"", &["t.toml:4:8", "\"0668\" is not the mode of a file", "octal"]),
            ("unixgram = \"x\"\nmode = \"1777\"", &["t.toml:4:8", "is not the mode of a file"]),
            ("unixgram = \"x\"\nowner = \"\"", &["t.toml:4:9", "\"owner\" in [[listen]] must not be empty"]),
            ("unixgram = \"@x\"\nmode = \"0600\"", &["t.toml:4:1", "\"mode\" means nothing for an abstract name", "network namespace"]),
            ("unixgram = \"x\"\nv6only = true", &["t.toml:4:1", "\"v6only\" means nothing for a unixgram listener", "it is for udp, tcp"]),
            ("udp = \"[::1]:1\"\nv6only = true", &["t.toml:4:1", "\"v6only\" means nothing here", "[::]:PORT"]),
            ("udp = \"[::]:1\"\nv6only = \"no\"", &["t.toml:4:10", "expected true or false"]),
            ("udp = \"127.0.0.1:1\"\nmode = \"0600\"", &["t.toml:4:1", "\"mode\" means nothing for a udp listener"]),
            ("udp = \"127.0.0.1:1\"\ninterface = \"a/b\"", &["t.toml:4:13", "\"a/b\" is not the name of an interface"]),
            ("udp = \"127.0.0.1:1\"\nintreface = \"eth0\"", &["t.toml:4:1", "did you mean \"interface\"?"]),
            ("udp = \"0.0.0.0:1\"\nmulticast = \"10.0.0.1\"", &["t.toml:4:13", "is not a multicast group", "224.0.0.0"]),
            ("udp = \"127.0.0.1:1\"\nmulticast = \"239.0.0.1\"", &["t.toml:4:1", "sent to the group 239.0.0.1", "0.0.0.0:PORT"]),
            ("udp = \"[::]:1\"\nmulticast = \"239.0.0.1\"", &["t.toml:4:1", "sent to the group 239.0.0.1", "239.0.0.1:PORT"]),
            ("udp = \"127.0.0.1:1\"\nreceive_buffer = \"1KiB\"", &["t.toml:4:18", "it must be from 4 KiB to 1 GiB"]),
            ("udp = \"127.0.0.1:1\"\nsend_buffer = \"2GiB\"", &["t.toml:4:15", "it must be from 4 KiB to 1 GiB"]),
            ("udp = \"127.0.0.1:1\"\nbusy_poll = \"1s\"", &["t.toml:4:13", "it must be from 1us to 10ms", "such as \"10ms\""]),
            ("udp = \"127.0.0.1:1\"\nbusy_poll = 50", &["t.toml:4:13", "expected a duration"]),
        ] {
            let errors = read(text).expect_err(text);
            assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
            for part in parts {
                assert!(errors[0].contains(part), "{text}\nwithout {part:?}: {}", errors[0]);
            }
        }
    }

    #[test]
    fn lists_have_a_longest_length() {
        let list = |count: u16| (1..=count).map(|port| format!("\"127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
        assert_eq!(read(&format!("udp = [{}]", list(64))).unwrap().addresses.len(), 64);
        let errors = read(&format!("udp = [{}]", list(65))).unwrap_err();
        assert!(errors[0].contains("\"udp\" in [[listen]] has too many entries: 65 of at most 64"), "{errors:?}");
    }
}
