//! The way to a server: https (http to loopback only), the system's roots and those of a `ca_file`, no redirects,
//! time limits.

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// The way cannot be prepared.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HttpError {
    /// `ca_file` is no list of certificates.
    #[error("cannot read certificates from {}: {why}\n\nhint: `ca_file` is a PEM file with one or more CERTIFICATE blocks", path.display())]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The client cannot be built.
    #[error("cannot prepare for https: {0}")]
    Client(String),
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the beginning to the last byte of the answer.
    pub total: Duration,
}

/// The way to one account's servers. Connections are kept and shared by its clones.
#[derive(Clone, Debug)]
pub struct Way {
    /// Through the proxy of the environment, if one is set.
    outside: reqwest::Client,
    /// To this machine, past any proxy.
    loopback: reqwest::Client,
    /// Said with every TLS failure when the system brought no roots.
    rootless: Option<String>,
    times: Times,
}

impl Way {
    /// Prepares the way; `ca_file` adds to the system's roots. Opens no connection.
    pub fn new(ca_file: Option<&Path>, times: Times) -> Result<Way, HttpError> {
        let (tls, rootless) = tls(ca_file)?;
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| HttpError::Client(chain(&error)))
        };
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(Policy::none())
                .referer(false)
                .connect_timeout(times.connect)
                .timeout(times.total)
                .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Way {
            outside: build(builder())?,
            loopback: build(builder().no_proxy())?,
            rootless,
            times,
        })
    }

    /// The client for an address.
    pub fn to(&self, url: &Url) -> &reqwest::Client {
        if is_loopback(url) {
            &self.loopback
        } else {
            &self.outside
        }
    }

    /// The client that asks no proxy, whatever the address.
    pub fn past_proxies(&self) -> &reqwest::Client {
        &self.loopback
    }

    /// What went wrong on the way to `url`, in words. Give it an error `without_url`: an address may hold a secret.
    pub fn explain(&self, error: &reqwest::Error, url: &Url) -> String {
        let text = if error.is_timeout() && error.is_connect() {
            format!("no connection within {} s", self.times.connect.as_secs())
        } else if error.is_timeout() {
            format!("no complete answer within {} s", self.times.total.as_secs())
        } else {
            chain(error)
        };
        match &self.rootless {
            Some(rootless) if url.scheme() == "https" => format!("{text} ({rootless})"),
            _ => text,
        }
    }
}

/// https, or http to this machine; anything else would show tokens to the network.
pub fn is_allowed(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    }
}

/// Whether an address stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Host and, where it is not the usual one, port.
pub fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// An error with its causes, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// The configuration of TLS, and what to say when the system has no roots. Its provider is named
/// here, so that this works whatever the process installed.
fn tls(ca_file: Option<&Path>) -> Result<(rustls::ClientConfig, Option<String>), HttpError> {
    let mut extra = Vec::new();
    if let Some(path) = ca_file {
        let roots = |why: String| HttpError::Roots {
            path: path.to_owned(),
            why,
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| roots(error.to_string()))? {
            extra.push(certificate.map_err(|error| roots(error.to_string()))?);
        }
        if extra.is_empty() {
            return Err(roots("there is none in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Client(error.to_string()))?;
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra.clone(), provider);
    Ok(match verifier {
        Ok(verifier) => (
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth(),
            None,
        ),
        Err(error) if extra.is_empty() => (
            // A host without certificates can still run the demo; https fails with this said.
            builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
            Some(format!(
                "{error}; install the ca-certificates package, or name a `ca_file`"
            )),
        ),
        Err(error) => {
            return Err(HttpError::Roots {
                path: ca_file.map(Path::to_owned).unwrap_or_default(),
                why: error.to_string(),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_allowed_to_this_machine_only() {
        for good in [
            "https://login.example/token",
            "http://127.0.0.1:1/x",
            "http://localhost:3/",
            "http://[::1]:3/",
        ] {
            assert!(is_allowed(&Url::parse(good).unwrap()), "{good}");
        }
        for bad in [
            "http://login.example/token",
            "http://localhost.evil.example/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
        ] {
            assert!(!is_allowed(&Url::parse(bad).unwrap()), "{bad}");
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing here").unwrap();
        let times = Times {
            connect: Duration::from_secs(1),
            total: Duration::from_secs(1),
        };
        let error = Way::new(Some(&path), times).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("hint"), "{error}");
    }
}
