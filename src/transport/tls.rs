//! TLS for connections we open: rustls with ring, the system's roots, and those of `ca_file` besides.
//!
//! There is no switch that accepts an invalid certificate, on purpose: a certificate of one's own
//! belongs into `ca_file`. What is wrong with a certificate is said in words, with what to do.

use crate::advice::Local;
use crate::mail::reply::visible;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why no TLS can be spoken with these settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with further roots is of no use.
    #[error(
        "cannot read certificates from {path}: {why}; `ca_file` takes one or more certificates in PEM form"
    )]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Neither the system nor `ca_file` has a root.
    #[error(
        "no root certificates can be had from this system: {0}; install the package ca-certificates or set `ca_file`"
    )]
    Roots(rustls::Error),
    /// `host` can be no certificate's name.
    #[error("`{0}` is neither a host name nor an address, so no certificate can bear it")]
    Name(String),
}

/// A client's configuration; roots are read now and kept.
pub fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let extra = ca_file.map(certificates).transpose()?.unwrap_or_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, Arc::clone(&provider))
        .map_err(|source| match (ca_file, &source) {
            (Some(path), rustls::Error::InvalidCertificate(_)) => TlsError::CaFile {
                path: path.to_owned(),
                why: source.to_string(),
            },
            _ => TlsError::Roots(source),
        })?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Roots)?
        // "Dangerous" is only the name rustls gives to any verifier but its own; this is the
        // platform's, and it verifies everything.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |why: String| TlsError::CaFile {
        path: path.to_owned(),
        why,
    };
    let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(fail("there is none in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// The name a server's certificate must bear.
pub fn name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(visible(host.as_bytes())))
}

/// What to say of a handshake with `host` that failed, which entry of the catalog explains it, and
/// whether another try may help by itself.
pub fn explain(error: &io::Error, host: &str) -> (String, Local, bool) {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (text, local, transient) = match cause {
        Some(rustls::Error::InvalidCertificate(why)) => {
            (certificate(why, host), Local::TlsCertificate, false)
        }
        Some(rustls::Error::InvalidMessage(_)) => (
            format!("{host} does not speak TLS there; is it `tls: starttls` for this port?"),
            Local::TlsFailed,
            true,
        ),
        Some(other) => (format!("no TLS with {host}: {other}"), Local::TlsFailed, true),
        None => (format!("no TLS with {host}: {error}"), Local::TlsFailed, true),
    };
    (visible(text.as_bytes()), local, transient)
}

/// rustls tells names as `DnsName("a.example")` and `IpAddress(..)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| match name.split_once('(') {
        Some((_, rest)) => rest.trim_end_matches(')').trim_matches('"').to_owned(),
        None => name.clone(),
    };
    match presented {
        [] => "no name at all".to_owned(),
        some => some.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

fn certificate(why: &CertificateError, host: &str) -> String {
    use CertificateError::*;
    let day = |time: &rustls::pki_types::UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds)
            .map(|time| time.strftime("%F").to_string())
            .unwrap_or_default()
    };
    match why {
        Expired => format!("the certificate of {host} has run out; its operator must renew it"),
        ExpiredContext { not_after, .. } => {
            format!(
                "the certificate of {host} ran out on {}; its operator must renew it",
                day(not_after)
            )
        }
        NotValidYet => {
            format!("the certificate of {host} is not valid yet; is this machine's clock right?")
        }
        NotValidYetContext { not_before, .. } => format!(
            "the certificate of {host} is valid from {} only; is this machine's clock right?",
            day(not_before)
        ),
        NotValidForName => {
            format!("the certificate is not for {host}; set `host` to a name that it bears")
        }
        NotValidForNameContext { presented, .. } => format!(
            "the certificate is for {}, not for {host}; set `host` to a name that it bears",
            names(presented)
        ),
        UnknownIssuer => format!(
            "nobody we trust has signed the certificate of {host}; if it is your own authority, put its \
             certificate into `ca_file`"
        ),
        BadSignature => format!(
            "the certificate of {host} is not signed by the authority it names; if that is your own and was \
             made anew, put its certificate into `ca_file`"
        ),
        Revoked => format!("the certificate of {host} has been revoked; its operator must replace it"),
        other => format!("the certificate of {host} cannot be trusted: {other}"),
    }
}
