//! `tls` of a `[[listen]]`: certificates, keys, and the parameters of handshakes.
//!
//! *Runs in:* the supervisor, before anything is forked; others only read the result. *Never:*
//! reads the certificates: that is `crate::tls`.
//!
//! *Pure:* no clock, no environment, no system call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Position;
use super::reader::Section;
use crate::error::Error;

/// Most certificates of one listener.
const CERTIFICATES_MAX: usize = 64;
/// Longest name of an application protocol, in bytes: its length is one byte on the wire.
const ALPN_MAX_BYTES: usize = 255;
const HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const HANDSHAKE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// At least one. The first is for clients that name no host, or a host without a certificate.
    pub certificates: Vec<CertificateFiles>,
    /// Application protocols, the preferred one first.
    pub alpn: Vec<String>,
    pub min_version: TlsVersion,
    /// File of authorities, of which a client must have a certificate; none: clients need none.
    pub client_ca: Option<PathBuf>,
    /// From the opening of a connection to the end of its handshake.
    pub handshake_timeout: Duration,
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by those that lead to its authority.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    pub position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V12,
    V13,
}

impl TlsOptions {
    #[cfg(test)]
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.certificates.iter().flat_map(|files| [&files.certificate, &files.key]).chain(&self.client_ca)
    }

    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.certificates.iter_mut().flat_map(|files| [&mut files.certificate, &mut files.key]).chain(&mut self.client_ca)
    }
}

/// Reads one table or several. Only the first has other keys than those of its certificate.
pub(super) fn read_tls(listen: &Section<'_, '_>, folder: &Path) -> Option<TlsOptions> {
    if !listen.has("tls") {
        return None;
    }
    let tables = listen.one_or_more_tables("tls", "[listen.tls]");
    if let Some(extra) = tables.get(CERTIFICATES_MAX) {
        let error = Error::config("\"tls\" in [[listen]] has too many certificates")
            .detail(format_args!("{} of at most {CERTIFICATES_MAX}", tables.len()))
            .hint("write a second [[listen]]");
        listen.report(extra.offset, error);
        return None;
    }
    let first = tables.first()?;
    let certificates: Vec<Option<CertificateFiles>> =
        tables.iter().enumerate().map(|(index, table)| read_certificate(table, index, folder)).collect();
    let versions = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
    Some(TlsOptions {
        alpn: read_alpn(first),
        min_version: first.choice("min_version", &versions).unwrap_or(TlsVersion::V12),
        client_ca: first.text("client_ca").map(|path| folder.join(path)),
        handshake_timeout: first
            .duration("handshake_timeout", HANDSHAKE_TIMEOUT_MIN..=HANDSHAKE_TIMEOUT_MAX)
            .unwrap_or(HANDSHAKE_TIMEOUT_DEFAULT),
        position: first.position(first.offset),
        // Each wrong one was reported.
        certificates: certificates.into_iter().collect::<Option<_>>()?,
    })
}

fn read_certificate(table: &Section<'_, '_>, index: usize, folder: &Path) -> Option<CertificateFiles> {
    let (files, for_all) = (["certificate", "key"], ["alpn", "min_version", "client_ca", "handshake_timeout"]);
    table.only(&[&files[..], &for_all].concat());
    if index > 0 {
        for key in for_all.into_iter().filter(|key| table.has(key)) {
            let error = Error::config(format!("\"{key}\" stands in the first [[listen.tls]] of a listener"))
                .detail("it is for all of its certificates")
                .hint("move it there");
            table.report(table.key_offset(key), error);
        }
    }
    let [certificate, key] = files.map(|key| {
        if !table.has(key) {
            let error = Error::config(format!("[listen.tls] has no \"{key}\"")).hint(format!("add {key} = \"FILE.pem\""));
            table.report(table.offset, error);
        }
        table.text(key).map(|path| folder.join(path))
    });
    Some(CertificateFiles { certificate: certificate?, key: key?, position: table.position(table.offset) })
}

fn read_alpn(table: &Section<'_, '_>) -> Vec<String> {
    let names = table.one_or_more("alpn").unwrap_or_default();
    let good = |name: &str| !name.is_empty() && name.len() <= ALPN_MAX_BYTES;
    for name in names.iter().filter(|name| !good(&name.value)) {
        let error = Error::config("this is not the name of an application protocol")
            .detail(format_args!("it has {} bytes; from 1 to {ALPN_MAX_BYTES} are possible", name.value.len()))
            .hint("such as \"http/1.1\" or \"h2\"");
        table.report(name.offset, error);
    }
    names.into_iter().map(|name| name.value).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config;

    fn read(text: &str) -> Result<TlsOptions, Vec<String>> {
        let text = format!("[[listen]]\nhandler = \"x\"\n{text}");
        let config = config::parse(&text, Path::new("/etc/t.toml"));
        config
            .map(|mut config| config.listeners.remove(0).options.tls.unwrap())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_listener_has_one_certificate_or_several() {
        let tls = read("tcp = \"[::]:1\"\ntls = { certificate = \"c.pem\", key = \"/k.pem\" }").unwrap();
        assert_eq!(tls.certificates[0].certificate, Path::new("/etc/c.pem"), "relative to the file's folder");
        assert_eq!(tls.certificates[0].key, Path::new("/k.pem"));
        assert_eq!((tls.min_version, tls.handshake_timeout, tls.alpn.len()), (TlsVersion::V12, Duration::from_secs(10), 0));
        let text = "tcp = \"[::]:1\"\n[[listen.tls]]\ncertificate = \"c\"\nkey = \"k\"\nalpn = [\"h2\", \"http/1.1\"]\nmin_version = \"1.3\"\n\
                    client_ca = \"ca\"\nhandshake_timeout = \"3s\"\n[[listen.tls]]\ncertificate = \"d\"\nkey = \"l\"\n";
        let tls = read(text).unwrap();
        let files: Vec<&PathBuf> = tls.files().collect();
        assert_eq!(files, ["/etc/c", "/etc/k", "/etc/d", "/etc/l", "/etc/ca"].map(Path::new));
        assert_eq!((tls.min_version, tls.handshake_timeout), (TlsVersion::V13, Duration::from_secs(3)));
        assert_eq!(tls.alpn, ["h2", "http/1.1"]);
        assert_eq!(tls.certificates[1].position.to_string(), "/etc/t.toml:11:1");
    }

    #[test]
    fn each_error_says_where_what_and_how() {
        let tcp = "tcp = \"127.0.0.1:1\"\n";
        for (text, parts) in [
            (format!("{tcp}tls = \"c.pem\""), &["t.toml:4:7", "wrong value for \"tls\"", "a table", "[listen.tls] and the keys"][..]),
            (format!("{tcp}tls = []"), &["t.toml:4:7", "wrong value for \"tls\"", "[listen.tls] and the keys"]),
            (format!("{tcp}tls = {{ key = \"k\" }}"), &["t.toml:4:7", "has no \"certificate\"", "FILE.pem"]),
            (format!("{tcp}tls = {{ certificate = \"c\", key = \"\" }}"), &["t.toml:4:34", "\"key\" in [listen.tls] must not be empty"]),
            (format!("{tcp}[listen.tls]\ncertificate = \"c\"\nkey = \"k\"\nalpm = \"x\""), &["t.toml:7:1", "did you mean \"alpn\"?"]),
            (
                format!("{tcp}[listen.tls]\ncertificate = \"c\"\nkey = \"k\"\nalpn = \"\""),
                &["t.toml:7:8", "is not the name of an", "http/1.1"],
            ),
            (
                format!("{tcp}[listen.tls]\ncertificate = \"c\"\nkey = \"k\"\nmin_version = \"1.1\""),
                &["t.toml:7:15", "\"1.1\" is no min_version"],
            ),
            (
                format!(
                    "{tcp}[[listen.tls]]\ncertificate = \"c\"\nkey = \"k\"\n[[listen.tls]]\ncertificate = \"c\"\nkey = \"k\"\nalpn = \"x\""
                ),
                &["t.toml:10:1", "\"alpn\" stands in the first [[listen.tls]]", "move it there"],
            ),
            (
                "udp = \"127.0.0.1:1\"\ntls = { certificate = \"c\", key = \"k\" }".to_owned(),
                &["t.toml:4:1", "\"tls\" means nothing for a udp listener", "it is for tcp, unix"],
            ),
        ] {
            let errors = read(&text).expect_err(&text);
            assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
            for part in parts {
                assert!(errors[0].contains(part), "{text}\nwithout {part:?}: {}", errors[0]);
            }
        }
    }
}
