//! Microsoft Graph: `sendMail` with the message as it is, and, for what is too big for one request, a draft whose
//! attachments are uploaded (`large`).
//!
//! # What holds
//!
//! - Only 202 means accepted. Bodies above some 2.2 MB were answered with 200 and never sent, so nothing that big is
//!   given to `sendMail`, and a 200 is a refusal.
//! - A 202 is an end, also with a Retry-After beside it: trying again would send twice.
//! - Graph is told no envelope. Recipients are read from the header, so who is hidden goes into a Bcc field, and a message
//!   whose header names somebody it is not for is refused here.
//! - The sent copy lies in the mailbox of the address that is called: `/me`, or `/users/{mailbox}`.
//! - There is no idempotency key. [`Graph::find`] looks a Message-ID up, where the token may read the mailbox.

mod large;

use super::web::refusal::{lost, not_found, ours, unreadable, verdict};
use super::web::source::Source;
use super::web::{Answer, Method, Request, Web, at};
use super::{Found, Gate, Login, Parcel, Report, Verdict};
use crate::advice::{Local, Stage};
use crate::config::secret::Secret;
use crate::config::settings::GraphSettings;
use crate::http::way::HttpError;
use crate::transport::transcript::Transcript;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

/// Longest body given to one request that makes or sends a message, bytes as encoded.
pub const WHOLE: u64 = 2_000_000;

/// One account's way into Graph.
#[derive(Debug)]
pub struct Graph {
    web: Web,
    settings: GraphSettings,
}

/// What one attempt works with.
struct Attempt<'a> {
    graph: &'a Graph,
    /// Where the mailbox begins: `{root}/v1.0/me`, or `{root}/v1.0/users/{mailbox}`.
    mailbox: Url,
    token: &'a Secret,
    gate: &'a dyn Gate,
    transcript: Option<&'a Transcript>,
}

impl Graph {
    /// Prepares the way; opens no connection.
    pub fn new(settings: &GraphSettings) -> Result<Graph, HttpError> {
        Ok(Graph {
            web: Web::new(settings.ca_file.as_deref())?,
            settings: settings.clone(),
        })
    }

    /// Submits one message out of the mailbox that the login names. The gate is asked once, before the body of the one
    /// request that sends.
    pub async fn submit(
        &self,
        login: &Login,
        parcel: &Parcel,
        gate: &dyn Gate,
        transcript: Option<&Transcript>,
    ) -> Report {
        let Login::Bearer { user, token } = login else {
            return refused(
                Local::MechanismMissing,
                "Graph takes a token, and there is none".to_owned(),
            );
        };
        let source = match Source::new(&parcel.content, &parcel.envelope).await {
            Ok(source) => source,
            Err(error) => return Report::of(unreadable(&error, Stage::Graph)),
        };
        let mut attempt = Attempt {
            graph: self,
            mailbox: self.mailbox(user),
            token,
            gate,
            transcript,
        };
        let verdict = if coded(source.size()) <= WHOLE {
            attempt.small(&source).await
        } else if self.settings.uploads {
            // Who signed in cannot upload into the mailbox of somebody else (a known fault of the service), but may send
            // as that one out of his own.
            if let Some(me) = &self.settings.me {
                attempt.mailbox = self.mailbox(me);
            }
            attempt.large(&source).await
        } else {
            let text = format!(
                "the message has {} bytes, more than Graph takes in one request, and `uploads` is off",
                source.size()
            );
            ours(Stage::Graph, Local::UploadsOff, text)
        };
        Report::of_all(verdict, parcel)
    }

    /// Whether a mail of that Message-ID was sent out of the login's mailbox.
    pub async fn find(&self, login: &Login, message_id: &str, transcript: Option<&Transcript>) -> Found {
        let Login::Bearer { user, token } = login else {
            return Found::CannotTell("there is no token".to_owned());
        };
        let mut places = vec![self.mailbox(user)];
        // What was too big went out of the mailbox of who signed in.
        places.extend(self.settings.me.iter().map(|me| self.mailbox(me)));
        places.dedup();
        let id = format!("<{}>", message_id.trim_matches(['<', '>'])).replace('\'', "''");
        for place in places {
            let mut url = at(&place, &["messages"]);
            url.query_pairs_mut()
                .append_pair("$filter", &format!("internetMessageId eq '{id}'"))
                .append_pair("$select", "id,isDraft");
            let asked = self
                .web
                .ask(Request::new(Method::GET, url, Some(token)), transcript);
            let answer = match asked.await {
                Ok(answer) if answer.status == 200 => answer,
                Ok(answer) => return not_found(verdict(&answer, Stage::Graph, false)),
                Err(error) => return not_found(lost(error, false)),
            };
            let Some(list) = answer
                .json()
                .and_then(|json| json.get("value")?.as_array().cloned())
            else {
                return Found::CannotTell(format!("{} did not answer with a list", answer.host));
            };
            if list.iter().any(|one| one.get("isDraft") == Some(&false.into())) {
                return Found::Sent(format!("{} has it among the mails of {user}", answer.host));
            }
        }
        Found::NotThere
    }

    fn mailbox(&self, user: &str) -> Url {
        if self
            .settings
            .me
            .as_deref()
            .is_some_and(|me| me.eq_ignore_ascii_case(user))
        {
            at(&self.settings.url, &["v1.0", "me"])
        } else {
            at(&self.settings.url, &["v1.0", "users", user])
        }
    }
}

impl<'a> Attempt<'a> {
    async fn small(&self, source: &Source) -> Verdict {
        let body = match source.whole().await {
            Ok(bytes) => STANDARD.encode(bytes).into_bytes(),
            Err(error) => return unreadable(&error, Stage::Graph),
        };
        let request = self.to(Method::POST, &["sendMail"]).with("text/plain", body);
        let handed = self.graph.web.hand_over(request, self.gate, self.transcript);
        match handed.await {
            Ok(answer) => sent(&answer),
            Err(error) => lost(error, true),
        }
    }

    fn to(&self, method: Method, path: &[&str]) -> Request<'a> {
        Request::new(method, at(&self.mailbox, path), Some(self.token))
    }
}

/// What the answer to the request that sends means.
fn sent(answer: &Answer) -> Verdict {
    if answer.status == 202 {
        let reply = match &answer.request_id {
            Some(id) => format!("HTTP 202 Accepted (request-id {id})"),
            None => "HTTP 202 Accepted".to_owned(),
        };
        return Verdict::Accepted { reply };
    }
    match verdict(answer, Stage::Graph, true) {
        Verdict::Refused(mut symptom) if answer.status < 300 => {
            symptom.local = Some(Local::NotAccepted);
            Verdict::Refused(symptom)
        }
        other => other,
    }
}

fn refused(local: Local, text: String) -> Report {
    Report::of(ours(Stage::Graph, local, text))
}

/// Bytes as base64.
fn coded(len: u64) -> u64 {
    len.div_ceil(3).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_202_is_accepted_also_with_a_retry_after_beside_it() {
        let answer = |status| Answer {
            status,
            retry_after: Some(std::time::Duration::from_secs(30)),
            ..Answer::default()
        };
        assert!(matches!(sent(&answer(202)), Verdict::Accepted { .. }));
        for status in [200, 201, 204] {
            let Verdict::Refused(symptom) = sent(&answer(status)) else {
                panic!("{status}")
            };
            assert_eq!(symptom.local, Some(Local::NotAccepted));
        }
    }
}
