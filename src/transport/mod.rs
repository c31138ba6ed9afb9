//! Transports: how one message leaves. A closed list, one file a kind.
//!
//! | kind | takes responsibility when | tells about each recipient |
//! |---|---|---|
//! | [`smtp`] | 2xx to the final dot | yes |
//! | [`graph`] | 202 | no, all or none |
//! | [`gmail`] | 200 and a number | no, all or none |
//! | [`mod@file`] | the file and its folder are synced | no, all or none |
//! | [`stand_in`] | as a test of rules says | as it says |
//!
//! A transport knows no OAuth2: it is handed a [`Login`]. It knows no outbox: before the point of no
//! return it asks a [`Gate`], and only goes on when that is open.

pub mod dialogue;
pub mod file;
pub mod gmail;
pub mod graph;
pub mod smtp;
pub mod stand_in;
pub mod tls;
pub mod transcript;
pub mod web;

use crate::advice::{Local, Symptom};
use crate::config::secret::Secret;
use crate::mail::Envelope;
use crate::mail::address::Address;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// With what a session signs in.
#[derive(Clone, Debug)]
pub enum Login {
    /// Not at all.
    Anonymous,
    /// A password, for PLAIN or LOGIN.
    Password {
        /// Login name.
        user: String,
        /// Password.
        secret: Secret,
    },
    /// A bearer token, for OAUTHBEARER or XOAUTH2.
    Bearer {
        /// The mailbox that is opened.
        user: String,
        /// The access token.
        token: Secret,
    },
}

/// A message on its way: complete, CRLF line ends, headers and body.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Who is told to the server.
    pub envelope: Envelope,
    /// The bytes.
    pub content: Content,
    /// Its Message-ID, for transcripts and file names.
    pub message_id: String,
}

/// Where a message's bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file, to be streamed.
    File {
        /// Which.
        path: PathBuf,
        /// Its bytes.
        len: u64,
    },
}

/// The last question before the point of no return: may the message be handed over for good? Who
/// answers has made "we may have sent it" durable first.
pub trait Gate: Send + Sync {
    /// Called once per attempt, before the final dot or the one request that sends.
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), GateClosed>> + Send + '_>>;
}

/// The gate stayed shut: the lease is lost, or the store cannot write. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not sent: {0}")]
pub struct GateClosed(pub String);

/// A gate that is always open, for tests and `tidings send`.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), GateClosed>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// How one attempt to submit ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What became of the whole.
    pub verdict: Verdict,
    /// What became of each recipient that the server decided about for good: the accepted ones, if
    /// the whole was accepted, and those it refused by name. Whoever is missing shares the verdict.
    pub recipients: Vec<(Address, RecipientVerdict)>,
}

impl Report {
    /// A report without a word about single recipients.
    pub(crate) fn of(verdict: Verdict) -> Report {
        Report {
            verdict,
            recipients: Vec::new(),
        }
    }

    /// A report of a service that tells nothing of single recipients: all of them are accepted, or none is.
    pub(crate) fn of_all(verdict: Verdict, parcel: &Parcel) -> Report {
        let recipients = match &verdict {
            Verdict::Accepted { .. } => parcel.envelope.recipients(),
            _ => &[],
        };
        Report {
            recipients: recipients
                .iter()
                .map(|address| (address.clone(), RecipientVerdict::Accepted))
                .collect(),
            verdict,
        }
    }
}

/// Whether a mail that may have gone out is there, where sent mails are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was sent: who says so.
    Sent(String),
    /// It is not among them.
    NotThere,
    /// The way, or the service, did not answer now.
    Later(String),
    /// The token was refused.
    Unauthorized,
    /// Nobody can tell here, or the token may not look: why.
    CannotTell(String),
}

/// What became of one recipient.
#[derive(Clone, Debug)]
pub enum RecipientVerdict {
    /// The server took responsibility for it: never send to it again.
    Accepted,
    /// Refused, now or for ever as the symptom says.
    Refused(Symptom),
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The server took responsibility, for the recipients it accepted. Its last words.
    Accepted {
        /// The reply to the final dot, or the file's path.
        reply: String,
    },
    /// It did not go out. The symptom says why; `advice` says what that means.
    Refused(Symptom),
    /// Nothing was said before the point of no return: no route, no answer, broken TLS.
    Unreached {
        /// One sentence: what was tried and what happened.
        text: String,
        /// Whether another try may help by itself.
        transient: bool,
        /// What it was, for the advice catalog.
        local: Local,
    },
    /// Past the gate, and no answer came.
    Unknown {
        /// One sentence.
        text: String,
    },
    /// The gate stayed shut.
    GateClosed(GateClosed),
}

impl Verdict {
    /// What `advice` is to be asked about; `None` where there is nothing to mend.
    pub fn symptom(&self) -> Option<Symptom> {
        let ours = |text: &str, local| Symptom {
            text: text.to_owned(),
            local: Some(local),
            ..Symptom::default()
        };
        match self {
            Verdict::Refused(symptom) => Some(symptom.clone()),
            Verdict::Unreached { text, local, .. } => Some(ours(text, *local)),
            Verdict::Unknown { text } => Some(ours(text, Local::DataTimeout)),
            Verdict::Accepted { .. } | Verdict::GateClosed(_) => None,
        }
    }
}

/// Time limits of a session (RFC 5321 4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To connect, and for the TLS handshake.
    pub connect: Duration,
    /// For each reply but the last.
    pub reply: Duration,
    /// For the answer to the final dot.
    pub final_reply: Duration,
    /// For the whole attempt, apart from the wait for the final answer.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(30),
            reply: Duration::from_secs(300),
            final_reply: Duration::from_secs(600),
            total: Duration::from_secs(1800),
        }
    }
}
