//! The one way to an authorization server: https (http to loopback only), system roots and the
//! account's `ca_file`, no redirects, time limits, answers capped at 1 MB.
//!
//! An answer that is no token never gets further than this: it becomes a [`Failure`].

use crate::config::secret::Secret;
use crate::oauth::refusal::{self, Failure, Refusal};
use jiff::Timestamp;
use oauth2::{HttpRequest, HttpResponse};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

const CONNECT: Duration = Duration::from_secs(10);
const TOTAL: Duration = Duration::from_secs(30);
/// Bytes of an answer we are willing to hold.
const CAP: usize = 1_000_000;

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

/// An answer in success.
#[derive(Debug)]
pub struct Answered {
    /// The body, at most 1 MB.
    pub body: Vec<u8>,
    /// The server's own clock, from the `Date` header.
    pub date: Option<Timestamp>,
}

/// The way to one account's servers.
#[derive(Clone, Debug)]
pub struct Http {
    /// Through the proxy of the environment, if one is set.
    outside: reqwest::Client,
    /// To this machine, past any proxy.
    loopback: reqwest::Client,
    /// Said with every TLS failure when the system brought no roots.
    rootless: Option<String>,
}

impl Http {
    /// Prepares the way; `ca_file` adds to the system's roots. Opens no connection.
    pub fn new(ca_file: Option<&Path>) -> Result<Http, HttpError> {
        let (tls, rootless) = tls(ca_file)?;
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| HttpError::Client(chain(&error)))
        };
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT)
                .timeout(TOTAL)
                .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Http {
            outside: build(builder())?,
            loopback: build(builder().no_proxy())?,
            rootless,
        })
    }

    /// Sends a request of the oauth2 crate. Whatever is no 2xx is a [`Failure`].
    ///
    /// Secrets that the request's form carried are masked wherever the answer repeats them.
    pub async fn call(&self, request: HttpRequest) -> Result<Answered, Failure> {
        let secrets = refusal::secrets_of(request.body());
        let request = reqwest::Request::try_from(request)
            .map_err(|error| Failure::Setting(format!("cannot form a request: {error}")))?;
        self.exchange(request, &secrets).await
    }

    /// Fetches a JSON document.
    pub async fn json(&self, url: &Url) -> Result<Value, Failure> {
        let mut request = reqwest::Request::new(reqwest::Method::GET, url.clone());
        request.headers_mut().insert(
            reqwest::header::ACCEPT,
            reqwest::header::HeaderValue::from_static("application/json"),
        );
        let answered = self.exchange(request, &[]).await?;
        serde_json::from_slice(&answered.body).map_err(|_| Failure::Unreadable {
            host: host(url),
            text: format!(
                "not JSON, but: {}",
                refusal::shown(&String::from_utf8_lossy(&answered.body))
            ),
        })
    }

    /// Asks this machine's platform, past any proxy. It may be spoken to without encryption at
    /// addresses that no router passes on (RFC 3927).
    pub async fn platform(&self, url: &Url, header: (&'static str, &Secret)) -> Result<Answered, Failure> {
        let mut request = reqwest::Request::new(reqwest::Method::GET, url.clone());
        let mut value = reqwest::header::HeaderValue::from_str(header.1.expose())
            .map_err(|_| Failure::Setting(format!("the value for {} is no header", header.0)))?;
        value.set_sensitive(true);
        request
            .headers_mut()
            .insert(reqwest::header::HeaderName::from_static(header.0), value);
        let link_local = matches!(url.host(), Some(Host::Ipv4(address)) if address.is_link_local());
        if !(link_local && url.scheme() == "http") {
            allowed(url).map_err(Failure::Setting)?;
        }
        self.carry(request, &self.loopback, &[header.1.expose().to_owned()])
            .await
    }

    /// Calls an address that is itself a secret, and takes any 2xx for a yes. What is told of a failure
    /// names the host and nothing else of the address.
    pub async fn ping(&self, url: &Url) -> Result<(), String> {
        let request = reqwest::Request::new(reqwest::Method::GET, url.clone());
        match self.exchange(request, &[]).await {
            Ok(_) => Ok(()),
            // Its own words may repeat the address, and so may the place it points to.
            Err(Failure::Refused { host, refusal }) => Err(match refusal.symptom.http_status {
                Some(status) => format!("{host} answered with status {status}"),
                None => format!("{host} refused"),
            }),
            Err(Failure::Setting(_)) => {
                Err("the address must be https (http to this machine only)".to_owned())
            }
            Err(failure @ (Failure::Unreached { .. } | Failure::Unreadable { .. })) => {
                Err(failure.to_string())
            }
        }
    }

    /// Fetches a page, whatever its status: status, body and the server's clock. Only to look: nothing of it is
    /// taken for an answer.
    pub async fn glance(&self, url: &Url) -> Result<(u16, String, Option<Timestamp>), Failure> {
        allowed(url).map_err(Failure::Setting)?;
        let client = if is_loopback(url) {
            &self.loopback
        } else {
            &self.outside
        };
        let unreached = |error: reqwest::Error| Failure::Unreached {
            host: host(url),
            text: refusal::shown(&chain(&error.without_url())),
            sent: true,
        };
        let mut response = client.get(url.clone()).send().await.map_err(unreached)?;
        let date = response.headers().get(reqwest::header::DATE);
        let date = date.and_then(|value| refusal::http_date(value.to_str().ok()?));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreached)? {
            if body.len() + chunk.len() > CAP {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status().as_u16();
        Ok((status, String::from_utf8_lossy(&body).into_owned(), date))
    }

    async fn exchange(&self, request: reqwest::Request, secrets: &[String]) -> Result<Answered, Failure> {
        allowed(request.url()).map_err(Failure::Setting)?;
        let client = if is_loopback(request.url()) {
            &self.loopback
        } else {
            &self.outside
        };
        self.carry(request, client, secrets).await
    }

    async fn carry(
        &self,
        request: reqwest::Request,
        client: &reqwest::Client,
        secrets: &[String],
    ) -> Result<Answered, Failure> {
        let url = request.url().clone();
        let host = host(&url);
        let unreached = |error: &reqwest::Error| {
            let mut text = if error.is_timeout() && error.is_connect() {
                format!("no connection within {} s", CONNECT.as_secs())
            } else if error.is_timeout() {
                format!("no complete answer within {} s", TOTAL.as_secs())
            } else {
                chain(error)
            };
            if let Some(rootless) = self.rootless.as_ref().filter(|_| url.scheme() == "https") {
                text = format!("{text} ({rootless})");
            }
            Failure::Unreached {
                host: host.clone(),
                text: refusal::shown(&text),
                sent: !error.is_connect(),
            }
        };
        let mut response = client
            .execute(request)
            .await
            .map_err(|error| unreached(&error.without_url()))?;
        let status = response.status().as_u16();
        let header = |name: reqwest::header::HeaderName| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let date = header(reqwest::header::DATE).and_then(|text| refusal::http_date(&text));
        let retry_after = header(reqwest::header::RETRY_AFTER);
        let location = header(reqwest::header::LOCATION);
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| unreached(&error.without_url()))?
        {
            if body.len() + chunk.len() > CAP {
                return Err(Failure::Unreadable {
                    host,
                    text: format!("it is longer than {CAP} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        if (200..300).contains(&status) {
            return Ok(Answered { body, date });
        }
        let now = date.unwrap_or_else(Timestamp::now);
        let mut refusal = Refusal::read(status, &body, retry_after.as_deref(), secrets, now);
        refusal.date = date;
        if let Some(location) = location {
            refusal.symptom.text = format!(
                "{} / it points to {}, and redirects are not followed here",
                refusal.symptom.text,
                refusal::shown(&location)
            );
        }
        Err(Failure::Refused {
            host,
            refusal: Box::new(refusal),
        })
    }
}

/// `Ok` with the body for the oauth2 crate.
pub fn for_crate(answered: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::new(answered);
    response.headers_mut().insert(
        oauth2::http::header::CONTENT_TYPE,
        oauth2::http::HeaderValue::from_static("application/json"),
    );
    response
}

/// https, or http to this machine; anything else would show tokens to the network.
pub fn allowed(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        _ => Err(format!(
            "{} must be https: tokens and secrets go there (http is allowed to 127.0.0.1, ::1 and localhost only)",
            refusal::shown(url.as_str())
        )),
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

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
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
            assert!(allowed(&Url::parse(good).unwrap()).is_ok(), "{good}");
        }
        for bad in [
            "http://login.example/token",
            "http://localhost.evil.example/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
        ] {
            assert!(allowed(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing here").unwrap();
        let error = Http::new(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("hint"), "{error}");
    }
}
