//! Makes TLS configurations from certificates and keys, or finds the errors in these.
//!
//! *Runs in:* `modhost check`, a child of the supervisor, TCP workers, main in no-fork mode.
//! *Never:* runs in the supervisor, or in a main that has one: neither parses these files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::files::{Contents, Files};
use super::validity;
use crate::config::{CertificateFiles, Position, TlsOptions, TlsVersion};
use crate::error::{Error, Result};

static ALL_VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// The TLS configuration of a listener's connections.
pub(super) fn server_config(options: &TlsOptions, files: &Files, contents: &Contents) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let keys = options.certificates.iter().map(|of| certified_key(of, files, contents, &provider)).collect::<Result<Vec<_>>>()?;
    let at = &options.position;
    let versions = match options.min_version {
        TlsVersion::V12 => &ALL_VERSIONS[..],
        TlsVersion::V13 => &ALL_VERSIONS[..1],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| Error::fault("no version of TLS is left").detail(error))?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut authorities = RootCertStore::empty();
            for certificate in certificates(path, at, bytes(files, contents, path, at)?)? {
                authorities
                    .add(certificate)
                    .map_err(|error| bad(at, "client_ca contains something other than authorities", path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities.into(), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(at, "client_ca cannot be used to verify clients", path, error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByServerName(keys)));
    config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// Names certificates that are not valid at a moment, in seconds since 1970, or will soon expire.
fn warnings(options: &TlsOptions, files: &Files, contents: &Contents, now_s: i64) -> Vec<String> {
    let mut warnings = Vec::new();
    for CertificateFiles { certificate: path, position, .. } in &options.certificates {
        let Some(bytes) = files.find(contents, path) else { continue };
        for certificate in CertificateDer::pem_slice_iter(bytes).flatten() {
            if let Some(what) = validity::validity(&certificate).and_then(|validity| validity::warning(&validity, now_s)) {
                warnings.push(format!("{position}: a certificate {what}: {}", path.display()));
            }
        }
    }
    warnings
}

/// Checks the certificates and keys of all listeners. Returns warnings, or every error.
pub(crate) fn judge(listeners: &[TlsOptions], files: &Files, contents: &Contents, now_s: i64) -> Result<Vec<String>, Vec<Error>> {
    let errors: Vec<Error> = listeners.iter().filter_map(|options| server_config(options, files, contents).err()).collect();
    if errors.is_empty() {
        Ok(listeners.iter().flat_map(|options| warnings(options, files, contents, now_s)).collect())
    } else {
        Err(errors)
    }
}

fn bad(position: &Position, what: &str, path: &Path, detail: impl std::fmt::Display) -> Error {
    Error::config(format!("{position}: {what}")).detail(format_args!("{}: {detail}", path.display()))
}

fn bytes<'c>(files: &Files, contents: &'c Contents, path: &Path, position: &Position) -> Result<&'c [u8]> {
    files.find(contents, path).ok_or_else(|| Error::fault(format!("{position}: the contents of a file are missing")).detail(path.display()))
}

fn certificates(path: &Path, position: &Position, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(bytes).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|error| bad(position, "a certificate cannot be read", path, pem_text(&error)))?;
    if found.is_empty() {
        return Err(bad(
            position,
            "there is no certificate in the file",
            path,
            "expected PEM, which begins with -----BEGIN CERTIFICATE-----",
        ));
    }
    Ok(found)
}

fn pem_text(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "expected PEM, which begins with -----BEGIN PRIVATE KEY-----".to_owned(),
        other => other.to_string(),
    }
}

fn certified_key(of: &CertificateFiles, files: &Files, contents: &Contents, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let at = &of.position;
    let chain = certificates(&of.certificate, at, bytes(files, contents, &of.certificate, at)?)?;
    for certificate in &chain {
        ParsedCertificate::try_from(certificate).map_err(|error| bad(at, "a certificate cannot be parsed", &of.certificate, error))?;
    }
    let key = PrivateKeyDer::from_pem_slice(bytes(files, contents, &of.key, at)?).map_err(|error| {
        let error = bad(at, "there is no private key in the file", &of.key, pem_text(&error));
        error.hint("a key with a passphrase must be written without it: openssl pkey -in KEY -out PLAIN")
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| bad(at, "the private key cannot be used", &of.key, error))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: this kind of key cannot be compared.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err(bad(at, "the key does not belong to the certificate", &of.certificate, of.key.display())
            .hint("the certificate of the server comes first in its file, before those of its authority")),
    }
}

/// Chooses a certificate by the host name that the client asks for.
#[derive(Debug)]
struct ByServerName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        if let (true, Some(name)) = (self.0.len() > 1, hello.server_name())
            && let Ok(name) = ServerName::try_from(name)
        {
            let fits = |key: &&Arc<CertifiedKey>| {
                let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
                certificate.is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
            };
            if let Some(key) = self.0.iter().filter(fits).find(usable) {
                return Some(key.clone());
            }
        }
        self.0.iter().find(usable).or(self.0.first()).cloned()
    }
}
