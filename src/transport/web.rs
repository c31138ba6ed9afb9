//! One request of a transport over HTTPS: the gate before its body, the answer within limits.
//!
//! A body waits for the gate at the open connection. So no route, no TLS and a dead proxy are known before "it may have
//! been sent" is written down; what is lost after the first byte of the body is unknown.

pub mod refusal;
pub mod source;

use crate::advice::Local;
use crate::config::secret::Secret;
use crate::http::answer::{date, shown, wait};
use crate::http::way::{HttpError, Times, Way, host, is_allowed};
use crate::transport::transcript::{Said, Transcript};
use crate::transport::{Gate, GateClosed, tls};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use url::Url;

/// The verb of a request.
pub type Method = reqwest::Method;

const TIMES: Times = Times {
    connect: Duration::from_secs(30),
    total: Duration::from_secs(300),
};
/// For the body of an answer, once its status is known.
const REST: Duration = Duration::from_secs(20);
/// Bytes of an answer we are willing to hold.
const CAP: usize = 1_000_000;
/// Longest wait a server may ask for: what mail services ration, they ration by the day.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A request.
pub struct Request<'a> {
    /// GET, POST, PUT, DELETE.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The token, where one is shown. Addresses that are secrets themselves get none.
    pub bearer: Option<&'a Secret>,
    /// Further fields.
    pub fields: Vec<(&'static str, String)>,
    /// What the body is, and the body.
    pub body: Option<(&'static str, Vec<u8>)>,
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub fn new(method: Method, url: Url, bearer: Option<&'a Secret>) -> Request<'a> {
        Request {
            method,
            url,
            bearer,
            fields: Vec::new(),
            body: None,
        }
    }

    /// With a body.
    pub fn with(self, content_type: &'static str, body: Vec<u8>) -> Request<'a> {
        Request {
            body: Some((content_type, body)),
            ..self
        }
    }

    /// With a further field.
    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Request<'a> {
        self.fields.push((name, value.into()));
        self
    }
}

/// An answer; its body as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Who answered.
    pub host: String,
    /// HTTP status.
    pub status: u16,
    /// How long we shall wait, at most a day.
    pub retry_after: Option<Duration>,
    /// `Location`.
    pub location: Option<String>,
    /// `Range`.
    pub range: Option<String>,
    /// The service's own number for the request.
    pub request_id: Option<String>,
    /// At most 1 MB.
    pub body: Vec<u8>,
    /// The server's own time, else ours.
    pub now: Timestamp,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Lost {
    /// Nothing of the body went out.
    Before {
        /// One sentence.
        text: String,
        /// Whether another try may help by itself.
        transient: bool,
        /// For the catalog.
        local: Local,
    },
    /// The body was on its way.
    After {
        /// One sentence.
        text: String,
    },
    /// The gate stayed shut; nothing of the body went out.
    Closed(GateClosed),
}

/// The way of one account to its mail service.
#[derive(Clone, Debug)]
pub struct Web {
    way: Way,
}

impl Web {
    /// Prepares the way; `ca_file` adds to the system's roots.
    pub fn new(ca_file: Option<&Path>) -> Result<Web, HttpError> {
        Ok(Web {
            way: Way::new(ca_file, TIMES)?,
        })
    }

    /// Asks something that sends nothing.
    pub async fn ask(&self, request: Request<'_>, transcript: Option<&Transcript>) -> Result<Answer, Lost> {
        self.exchange(request, None, transcript).await
    }

    /// Makes the request that sends: the gate is asked once, before the body.
    pub async fn hand_over(
        &self,
        request: Request<'_>,
        gate: &dyn Gate,
        transcript: Option<&Transcript>,
    ) -> Result<Answer, Lost> {
        self.exchange(request, Some(gate), transcript).await
    }

    async fn exchange(
        &self,
        request: Request<'_>,
        gate: Option<&dyn Gate>,
        transcript: Option<&Transcript>,
    ) -> Result<Answer, Lost> {
        let number = Transcript::session();
        let note = |said: Said, text: &str| {
            if let Some(transcript) = transcript {
                transcript.line(number, said, text);
            }
        };
        let url = request.url.clone();
        // An address of a session is as good as a token.
        let place = match request.bearer {
            Some(_) => format!("{}{}", host(&url), url.path()),
            None => host(&url),
        };
        let length = request.body.as_ref().map_or(0, |(_, body)| body.len());
        note(
            Said::Client,
            &shown(&format!("{} {place} ({length} bytes)", request.method)),
        );
        if !is_allowed(&url) {
            return Err(Lost::Before {
                text: format!("{} is not https; nothing was sent there", host(&url)),
                transient: false,
                local: Local::CredentialInClear,
            });
        }
        let answered = self.answered(request, gate).await;
        match &answered {
            Ok(answer) => note(Said::Server, &refusal::words(answer)),
            Err(Lost::Before { text, .. } | Lost::After { text }) => note(Said::Note, text),
            Err(Lost::Closed(closed)) => note(Said::Note, &closed.to_string()),
        }
        answered
    }

    async fn answered(&self, request: Request<'_>, gate: Option<&dyn Gate>) -> Result<Answer, Lost> {
        let url = request.url.clone();
        let mut fields = HeaderMap::new();
        for (name, value) in &request.fields {
            fields.insert(HeaderName::from_static(name), value_of(value)?);
        }
        if let Some(token) = request.bearer {
            let mut value = value_of(&format!("Bearer {}", token.expose()))?;
            value.set_sensitive(true);
            fields.insert(AUTHORIZATION, value);
        }
        let client = self.way.to(&url);
        let mut built = client.request(request.method, url.clone());
        let mut held = None;
        match (request.body, gate) {
            (None, gate) => {
                fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                // Without a body, the request itself is the point of no return.
                if let Some(gate) = gate {
                    gate.pass().await.map_err(Lost::Closed)?;
                }
            }
            (Some((kind, body)), None) => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                built = built.body(body);
            }
            (Some((kind, body)), Some(_)) => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                let (ready, asked) = oneshot::channel();
                let (open, opened) = oneshot::channel();
                let body = Held {
                    ready: Some(ready),
                    opened: Some(opened),
                    bytes: body,
                    at: 0,
                };
                built = built.body(reqwest::Body::wrap_stream(ReaderStream::with_capacity(
                    body,
                    64 * 1024,
                )));
                held = Some((asked, open));
            }
        }
        let gone = gate.is_some() && held.is_none();
        let mut sending = std::pin::pin!(built.headers(fields).send());
        let mut passed = gone;
        let response = match (held, gate) {
            (Some((asked, open)), Some(gate)) => {
                tokio::select! {
                    biased;
                    // It answered, or failed, before the body was wanted.
                    answered = &mut sending => answered,
                    Ok(()) = asked => {
                        gate.pass().await.map_err(Lost::Closed)?;
                        passed = true;
                        // Gone with the connection, at most.
                        let _ = open.send(());
                        sending.await
                    }
                }
            }
            _ => sending.await,
        };
        let mut response = response.map_err(|error| self.lost(error.without_url(), &url, passed))?;
        let field = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let now = field("date")
            .and_then(|text| date(&text))
            .unwrap_or_else(Timestamp::now);
        let mut answer = Answer {
            host: host(&url),
            status: response.status().as_u16(),
            retry_after: field("retry-after")
                .and_then(|text| wait(&text, now))
                .map(|wait| wait.min(LONGEST_WAIT)),
            location: field("location"),
            range: field("range"),
            request_id: field("request-id").map(|id| shown(&id)),
            body: Vec::new(),
            now,
        };
        if answer.status == 202 {
            // Taken; there is nothing more to hear.
            return Ok(answer);
        }
        // The status has decided; words that are slow, endless or cut off take nothing from it.
        let body = &mut answer.body;
        let _ = timeout(REST, async {
            while let Ok(Some(piece)) = response.chunk().await {
                let room = CAP.saturating_sub(body.len());
                body.extend_from_slice(&piece[..piece.len().min(room)]);
                if body.len() >= CAP {
                    break;
                }
            }
        })
        .await;
        Ok(answer)
    }

    fn lost(&self, error: reqwest::Error, url: &Url, passed: bool) -> Lost {
        let host = host(url);
        let text = shown(&self.way.explain(&error, url));
        // Only a connection that was never made proves that nothing was handed over.
        if passed && !error.is_connect() {
            return Lost::After {
                text: format!("{host} was handed the message and did not answer: {text}"),
            };
        }
        let (secured, local) = causes(&error);
        if let Some((text, local, transient)) = secured.map(|error| tls::explain(error, &host)) {
            return Lost::Before {
                text,
                transient,
                local,
            };
        }
        Lost::Before {
            text: format!("cannot reach {host}: {text}"),
            transient: true,
            local: if error.is_timeout() && !error.is_connect() {
                Local::NoAnswer
            } else {
                local
            },
        }
    }
}

/// The TLS failure among the causes of an error, and what else it looks like.
fn causes(error: &reqwest::Error) -> (Option<&io::Error>, Local) {
    let mut local = if error.is_connect() {
        Local::ConnectFailed
    } else {
        Local::NoAnswer
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        {
            return (Some(error), Local::TlsFailed);
        }
        if error.to_string().starts_with("dns error") {
            local = Local::DnsFailure;
        }
        cause = error.source();
    }
    (None, local)
}

/// An address below another one; each part stays one part.
pub fn at(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

fn value_of(text: &str) -> Result<HeaderValue, Lost> {
    HeaderValue::from_str(text).map_err(|_| Lost::Before {
        text: "a value holds a character that no header may hold; nothing was sent".to_owned(),
        transient: false,
        local: Local::CredentialCharacters,
    })
}

/// A body that asks before its first byte.
struct Held {
    ready: Option<oneshot::Sender<()>>,
    opened: Option<oneshot::Receiver<()>>,
    bytes: Vec<u8>,
    at: usize,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ready) = self.ready.take() {
            // Whoever waits for this holds the request too.
            let _ = ready.send(());
        }
        if let Some(opened) = &mut self.opened {
            match Pin::new(opened).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Poll::Ready(Ok(())) => self.opened = None,
            }
        }
        let end = self.bytes.len().min(self.at + out.remaining());
        let at = std::mem::replace(&mut self.at, end);
        out.put_slice(&self.bytes[at..end]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_cannot_leave_its_place_in_the_address() {
        let root = Url::parse("https://graph.example/").unwrap();
        let url = at(&root, &["v1.0", "users", "a/../b?c#d@x.example", "sendMail"]);
        assert_eq!(
            url.as_str(),
            "https://graph.example/v1.0/users/a%2F..%2Fb%3Fc%23d@x.example/sendMail"
        );
    }
}
