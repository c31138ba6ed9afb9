//! What an answer that is no token means. Pure.
//!
//! Bodies are read defensively: RFC 6749 5.2 JSON with Microsoft's and Google's additions, Google's
//! nested `error` object, or the HTML page of a proxy. What a server said is kept in its own words,
//! with control characters visible and secrets masked.

use crate::advice::{Class, Local, Provider, Stage, Symptom, advise};
use crate::entry::Reason;
use crate::http::answer::{shown, wait, without_tags};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// Longest wait a server may ask for. More would be a mistake of its own.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Why no answer could be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody answered.
    #[error("cannot reach {host}: {text}")]
    Unreached {
        /// Whom we tried.
        host: String,
        /// What happened.
        text: String,
        /// The request may have arrived, and may have had its effect: only the answer is missing.
        sent: bool,
    },
    /// The server said no.
    #[error("{host} refused: {}", refusal.symptom.text)]
    Refused {
        /// Who.
        host: String,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// It said yes, in a way that means nothing.
    #[error("{host} gave an answer that cannot be used: {text}")]
    Unreadable {
        /// Who.
        host: String,
        /// What is wrong with the answer.
        text: String,
    },
    /// A setting stands in the way: nothing was sent.
    #[error("{0}")]
    Setting(String),
}

/// A refusal of a token endpoint, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// For advice.
    pub symptom: Symptom,
    /// A claims challenge, to be passed on at the next sign-in (Microsoft).
    pub claims: Option<String>,
    /// `trace_id correlation_id timestamp`, for the provider's support.
    pub trace: Option<String>,
    /// The server's own clock, where it told.
    pub date: Option<Timestamp>,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Passes by itself: network, load, the server's own fault. Try again, later each time.
    Transient,
    /// Somebody must sign in, consent, or be allowed to.
    NeedsPerson,
    /// The setup, or the application's registration, is wrong.
    NeedsConfig,
}

impl Refusal {
    /// Reads an answer whose status is not 2xx. `now` turns a Retry-After date into a wait.
    pub fn read(
        status: u16,
        body: &[u8],
        retry_after: Option<&str>,
        secrets: &[String],
        now: Timestamp,
    ) -> Refusal {
        let mut symptom = Symptom {
            stage: Some(Stage::Token),
            http_status: Some(status),
            retry_after: retry_after
                .and_then(|text| wait(text, now))
                .map(|wait| wait.min(LONGEST_WAIT)),
            ..Symptom::default()
        };
        let clean = |text: &str| shown(&masked(text, secrets));
        let (mut claims, mut trace) = (None, None);
        let json: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
        match &json {
            Some(json) => {
                let text = |key: &str| json.get(key).and_then(words);
                let nested = json.get("error").filter(|error| error.is_object());
                symptom.oauth_error = match nested {
                    Some(error) => error.get("status").and_then(words),
                    None => text("error"),
                }
                .map(|error| clean(&error));
                symptom.oauth_suberror = text("suberror")
                    .or_else(|| text("error_subtype"))
                    .map(|error| clean(&error));
                let description = nested
                    .and_then(|error| error.get("message").and_then(words))
                    .or_else(|| text("error_description"))
                    .or_else(|| text("message"))
                    .unwrap_or_default();
                symptom.aadsts = json
                    .get("error_codes")
                    .and_then(|codes| codes.get(0))
                    .and_then(|code| code.as_u64().and_then(|code| u32::try_from(code).ok()))
                    .or_else(|| aadsts_of(&description));
                claims = text("claims");
                let ids: Vec<String> = ["trace_id", "correlation_id", "timestamp"]
                    .iter()
                    .filter_map(|key| text(key).map(|value| format!("{key} {}", clean(&value))))
                    .collect();
                trace = Some(ids.join(", ")).filter(|ids| !ids.is_empty());
                symptom.text = clean(&match (&symptom.oauth_error, description.is_empty()) {
                    (Some(error), false) => format!("{error}: {description}"),
                    (Some(error), true) => error.clone(),
                    (None, false) => description,
                    (None, true) => json.to_string(),
                });
            }
            None => {
                let text = String::from_utf8_lossy(body);
                symptom.aadsts = aadsts_of(&text);
                symptom.local = (symptom.aadsts.is_none() && is_page(&text)).then_some(Local::WebPage);
                symptom.text = clean(&without_tags(&text));
            }
        }
        symptom.text = format!("HTTP {status}: {}", symptom.text);
        if symptom.text.ends_with(": ") {
            symptom.text = format!("HTTP {status} without a word");
        }
        Refusal {
            symptom,
            claims,
            trace,
            date: None,
        }
    }
}

/// What a failure asks for.
///
/// | seen | is |
/// |---|---|
/// | no answer; 408, 429, 5xx; AADSTS 90006 90024 90033 90055 50196; `temporarily_unavailable`, `server_error` | transient |
/// | a page that is no OAuth2 answer (proxy, captive portal) | transient |
/// | `invalid_grant`, `interaction_required` and kin | needs a person |
/// | `invalid_client` and all else | needs configuration |
///
/// The advice catalog overrules the last two where it knows the very code.
pub fn judge(failure: &Failure, provider: Provider) -> Outcome {
    let symptom = match failure {
        Failure::Unreached { .. } | Failure::Unreadable { .. } => return Outcome::Transient,
        Failure::Setting(_) => return Outcome::NeedsConfig,
        Failure::Refused { refusal, .. } => &refusal.symptom,
    };
    if matches!(symptom.aadsts, Some(90006 | 90024 | 90033 | 90055 | 50196)) {
        return Outcome::Transient;
    }
    let status = symptom.http_status.unwrap_or_default();
    if matches!(status, 408 | 425 | 429) || status >= 500 {
        return Outcome::Transient;
    }
    let Some(error) = symptom.oauth_error.as_deref() else {
        return match status {
            400 | 404 | 405 | 410 | 415 => Outcome::NeedsConfig,
            _ => Outcome::Transient,
        };
    };
    let by_error = match error {
        "temporarily_unavailable" | "server_error" | "internal_failure" | "slow_down" => {
            return Outcome::Transient;
        }
        "invalid_grant"
        | "interaction_required"
        | "login_required"
        | "consent_required"
        | "account_selection_required"
        | "access_denied" => Outcome::NeedsPerson,
        _ => Outcome::NeedsConfig,
    };
    let advice = advise(symptom, provider);
    match advice.class {
        _ if !advice.known => by_error,
        Class::Retry | Class::Throttle => Outcome::Transient,
        Class::Reauthorize => Outcome::NeedsPerson,
        Class::FixConfig => Outcome::NeedsConfig,
        _ => by_error,
    }
}

/// A failure in a sentence, with the server's own words and what to do.
pub fn reason(failure: &Failure, provider: Provider, doing: &str) -> Reason {
    match failure {
        Failure::Refused { host, refusal } => {
            let advice = advise(&refusal.symptom, provider);
            let mut reply = refusal.symptom.text.clone();
            if let Some(trace) = &refusal.trace {
                reply = format!("{reply} ({trace})");
            }
            Reason {
                text: format!("{host} refused {doing}: {}", advice.meaning.trim_end()),
                reply: Some(reply),
                advice: Some(advice.id.as_str().into()),
                ..advice.reason(&refusal.symptom)
            }
        }
        other => {
            let text = format!("{doing} failed: {other}");
            let local = match other {
                Failure::Unreached { .. } => Local::SignInUnreached,
                Failure::Unreadable { text, .. } if is_page(text) || text.contains("it is a page") => {
                    Local::WebPage
                }
                _ => return Reason::new(text),
            };
            let symptom = Symptom {
                stage: Some(Stage::Token),
                local: Some(local),
                ..Symptom::default()
            };
            Reason {
                text,
                ..advise(&symptom, provider).reason(&symptom)
            }
        }
    }
}

/// How long a server asked us to wait.
pub fn retry_after(failure: &Failure) -> Option<Duration> {
    match failure {
        Failure::Refused { refusal, .. } => refusal.symptom.retry_after,
        _ => None,
    }
}

/// The values of a form that must never be shown.
pub fn secrets_of(form: &[u8]) -> Vec<String> {
    url::form_urlencoded::parse(form)
        .filter(|(name, value)| {
            matches!(
                name.as_ref(),
                "refresh_token"
                    | "code"
                    | "client_secret"
                    | "code_verifier"
                    | "token"
                    | "client_assertion"
                    | "assertion"
                    | "device_code"
            ) && !value.is_empty()
        })
        .map(|(_, value)| value.into_owned())
        .collect()
}

fn masked(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| {
        text.replace(secret.as_str(), "***")
    })
}

/// A JSON scalar as text.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn aadsts_of(text: &str) -> Option<u32> {
    let after = text.split_once("AADSTS")?.1;
    let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    after.get(..digits)?.parse().ok()
}

/// Whether that is a web page rather than an answer.
fn is_page(text: &str) -> bool {
    let start: String = text.chars().take(2_000).collect::<String>().to_lowercase();
    ["<html", "<!doctype", "<head", "<body"]
        .iter()
        .any(|tag| start.contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(status, body.as_bytes(), None, &[], now())
    }

    fn judged(status: u16, body: &str) -> Outcome {
        let failure = Failure::Refused {
            host: "login.example".into(),
            refusal: Box::new(read(status, body)),
        };
        judge(&failure, Provider::Microsoft)
    }

    #[test]
    fn microsoft_error_is_read_whole() {
        let refusal = read(
            400,
            r#"{"error":"invalid_grant","error_description":"AADSTS50173: The provided grant has expired\r\nTrace ID: 1",
               "error_codes":[50173],"suberror":"bad_token","trace_id":"t-1","correlation_id":"c-1","claims":"{\"a\":1}"}"#,
        );
        assert_eq!(refusal.symptom.aadsts, Some(50173));
        assert_eq!(refusal.symptom.oauth_error.as_deref(), Some("invalid_grant"));
        assert_eq!(refusal.symptom.oauth_suberror.as_deref(), Some("bad_token"));
        assert_eq!(refusal.claims.as_deref(), Some("{\"a\":1}"));
        assert_eq!(refusal.trace.as_deref(), Some("trace_id t-1, correlation_id c-1"));
        assert_eq!(
            refusal.symptom.text,
            "HTTP 400: invalid_grant: AADSTS50173: The provided grant has expired / Trace ID: 1"
        );
    }

    #[test]
    fn proxy_page_is_read_as_its_text() {
        let refusal = read(
            502,
            "<html><head><style>p{color:red}</style><title>502 Bad Gateway</title></head>\n<body><h1>squid</h1><script>x()</script></body></html>",
        );
        assert_eq!(refusal.symptom.text, "HTTP 502: 502 Bad Gateway / squid");
        assert_eq!(refusal.symptom.oauth_error, None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let wait = |text: &str| {
            Refusal::read(429, b"", Some(text), &[], now())
                .symptom
                .retry_after
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            wait("Sun, 22 Nov 2026 12:01:30 GMT"),
            Some(Duration::from_secs(90))
        );
        assert_eq!(wait("Sun, 22 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("999999"), Some(LONGEST_WAIT));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn secrets_of_the_request_are_masked_in_the_answer() {
        let secrets =
            secrets_of(b"grant_type=refresh_token&refresh_token=canary%2B1&client_secret=s3cret&scope=mail");
        let refusal = Refusal::read(
            400,
            b"{\"error\":\"x\",\"error_description\":\"bad canary+1 s3cret\"}",
            None,
            &secrets,
            now(),
        );
        assert_eq!(refusal.symptom.text, "HTTP 400: x: bad *** ***");
    }

    #[test]
    fn what_passes_by_itself_is_transient() {
        assert_eq!(judged(503, "<html>"), Outcome::Transient);
        assert_eq!(judged(429, "{}"), Outcome::Transient);
        assert_eq!(judged(403, "<html>captive portal"), Outcome::Transient);
        for code in [90024, 90033, 90055, 90006, 50196] {
            let body = format!(r#"{{"error":"invalid_grant","error_codes":[{code}]}}"#);
            assert_eq!(judged(400, &body), Outcome::Transient, "{code}");
        }
        let gone = Failure::Unreached {
            host: "h".into(),
            text: "refused".into(),
            sent: false,
        };
        assert_eq!(judge(&gone, Provider::Generic), Outcome::Transient);
    }

    #[test]
    fn a_dead_grant_needs_a_person_and_a_bad_client_needs_configuration() {
        assert_eq!(
            judged(400, r#"{"error":"invalid_grant","error_codes":[700082]}"#),
            Outcome::NeedsPerson
        );
        assert_eq!(
            judged(400, r#"{"error":"interaction_required","error_codes":[50076]}"#),
            Outcome::NeedsPerson
        );
        assert_eq!(
            judged(401, r#"{"error":"invalid_client","error_codes":[7000222]}"#),
            Outcome::NeedsConfig
        );
        assert_eq!(
            judged(400, r#"{"error":"unauthorized_client"}"#),
            Outcome::NeedsConfig
        );
        assert_eq!(judged(404, "<html>no such page"), Outcome::NeedsConfig);
    }

    proptest! {
        #[test]
        fn any_body_can_be_read_and_shows_no_control_character(status in 300..600_u16, body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let refusal = Refusal::read(status, &body, None, &[], now());
            prop_assert!(!refusal.symptom.text.chars().any(char::is_control));
        }
    }
}
