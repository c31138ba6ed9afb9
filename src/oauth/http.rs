//! The one way to an authorization server: https (http to loopback only), system roots and the
//! account's `ca_file`, no redirects, time limits, answers capped at 1 MB.
//!
//! An answer that is no token never gets further than this: it becomes a [`Failure`].

use crate::config::secret::Secret;
use crate::http::answer::{date as http_date, shown};
use crate::http::way::{HttpError, Times, Way, host, is_allowed};
use crate::oauth::refusal::{self, Failure, Refusal};
use jiff::Timestamp;
use oauth2::{HttpRequest, HttpResponse};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use url::{Host, Url};

const CONNECT: Duration = Duration::from_secs(10);
const TOTAL: Duration = Duration::from_secs(30);
/// Bytes of an answer we are willing to hold.
const CAP: usize = 1_000_000;

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
pub struct Http(Way);

impl Http {
    /// Prepares the way; `ca_file` adds to the system's roots. Opens no connection.
    pub fn new(ca_file: Option<&Path>) -> Result<Http, HttpError> {
        let times = Times {
            connect: CONNECT,
            total: TOTAL,
        };
        Way::new(ca_file, times).map(Http)
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
                shown(&String::from_utf8_lossy(&answered.body))
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
        self.carry(request, self.0.past_proxies(), &[header.1.expose().to_owned()])
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
        let unreached = |error: reqwest::Error| Failure::Unreached {
            host: host(url),
            text: shown(&self.0.explain(&error.without_url(), url)),
            sent: true,
        };
        let asked = self.0.to(url).get(url.clone());
        let mut response = asked.send().await.map_err(unreached)?;
        let date = response.headers().get(reqwest::header::DATE);
        let date = date.and_then(|value| http_date(value.to_str().ok()?));
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
        let client = self.0.to(request.url());
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
        let unreached = |error: &reqwest::Error| Failure::Unreached {
            host: host.clone(),
            text: shown(&self.0.explain(error, &url)),
            sent: !error.is_connect(),
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
        let date = header(reqwest::header::DATE).and_then(|text| http_date(&text));
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
                shown(&location)
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
    if is_allowed(url) {
        return Ok(());
    }
    Err(format!(
        "{} must be https: tokens and secrets go there (http is allowed to 127.0.0.1, ::1 and localhost only)",
        shown(url.as_str())
    ))
}
