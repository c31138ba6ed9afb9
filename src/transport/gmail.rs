//! The Gmail API: `messages.send`, as one request or, for what is bigger, as an upload by pieces.
//!
//! # What holds
//!
//! - 200 with the number of a message means accepted. It does not mean sent: what is over a daily limit may come back as a
//!   bounce.
//! - Gmail is told no envelope: recipients are read from To, Cc and Bcc, and Bcc is taken out again.
//! - An upload sends with its last piece, so the gate stands before that one. The session remembers: where no answer
//!   came, it is asked, and says whether it has everything. So a big mail is rarely unknown.
//! - [`Gmail::find`] looks a Message-ID up, where the token may read (the right to send alone may not).

use super::web::refusal::{lost, not_found, ours, unreadable, verdict};
use super::web::source::Source;
use super::web::{Answer, Lost, Method, Request, Web, at};
use super::{Found, Gate, Login, Parcel, Report, Verdict};
use crate::advice::{Local, Stage};
use crate::config::capability::{GMAIL_LONGEST as LONGEST, GMAIL_RECIPIENTS as RECIPIENTS};
use crate::config::secret::Secret;
use crate::config::settings::GmailSettings;
use crate::http::way::HttpError;
use crate::transport::transcript::Transcript;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use serde_json::json;
use std::time::Duration;
use url::Url;

/// Longest message given to one request, bytes.
const WHOLE: u64 = 3 * 1024 * 1024;
/// Bytes of one piece: a multiple of 256 KiB.
const PIECE: u64 = 16 * 256 * 1024;
/// How often one piece is tried again.
const AGAIN: u32 = 4;
/// Longest wait within an upload.
const PATIENCE: Duration = Duration::from_secs(30);

/// One account's way into the Gmail API.
#[derive(Debug)]
pub struct Gmail {
    web: Web,
    url: Url,
}

struct Attempt<'a> {
    web: &'a Web,
    url: &'a Url,
    token: &'a Secret,
    gate: &'a dyn Gate,
    transcript: Option<&'a Transcript>,
}

impl Gmail {
    /// Prepares the way; opens no connection.
    pub fn new(settings: &GmailSettings) -> Result<Gmail, HttpError> {
        Ok(Gmail {
            web: Web::new(settings.ca_file.as_deref())?,
            url: settings.url.clone(),
        })
    }

    /// Submits one message out of the token's own mailbox. The gate is asked once, before the body that sends.
    pub async fn submit(
        &self,
        login: &Login,
        parcel: &Parcel,
        gate: &dyn Gate,
        transcript: Option<&Transcript>,
    ) -> Report {
        let refused = |local, text| Report::of(ours(Stage::Gmail, local, text));
        let Login::Bearer { token, .. } = login else {
            return refused(
                Local::MechanismMissing,
                "Gmail takes a token, and there is none".to_owned(),
            );
        };
        let count = parcel.envelope.recipients().len();
        if count > RECIPIENTS {
            let text = format!("the mail has {count} recipients; Gmail takes {RECIPIENTS} in one message");
            return refused(Local::TooManyRecipients, text);
        }
        let source = match Source::new(&parcel.content, &parcel.envelope).await {
            Ok(source) => source,
            Err(error) => return Report::of(unreadable(&error, Stage::Gmail)),
        };
        if source.size() > LONGEST {
            let text = format!("the message has {} bytes; Gmail takes {LONGEST}", source.size());
            return refused(Local::MessageTooBig, text);
        }
        let attempt = Attempt {
            web: &self.web,
            url: &self.url,
            token,
            gate,
            transcript,
        };
        let verdict = if source.size() <= WHOLE {
            attempt.small(&source).await
        } else {
            attempt.large(&source).await
        };
        Report::of_all(verdict, parcel)
    }

    /// Whether a mail of that Message-ID lies in the token's mailbox.
    pub async fn find(&self, login: &Login, message_id: &str, transcript: Option<&Transcript>) -> Found {
        let Login::Bearer { user, token } = login else {
            return Found::CannotTell("there is no token".to_owned());
        };
        let mut url = at(&self.url, &["gmail", "v1", "users", "me", "messages"]);
        let query = format!("rfc822msgid:{}", message_id.trim_matches(['<', '>']));
        url.query_pairs_mut()
            .append_pair("q", &query)
            .append_pair("includeSpamTrash", "true");
        match self
            .web
            .ask(Request::new(Method::GET, url, Some(token)), transcript)
            .await
        {
            Ok(answer) if answer.status == 200 => match answer.json() {
                Some(json) if json.get("messages").is_some_and(|list| list.get(0).is_some()) => {
                    Found::Sent(format!("{} has it among the mails of {user}", answer.host))
                }
                Some(json) if json.is_object() => Found::NotThere,
                _ => Found::CannotTell(format!("{} did not answer with a list", answer.host)),
            },
            Ok(answer) => not_found(verdict(&answer, Stage::Gmail, false)),
            Err(error) => not_found(lost(error, false)),
        }
    }
}

impl Attempt<'_> {
    async fn small(&self, source: &Source) -> Verdict {
        let raw = match source.whole().await {
            Ok(bytes) => BASE64_URL_SAFE.encode(bytes),
            Err(error) => return unreadable(&error, Stage::Gmail),
        };
        let url = at(self.url, &["gmail", "v1", "users", "me", "messages", "send"]);
        let request = Request::new(Method::POST, url, Some(self.token))
            .with("application/json", json!({ "raw": raw }).to_string().into_bytes());
        match self.web.hand_over(request, self.gate, self.transcript).await {
            Ok(answer) => sent(&answer),
            Err(error) => lost(error, true),
        }
    }

    async fn large(&self, source: &Source) -> Verdict {
        let mut url = at(
            self.url,
            &["upload", "gmail", "v1", "users", "me", "messages", "send"],
        );
        url.query_pairs_mut().append_pair("uploadType", "resumable");
        let total = source.size();
        let request = Request::new(Method::POST, url, Some(self.token))
            .field("x-upload-content-type", "message/rfc822")
            .field("x-upload-content-length", total.to_string());
        let answer = match self.web.ask(request, self.transcript).await {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return verdict(&answer, Stage::Gmail, false),
            Err(error) => return lost(error, false),
        };
        let Some(session) = answer.location.and_then(|text| self.url.join(&text).ok()) else {
            return Verdict::Unreached {
                text: format!("{} opened an upload and did not say where", answer.host),
                transient: true,
                local: Local::HttpPage,
            };
        };
        let (mut start, mut failures, mut passed) = (0, 0, false);
        loop {
            let piece = match source.piece(start, PIECE).await {
                Ok(piece) => piece,
                Err(error) => return unreadable(&error, Stage::Gmail),
            };
            let end = start + piece.len() as u64;
            let last = end == total;
            let request = Request::new(Method::PUT, session.clone(), None)
                .field(
                    "content-range",
                    format!("bytes {start}-{}/{total}", end.saturating_sub(1)),
                )
                .with("message/rfc822", piece);
            let answered = if last && !passed {
                self.web.hand_over(request, self.gate, self.transcript).await
            } else {
                self.web.ask(request, self.transcript).await
            };
            if let Err(Lost::Closed(closed)) = answered {
                return Verdict::GateClosed(closed);
            }
            // Before the last piece was on its way, nothing can have been sent.
            passed |= last && !matches!(answered, Err(Lost::Before { .. }));
            match self.next(answered, end, passed) {
                Next::Done(verdict) => return verdict,
                Next::From(next) => {
                    failures = if next > start { 0 } else { failures + 1 };
                    start = next;
                }
                Next::Ask(verdict, wait) => {
                    failures += 1;
                    let wait = wait
                        .unwrap_or_default()
                        .max(Duration::from_secs(1 << failures.min(4)));
                    if failures > AGAIN || wait > PATIENCE {
                        return verdict;
                    }
                    tokio::time::sleep(wait).await;
                    let asked = Request::new(Method::PUT, session.clone(), None)
                        .field("content-range", format!("bytes */{total}"));
                    let answered = self.web.ask(asked, self.transcript).await;
                    match self.next(answered, start, passed) {
                        Next::Done(verdict) => return verdict,
                        Next::From(next) => start = next,
                        Next::Ask(..) => {}
                    }
                }
            }
            if failures > AGAIN || start >= total {
                let text = "the upload does not get on".to_owned();
                return match passed {
                    true => Verdict::Unknown { text },
                    false => Verdict::Unreached {
                        text,
                        transient: true,
                        local: Local::NoAnswer,
                    },
                };
            }
        }
    }

    /// What follows from an answer of the session. `passed`: the last piece was on its way once.
    fn next(&self, answered: Result<Answer, Lost>, end: u64, passed: bool) -> Next {
        match answered {
            Ok(answer) if answer.status == 308 => Next::From(match &answer.range {
                Some(range) => range
                    .rsplit('-')
                    .next()
                    .and_then(|last| last.trim().parse::<u64>().ok())
                    .map_or(end, |last| last + 1),
                // It has nothing yet.
                None => 0,
            }),
            Ok(answer) if answer.status < 300 => Next::Done(sent(&answer)),
            Ok(answer) if matches!(answer.status, 408 | 429 | 500..) => {
                let wait = answer.retry_after;
                Next::Ask(verdict(&answer, Stage::Gmail, passed), wait)
            }
            Ok(answer) => Next::Done(verdict(&answer, Stage::Gmail, passed)),
            Err(error) => Next::Ask(
                match lost(error, passed) {
                    // The piece did not get there; whether an earlier try of it did, is not known.
                    Verdict::Unreached { text, .. } if passed => Verdict::Unknown { text },
                    verdict => verdict,
                },
                None,
            ),
        }
    }
}

enum Next {
    /// It is decided.
    Done(Verdict),
    /// On from this byte.
    From(u64),
    /// Ask the session; should that not help, this is what became of it.
    Ask(Verdict, Option<Duration>),
}

/// What the answer to the request that sends means.
fn sent(answer: &Answer) -> Verdict {
    let id = answer
        .json()
        .filter(|_| (200..300).contains(&answer.status))
        .and_then(|json| Some(json.get("id")?.as_str()?.to_owned()));
    match id {
        Some(id) => Verdict::Accepted {
            reply: format!(
                "HTTP {} accepted as {}",
                answer.status,
                crate::http::answer::shown(&id)
            ),
        },
        None => match verdict(answer, Stage::Gmail, true) {
            Verdict::Refused(mut symptom) if answer.status < 300 => {
                symptom.local = Some(Local::NotAccepted);
                Verdict::Refused(symptom)
            }
            other => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_multiples_of_256_kib() {
        assert_eq!(PIECE % (256 * 1024), 0);
    }

    #[test]
    fn a_yes_without_a_number_is_no_yes() {
        let answer = |status, body: &str| Answer {
            status,
            body: body.as_bytes().to_vec(),
            ..Answer::default()
        };
        assert!(matches!(
            sent(&answer(200, r#"{"id":"17","labelIds":["SENT"]}"#)),
            Verdict::Accepted { .. }
        ));
        assert!(matches!(sent(&answer(200, "{}")), Verdict::Refused(_)));
        assert!(matches!(
            sent(&answer(200, "<html>sign in</html>")),
            Verdict::Unreached { .. }
        ));
        assert!(matches!(sent(&answer(504, "")), Verdict::Unknown { .. }));
    }
}
