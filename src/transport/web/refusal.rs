//! What an answer means that is not the one that was hoped for. Pure.
//!
//! | answer | is |
//! |---|---|
//! | a page instead of JSON | somebody on the way answered: nothing was sent, later again |
//! | a page, or nothing, with 502 or 504, to the request that sends | unknown |
//! | all else | a refusal, for the catalog |

use crate::advice::{Local, Stage, Symptom};
use crate::http::answer::{shown, without_tags};
use crate::transport::web::source::SourceError;
use crate::transport::web::{Answer, Lost};
use crate::transport::{Found, Verdict};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// Longest wait taken from a sentence.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Status and words of an answer, for transcripts and replies.
pub fn words(answer: &Answer) -> String {
    symptom(answer, Stage::Graph).text
}

/// A refusal as the catalog wants it: Graph's `error.code`, Google's `errors[].reason`, in the text both.
pub fn symptom(answer: &Answer, stage: Stage) -> Symptom {
    let json = answer.json();
    let error = json.as_ref().and_then(|json| json.get("error"));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let code = text(error.and_then(|error| error.get("code")));
    let reason = text(error.and_then(|error| error.pointer("/errors/0/reason")))
        .or_else(|| text(error.and_then(|error| error.get("status"))));
    let message = text(error.and_then(|error| error.get("message")));
    let id = text(error.and_then(|error| error.pointer("/innerError/request-id")))
        .or_else(|| answer.request_id.clone());
    let said = match (&json, code.as_ref().or(reason.as_ref()), message) {
        (_, Some(code), Some(message)) => format!("{code}: {message}"),
        (_, Some(code), None) => code.clone(),
        (_, None, Some(message)) => message,
        // A yes with a body is not worth its words.
        (Some(_), None, None) if answer.status < 300 => String::new(),
        (Some(json), None, None) => json.to_string(),
        (None, None, None) => without_tags(&String::from_utf8_lossy(&answer.body)),
    };
    let said = shown(&said);
    let asked = retry_after_in(&said, answer.now);
    let mut words = format!("HTTP {}", answer.status);
    if !said.is_empty() {
        words = format!("{words} {said}");
    }
    if let Some(id) = id {
        words = format!("{words} (request-id {})", shown(&id));
    }
    Symptom {
        stage: Some(stage),
        http_status: Some(answer.status),
        graph_code: code,
        text: words,
        retry_after: answer.retry_after.max(asked),
        ..Symptom::default()
    }
}

/// Google says it in a sentence: `Retry after 2026-11-22T12:00:00.000Z`.
fn retry_after_in(text: &str, now: Timestamp) -> Option<Duration> {
    let (_, rest) = text.split_once("Retry after ")?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-:.+".contains(c)));
    let at: Timestamp = rest[..end.unwrap_or(rest.len())].parse().ok()?;
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(LONGEST))
}

/// Whether somebody else than the service spoke: it always answers in JSON, or without a word.
fn is_page(answer: &Answer) -> bool {
    answer.body.iter().any(|byte| !byte.is_ascii_whitespace())
        && !answer.json().is_some_and(|json| json.is_object())
}

/// What became of a mail whose request got this answer, which is no success. `sends`: this was the request that
/// would have sent it.
pub fn verdict(answer: &Answer, stage: Stage, sends: bool) -> Verdict {
    let symptom = symptom(answer, stage);
    let host = &answer.host;
    if sends && matches!(answer.status, 502 | 504) {
        return Verdict::Unknown {
            text: format!("{host} lost sight of the request: {}", symptom.text),
        };
    }
    if let 300..400 = answer.status {
        let location = answer.location.as_deref().unwrap_or("somewhere else");
        return Verdict::Unreached {
            text: format!(
                "{host} points to {} instead of taking the mail, and redirects are not followed; is a proxy or portal on the way?",
                shown(location)
            ),
            transient: true,
            local: Local::HttpPage,
        };
    }
    // These say what is wrong, whoever says them.
    let plain = matches!(answer.status, 401 | 413 | 429 | 503);
    if is_page(answer) && !plain {
        return Verdict::Unreached {
            text: format!("what answers as {host} is not the mail service: {}", symptom.text),
            transient: true,
            local: Local::HttpPage,
        };
    }
    Verdict::Refused(symptom)
}

/// The same where there was no answer.
pub fn lost(lost: Lost, sends: bool) -> Verdict {
    match lost {
        Lost::Closed(closed) => Verdict::GateClosed(closed),
        Lost::Before {
            text,
            transient,
            local,
        } => Verdict::Unreached {
            text,
            transient,
            local,
        },
        Lost::After { text } if sends => Verdict::Unknown { text },
        Lost::After { text } => Verdict::Unreached {
            text,
            transient: true,
            local: Local::NoAnswer,
        },
    }
}

/// The stored message itself stands in the way.
pub fn unreadable(error: &SourceError, stage: Stage) -> Verdict {
    let local = match error {
        SourceError::Read(_) => Local::MessageUnreadable,
        SourceError::Header(_) => Local::HeaderRecipients,
    };
    ours(stage, local, error.to_string())
}

/// What a look for a message came to that got no list.
pub fn not_found(verdict: Verdict) -> Found {
    match verdict {
        Verdict::Unreached {
            text,
            transient: true,
            ..
        } => Found::Later(text),
        Verdict::Refused(symptom) => match symptom.http_status {
            Some(401) => Found::Unauthorized,
            Some(408 | 429 | 500..) => Found::Later(symptom.text),
            _ => Found::CannotTell(symptom.text),
        },
        Verdict::Unreached { text, .. } | Verdict::Unknown { text } | Verdict::Accepted { reply: text } => {
            Found::CannotTell(text)
        }
        Verdict::GateClosed(closed) => Found::Later(closed.to_string()),
    }
}

/// A refusal of our own, before anything is said.
pub fn ours(stage: Stage, local: Local, text: String) -> Verdict {
    Verdict::Refused(Symptom {
        stage: Some(stage),
        text,
        local: Some(local),
        ..Symptom::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            host: "graph.example".to_owned(),
            status,
            body: body.as_bytes().to_vec(),
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
            ..Answer::default()
        }
    }

    #[test]
    fn an_error_of_graph_is_read_whole() {
        let body = r#"{"error":{"code":"ErrorSendAsDenied","message":"The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account.","innerError":{"date":"2026-11-22T12:00:00","request-id":"r-1"}}}"#;
        let symptom = symptom(&answer(403, body), Stage::Graph);
        assert_eq!(symptom.graph_code.as_deref(), Some("ErrorSendAsDenied"));
        assert!(
            symptom
                .text
                .starts_with("HTTP 403 ErrorSendAsDenied: The user account")
                && symptom.text.ends_with("(request-id r-1)"),
            "{}",
            symptom.text
        );
    }

    #[test]
    fn an_error_of_google_is_read_whole_and_its_sentence_is_a_wait() {
        let body = r#"{"error":{"code":429,"message":"User-rate limit exceeded.  Retry after 2026-11-22T12:30:00.000Z (Mail sending)","errors":[{"message":"m","domain":"usageLimits","reason":"rateLimitExceeded"}],"status":"RESOURCE_EXHAUSTED"}}"#;
        let symptom = symptom(&answer(429, body), Stage::Gmail);
        assert!(
            symptom.text.starts_with("HTTP 429 rateLimitExceeded: User-rate"),
            "{}",
            symptom.text
        );
        assert_eq!(symptom.retry_after, Some(Duration::from_secs(1800)));
    }

    #[test]
    fn a_page_is_somebody_on_the_way_and_nothing_was_sent() {
        for status in [200, 202, 403, 404, 500] {
            let verdict = verdict(
                &answer(status, "<html><h1>Please sign in</h1></html>"),
                Stage::Graph,
                true,
            );
            let Verdict::Unreached {
                text,
                transient: true,
                local: Local::HttpPage,
            } = verdict
            else {
                panic!("{status}: {verdict:?}")
            };
            assert!(text.contains("Please sign in"), "{text}");
        }
        let mut moved = answer(302, "");
        moved.location = Some("https://portal.example/\u{1b}[2J".to_owned());
        let Verdict::Unreached { text, .. } = verdict(&moved, Stage::Graph, true) else {
            panic!()
        };
        assert!(
            text.contains("portal.example") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn a_gateway_that_gave_up_leaves_the_fate_unknown_only_where_something_was_sent() {
        for status in [502, 504] {
            assert!(matches!(
                verdict(&answer(status, "<html>"), Stage::Graph, true),
                Verdict::Unknown { .. }
            ));
            assert!(!matches!(
                verdict(&answer(status, ""), Stage::Graph, false),
                Verdict::Unknown { .. }
            ));
        }
        assert!(matches!(
            verdict(&answer(503, ""), Stage::Graph, true),
            Verdict::Refused(_)
        ));
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read_and_shows_no_control_character(status in 100..600_u16, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut any = answer(status, "");
            any.body = body;
            prop_assert!(!symptom(&any, Stage::Gmail).text.chars().any(char::is_control));
            let _ = verdict(&any, Stage::Graph, true);
        }
    }
}
