//! What came of a trial: mails, cases, commands, what is held; and a timeline of all of it for people.

use crate::event::EventId;
use crate::mail::Envelope;
use crate::transport::stand_in::Handed;
use crate::trial::script::Ran;
use jiff::Timestamp;
use mail_parser::{MessageParser, MimeHeaders as _};
use std::collections::BTreeSet;
use std::path::Path;

/// A mail that left.
#[derive(Clone, Debug)]
pub struct Mail {
    /// When its server accepted it.
    pub at: Timestamp,
    /// The account it left by.
    pub account: String,
    /// The rule that sent it.
    pub rule: String,
    /// From: the address.
    pub from: String,
    /// To: the addresses.
    pub to: Vec<String>,
    /// Cc: the addresses.
    pub cc: Vec<String>,
    /// Who gets it and is in neither.
    pub bcc: Vec<String>,
    /// Reply-To: the address.
    pub reply_to: Option<String>,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// The names of what is attached.
    pub attachments: Vec<String>,
    /// All header fields.
    pub headers: Vec<(String, String)>,
}

/// A case that was opened or closed.
#[derive(Clone, Debug)]
pub struct Case {
    /// When.
    pub at: Timestamp,
    /// Opened, else closed.
    pub opened: bool,
    /// Of what: `file_missing`, `account`.
    pub kind: String,
    /// The rule it belongs to, if it does.
    pub rule: Option<String>,
    /// For people.
    pub about: String,
    /// What is wrong, or what mended it.
    pub text: String,
}

/// An entry that waits for a person.
#[derive(Clone, Debug)]
pub struct Held {
    /// When.
    pub at: Timestamp,
    /// The rule that asked for it.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// A look at a file.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The expectation that asked, by its number.
    pub expected: usize,
    /// Whether the file was there.
    pub there: bool,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What, one line.
    pub what: String,
    /// Why, line by line.
    pub why: Vec<String>,
    /// The event it is about; what the rules said of it is known a little later.
    pub event: Option<EventId>,
}

/// What came of a trial.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Mails that left.
    pub mails: Vec<Mail>,
    /// Cases.
    pub cases: Vec<Case>,
    /// What is held.
    pub held: Vec<Held>,
    /// Commands.
    pub ran: Vec<Ran>,
    /// Files that were looked for.
    pub looked: Vec<Looked>,
    /// All of it, in order.
    pub timeline: Vec<Line>,
    /// The setup folder with a slash behind it, which every reader knows: it is left out of the timeline.
    home: String,
    /// Message-IDs of mails that left, for a mail leaves once, if in parts.
    left: BTreeSet<String>,
}

impl Ledger {
    /// An empty one, of a setup in this folder.
    pub fn of(setup: &Path) -> Ledger {
        Ledger {
            home: format!("{}/", setup.display()),
            ..Ledger::default()
        }
    }

    /// Adds a line.
    pub fn line(&mut self, at: Timestamp, what: impl Into<String>, why: Vec<String>) {
        let short = |text: String| match self.home.as_str() {
            "" => text,
            home => text.replace(home, ""),
        };
        let line = Line {
            event: None,
            at,
            what: short(what.into()),
            why: why.into_iter().map(short).collect(),
        };
        self.timeline.push(line);
    }

    /// Adds the line of an event.
    pub fn event(&mut self, at: Timestamp, event: EventId, what: impl Into<String>) {
        self.line(at, what, Vec::new());
        if let Some(line) = self.timeline.last_mut() {
            line.event = Some(event);
        }
    }

    /// The events of the lines from `first` on.
    pub fn events(&self, first: usize) -> Vec<EventId> {
        let lines = self.timeline.iter().skip(first);
        lines.filter_map(|line| line.event).collect()
    }

    /// Adds to the lines of an event why it led to what it led to.
    pub fn explain(&mut self, first: usize, event: EventId, why: &[String]) {
        let lines = self.timeline.iter_mut().skip(first);
        for line in lines.filter(|line| line.event == Some(event)) {
            line.why = match self.home.as_str() {
                "" => why.to_vec(),
                home => why.iter().map(|text| text.replace(home, "")).collect(),
            };
        }
    }

    /// Puts the lines from `first` on into the order in which things follow from each other at one instant.
    pub fn put_in_order(&mut self, first: usize) {
        let rank = |line: &Line| match line.what.split(' ').next() {
            Some("rule") => 1,
            Some("job_succeeds" | "job_fails") => 2,
            Some("mail") => 3,
            Some("held:" | "failed:" | "unknown:") => 4,
            Some("trouble") => 5,
            _ => 0,
        };
        self.timeline[first..].sort_by_key(|line| (line.at, rank(line)));
    }

    /// Takes note of what a server was handed.
    pub fn handed(&mut self, handed: &Handed) {
        let (mail, id) = read(handed);
        let to = addresses(&handed.accepted);
        let what = if handed.accepted.is_empty() {
            format!("mail not accepted by {}: {}", handed.account, handed.said)
        } else {
            format!("mail to {}: {}", to.join(", "), mail.subject)
        };
        let attached = match mail.attachments[..] {
            [] => String::new(),
            _ => format!(", with {}", mail.attachments.join(", ")),
        };
        let mut why = vec![format!(
            "by rule {}, from {} by account {}{attached}",
            mail.rule, mail.from, mail.account
        )];
        if !handed.accepted.is_empty() && handed.accepted.len() < handed.envelope.recipients().len() {
            why.push(format!("not for all: {}", handed.said));
        }
        self.line(handed.at, what, why);
        if !handed.accepted.is_empty() && self.left.insert(id) {
            self.mails.push(mail);
        }
    }
}

fn addresses(all: &[crate::mail::address::Address]) -> Vec<String> {
    all.iter()
        .map(|address| address.to_string().to_lowercase())
        .collect()
}

/// Reads the frozen bytes as a mail program would.
fn read(handed: &Handed) -> (Mail, String) {
    let parsed = MessageParser::default().parse(&handed.message);
    let list = |addresses: Option<&mail_parser::Address<'_>>| -> Vec<String> {
        addresses
            .map(|all| {
                all.iter()
                    .filter_map(|one| Some(one.address.as_ref()?.to_lowercase()))
                    .collect()
            })
            .unwrap_or_default()
    };
    let Some(parsed) = parsed else {
        return (unreadable(handed), String::new());
    };
    let (to, cc) = (list(parsed.to()), list(parsed.cc()));
    let headers: Vec<(String, String)> = parsed
        .headers_raw()
        .map(|(name, value)| {
            (
                name.to_owned(),
                value.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect();
    let header = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.clone())
    };
    let mail = Mail {
        at: handed.at,
        account: handed.account.clone(),
        rule: header("X-Tidings-Rule").unwrap_or_default(),
        from: list(parsed.from()).into_iter().next().unwrap_or_default(),
        bcc: hidden(&handed.envelope, &to, &cc),
        to,
        cc,
        reply_to: list(parsed.reply_to()).into_iter().next(),
        subject: parsed.subject().unwrap_or_default().to_owned(),
        text: parsed.body_text(0).unwrap_or_default().into_owned(),
        attachments: parsed
            .attachments()
            .map(|part| part.attachment_name().unwrap_or_default().to_owned())
            .collect(),
        headers,
    };
    (mail, parsed.message_id().unwrap_or_default().to_owned())
}

fn hidden(envelope: &Envelope, to: &[String], cc: &[String]) -> Vec<String> {
    addresses(envelope.recipients())
        .into_iter()
        .filter(|address| !to.contains(address) && !cc.contains(address))
        .collect()
}

/// What can be said of a message that no mail program could read.
fn unreadable(handed: &Handed) -> Mail {
    Mail {
        at: handed.at,
        account: handed.account.clone(),
        rule: String::new(),
        from: handed.envelope.return_path().to_string(),
        to: addresses(handed.envelope.recipients()),
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: None,
        subject: String::new(),
        text: String::from_utf8_lossy(&handed.message).into_owned(),
        attachments: Vec::new(),
        headers: Vec::new(),
    }
}
