//! The browser's way back: a listener on loopback (RFC 8252 7.3, 8.3), a proxy that passes the answer
//! on to us, or a person who pastes the address the browser ended at.
//!
//! The listener opens when a sign-in begins, takes one answer to *its* question (the `state` must
//! fit, and `iss` where it comes, RFC 9207), shows a page and closes. Everything else that knocks,
//! the browser's own wish for an icon, another tab's old answer, gets a page and changes nothing.

use crate::advice::{Provider, Stage, Symptom, advise};
use crate::config::secret::Secret;
use crate::entry::Reason;
use crate::http::answer::shown;
use crate::http::way::is_loopback;
use crate::oauth::grants::Expected;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use url::{Host, Url};

/// How long a person has.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Why no code came back.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The redirect does not lead to this machine.
    #[error(
        "the redirect address {0} does not lead back to this machine\n\nhint: use http://127.0.0.1 or http://localhost, or sign in with --paste"
    )]
    Elsewhere(Url),
    /// Somebody else listens there.
    #[error(
        "cannot listen on {address} for the browser's answer: {source}\n\nhint: another sign-in may still be waiting there; end it, choose another port in `redirect`, or sign in with --paste"
    )]
    Bind {
        /// Where.
        address: String,
        /// What happened.
        source: std::io::Error,
    },
    /// Nobody came.
    #[error("nobody signed in within {} minutes\n\nhint: run the command again and visit the address; on a machine without a browser add --paste", .0.as_secs() / 60)]
    Late(Duration),
    /// The server said no.
    #[error("{}", .0.text)]
    Refused(Box<Reason>),
    /// The answer is not to our question.
    #[error(
        "this is not the answer to this sign-in: {0}\n\nhint: use the newest address that was printed, and paste where the browser ended after it"
    )]
    Foreign(&'static str),
    /// Neither a code nor an error in it.
    #[error(
        "there is no code in it\n\nhint: paste the whole address the browser ended at; it contains `code=`"
    )]
    Empty,
}

/// The answer to a question: `Ok(code)`, or why not.
pub type Verdict = Result<Secret, CallbackError>;

/// Reads the query of a redirected address against what is expected.
pub fn judge(query: &str, expected: &Expected, provider: Provider) -> Verdict {
    let mut fields = std::collections::HashMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        // A field said twice is nobody's answer (RFC 6749 3.1).
        if fields.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(CallbackError::Foreign("a field comes twice"));
        }
    }
    let field = |name: &str| {
        fields
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    if field("code").is_none() && field("error").is_none() {
        return Err(CallbackError::Empty);
    }
    let Some(state) = field("state") else {
        return Err(CallbackError::Foreign("`state` is missing"));
    };
    if !same(state.as_bytes(), expected.state.expose().as_bytes()) {
        return Err(CallbackError::Foreign("`state` is of another sign-in"));
    }
    match (&expected.issuer, field("iss")) {
        (Some((issuer, _)), Some(iss)) if iss.trim_end_matches('/') != issuer.trim_end_matches('/') => {
            return Err(CallbackError::Foreign("`iss` names another issuer"));
        }
        (Some((_, true)), None) => {
            return Err(CallbackError::Foreign(
                "`iss` is missing, though the issuer promised it",
            ));
        }
        _ => {}
    }
    if let Some(error) = field("error") {
        let description = field("error_description").unwrap_or_default();
        let text = if description.is_empty() {
            shown(error)
        } else {
            shown(&format!("{error}: {description}"))
        };
        let symptom = Symptom {
            stage: Some(Stage::Authorize),
            oauth_error: Some(shown(error)),
            oauth_suberror: field("error_subcode").or(field("suberror")).map(shown),
            aadsts: aadsts(description),
            text: text.clone(),
            ..Symptom::default()
        };
        let advice = advise(&symptom, provider);
        return Err(CallbackError::Refused(Box::new(Reason {
            text: format!("the sign-in was refused: {}", advice.meaning),
            reply: Some(text),
            advice: Some(advice.id.as_str().into()),
            ..advice.reason(&symptom)
        })));
    }
    field("code").map(Secret::new).ok_or(CallbackError::Empty)
}

/// Reads what a person pasted: the whole address, its query, or the bare code. A bare code carries
/// no `state`; PKCE still ties it to this question.
pub fn pasted(line: &str, expected: &Expected, provider: Provider) -> Verdict {
    let line = line.trim();
    let query = match line.split_once('?') {
        Some((_, query)) => query.split('#').next().unwrap_or_default(),
        None if line.contains("code=") || line.contains("error=") => line,
        None if line.is_empty() || line.contains(char::is_whitespace) || line.contains("://") => {
            return Err(CallbackError::Empty);
        }
        None => return Ok(Secret::new(line)),
    };
    judge(query, expected, provider)
}

fn aadsts(text: &str) -> Option<u32> {
    let after = text.split_once("AADSTS")?.1;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Compared in constant time: a guess learns nothing from how long we took.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Waits on loopback for one answer.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    redirect: Url,
}

impl Listener {
    /// Listens where the redirect leads. Port 0 or none: a free one. `localhost` is both 127.0.0.1
    /// and ::1, since a browser may try either.
    ///
    /// With `listen` a proxy serves the redirect and passes the answer on to that address.
    pub async fn bind(redirect: &Url, listen: Option<SocketAddr>) -> Result<Listener, CallbackError> {
        if let Some(address) = listen {
            let socket = TcpListener::bind(address)
                .await
                .map_err(|source| CallbackError::Bind {
                    address: address.to_string(),
                    source,
                })?;
            return Ok(Listener {
                sockets: vec![socket],
                redirect: redirect.clone(),
            });
        }
        if redirect.scheme() != "http" || !is_loopback(redirect) {
            return Err(CallbackError::Elsewhere(redirect.clone()));
        }
        let wanted = redirect.port().unwrap_or(0);
        let both = matches!(redirect.host(), Some(Host::Domain(_)));
        let first: SocketAddr = match redirect.host() {
            Some(Host::Ipv6(address)) => (address, wanted).into(),
            Some(Host::Ipv4(address)) => (address, wanted).into(),
            _ => (Ipv4Addr::LOCALHOST, wanted).into(),
        };
        let bind = |address: SocketAddr| async move {
            TcpListener::bind(address)
                .await
                .map_err(|source| CallbackError::Bind {
                    address: address.to_string(),
                    source,
                })
        };
        let mut tries = 0;
        let (sockets, port) = loop {
            tries += 1;
            let socket = bind(first).await?;
            let port = socket
                .local_addr()
                .map(|address| address.port())
                .unwrap_or(wanted);
            if !both {
                break (vec![socket], port);
            }
            match bind((Ipv6Addr::LOCALHOST, port).into()).await {
                Ok(second) => break (vec![socket, second], port),
                // No IPv6 on this host: then no browser tries it either.
                Err(CallbackError::Bind { source, .. })
                    if matches!(
                        source.kind(),
                        std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::Unsupported
                    ) || source.raw_os_error() == Some(97) =>
                {
                    break (vec![socket], port);
                }
                // A free port on one side may be taken on the other: draw again.
                Err(_) if wanted == 0 && tries < 20 => {}
                Err(error) => return Err(error),
            }
        };
        let mut redirect = redirect.clone();
        let _ = redirect.set_port(Some(port));
        Ok(Listener { sockets, redirect })
    }

    /// The redirect with the port that was found.
    pub fn redirect(&self) -> &Url {
        &self.redirect
    }

    /// Waits for the answer that is `expected`, at most `patience`. `strange` hears of answers to other
    /// questions, which change nothing. The page is on its way when this returns.
    pub async fn wait(
        self,
        expected: &Expected,
        provider: Provider,
        patience: Duration,
        strange: impl Fn(&CallbackError) + Send + Sync + 'static,
    ) -> Verdict {
        let (answered, answer) = oneshot::channel();
        let desk = Arc::new(Desk {
            path: self.redirect.path().to_owned(),
            expected: expected.clone(),
            provider,
            answered: Mutex::new(Some(answered)),
            strange: Box::new(strange),
        });
        let app = Router::new().fallback(knock).with_state(desk);
        let stop = tokio_util::sync::CancellationToken::new();
        let mut servers = tokio::task::JoinSet::new();
        for socket in self.sockets {
            let (app, stop) = (app.clone(), stop.clone());
            servers.spawn(async move {
                let stopped = async move { stop.cancelled().await };
                let _ = axum::serve(socket, app).with_graceful_shutdown(stopped).await;
            });
        }
        let verdict = tokio::time::timeout(patience, answer).await;
        stop.cancel();
        // The page leaves before the process may; a browser that holds on is let go.
        let _ = tokio::time::timeout(Duration::from_secs(2), servers.join_all()).await;
        match verdict {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) | Err(_) => Err(CallbackError::Late(patience)),
        }
    }
}

struct Desk {
    path: String,
    expected: Expected,
    provider: Provider,
    answered: Mutex<Option<oneshot::Sender<Verdict>>>,
    strange: Box<dyn Fn(&CallbackError) + Send + Sync>,
}

async fn knock(
    State(desk): State<Arc<Desk>>,
    method: axum::http::Method,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
) -> Response {
    // A browser may ask for the same address without the last slash, never for another path.
    if uri.path().trim_end_matches('/') != desk.path.trim_end_matches('/') {
        return page(
            StatusCode::NOT_FOUND,
            "Nothing here",
            "This address only waits for a sign-in.",
            None,
        );
    }
    if method != axum::http::Method::GET {
        return page(
            StatusCode::METHOD_NOT_ALLOWED,
            "Not like this",
            "A sign-in comes back with GET.",
            None,
        );
    }
    let verdict = judge(
        query.as_deref().unwrap_or_default(),
        &desk.expected,
        desk.provider,
    );
    if let Err(error @ (CallbackError::Foreign(_) | CallbackError::Empty)) = &verdict {
        (desk.strange)(error);
        let text = error.to_string();
        let (text, _) = text.split_once("\n\n").unwrap_or((&text, ""));
        return page(StatusCode::BAD_REQUEST, "This sign-in does not fit", text, None);
    }
    let Some(answered) = desk.answered.lock().ok().and_then(|mut answered| answered.take()) else {
        return page(
            StatusCode::GONE,
            "Already answered",
            "You can close this window.",
            None,
        );
    };
    let response = match &verdict {
        Ok(_) => page(
            StatusCode::OK,
            "Signed in",
            "tidings has the answer and goes on in the terminal. It is safe to close this window.",
            None,
        ),
        Err(CallbackError::Refused(reason)) => page(
            StatusCode::OK,
            "Not signed in",
            &reason.text,
            Some(&format!(
                "{}\n{}",
                reason.reply.as_deref().unwrap_or_default(),
                reason.cure().join("\n")
            )),
        ),
        Err(error) => page(StatusCode::BAD_REQUEST, "Not signed in", &error.to_string(), None),
    };
    let _ = answered.send(verdict);
    response
}

/// A page of our own: no script, nothing from elsewhere, every text escaped, nothing kept.
fn page(status: StatusCode, title: &str, text: &str, more: Option<&str>) -> Response {
    let more = more
        .map(|more| format!("<pre>{}</pre>", escaped(more.trim())))
        .unwrap_or_default();
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>tidings: {title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1c2330}}\
         main{{max-width:34rem;margin:12vh auto;padding:2rem;background:#fff;border-radius:10px;border:1px solid #dde1e8}}\
         h1{{font-size:1.35rem;margin:0 0 .6rem}}p{{margin:0}}pre{{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem;color:#4b5568;margin:1rem 0 0}}\
         @media(prefers-color-scheme:dark){{body{{background:#12151b;color:#e6e9ef}}main{{background:#1b2029;border-color:#2d3440}}pre{{color:#a3adbd}}}}\
         </style><main><h1>{title}</h1><p>{text}</p>{more}</main></html>",
        title = escaped(title),
        text = escaped(text),
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::CONNECTION, "close"),
    ];
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(issuer: Option<(&str, bool)>) -> Expected {
        Expected {
            state: Secret::new("right"),
            issuer: issuer.map(|(issuer, must)| (issuer.to_owned(), must)),
        }
    }

    fn judged(query: &str, issuer: Option<(&str, bool)>) -> Verdict {
        judge(query, &expected(issuer), Provider::Generic)
    }

    #[test]
    fn code_with_our_state_is_taken() {
        assert_eq!(judged("code=c%2F1&state=right", None).unwrap().expose(), "c/1");
    }

    #[test]
    fn wrong_missing_or_doubled_state_is_foreign() {
        for query in [
            "code=c&state=wrong",
            "code=c",
            "code=c&state=",
            "code=c&state=right&state=right",
            "error=x&state=no",
        ] {
            assert!(
                matches!(judged(query, None), Err(CallbackError::Foreign(_))),
                "{query}"
            );
        }
    }

    #[test]
    fn issuer_that_is_not_ours_is_foreign() {
        let ours = Some(("https://id.example", false));
        assert!(judged("code=c&state=right&iss=https%3A%2F%2Fid.example", ours).is_ok());
        assert!(judged("code=c&state=right", ours).is_ok());
        assert!(matches!(
            judged("code=c&state=right&iss=https%3A%2F%2Fevil.example", ours),
            Err(CallbackError::Foreign(_))
        ));
        assert!(matches!(
            judged("code=c&state=right", Some(("https://id.example", true))),
            Err(CallbackError::Foreign(_))
        ));
    }

    #[test]
    fn refusal_keeps_the_servers_words_harmless() {
        let Err(CallbackError::Refused(reason)) = judged(
            "error=access_denied&error_description=AADSTS65004%3A%20no%1b%5b2J&state=right",
            None,
        ) else {
            panic!("not refused");
        };
        assert_eq!(
            reason.reply.as_deref(),
            Some("access_denied: AADSTS65004: no\\u{1b}[2J")
        );
    }

    #[test]
    fn pasting_takes_the_address_its_query_or_the_code() {
        let taken = |line: &str| pasted(line, &expected(None), Provider::Generic);
        for line in [
            "http://127.0.0.1:1/?code=abc&state=right",
            " code=abc&state=right\n",
            "abc",
            "?code=abc&state=right#x",
        ] {
            assert_eq!(taken(line).unwrap().expose(), "abc", "{line}");
        }
        assert!(matches!(
            taken("http://127.0.0.1/?code=abc&state=old"),
            Err(CallbackError::Foreign(_))
        ));
        for line in ["", "http://127.0.0.1/", "two words"] {
            assert!(matches!(taken(line), Err(CallbackError::Empty)), "{line}");
        }
    }

    #[tokio::test]
    async fn free_port_is_found_and_localhost_means_both_families() {
        let one = Listener::bind(&Url::parse("http://127.0.0.1:0/").unwrap(), None)
            .await
            .unwrap();
        assert_ne!(one.redirect().port(), Some(0));
        assert_eq!(one.sockets.len(), 1);
        let both = Listener::bind(&Url::parse("http://localhost/back").unwrap(), None)
            .await
            .unwrap();
        let port = both.redirect().port().unwrap();
        assert_eq!(both.redirect().path(), "/back");
        assert!(
            both.sockets
                .iter()
                .all(|socket| socket.local_addr().unwrap().port() == port)
        );
        let taken = Listener::bind(both.redirect(), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(taken.contains("--paste"), "{taken}");
    }

    #[tokio::test]
    async fn redirect_to_elsewhere_cannot_be_listened_on() {
        for redirect in ["https://127.0.0.1/", "http://example.org/"] {
            let error = Listener::bind(&Url::parse(redirect).unwrap(), None)
                .await
                .unwrap_err();
            assert!(matches!(error, CallbackError::Elsewhere(_)));
        }
    }

    #[test]
    fn page_escapes_what_it_shows() {
        assert_eq!(escaped("<b>&\"'"), "&lt;b&gt;&amp;&quot;&#39;");
    }
}
