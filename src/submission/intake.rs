//! A message that was handed in becomes an event and an entry, its bytes frozen; both are kept together, and only then
//! is it accepted.

use crate::action::Mail;
use crate::config::settings::Settings;
use crate::entry::{Body, Kind as EntryKind, NewEntry};
use crate::event::{Kind, NewEvent};
use crate::mail::Envelope;
use crate::mail::address::{Address, Mailbox};
use crate::mail::handed::{self, Leaving};
use crate::mail::header::{MAX_VALUE, ascii_domain, one_line};
use crate::mail::incoming::Incoming;
use crate::mail::list::{self, Listed};
use crate::sender;
use crate::store::{Admitted, Store, StoreError};
use crate::submission::policy::{Policy, Refusal, What};
use crate::template::MAX_SUBJECT;
use jiff::Timestamp;
use serde_json::{Map, json};
use std::time::Duration;

/// Most recipients of one mail.
pub const MOST: usize = 1_000;

/// How a mail is handed in. The word stands where a rule's name stands for other mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `tidings sendmail`.
    Sendmail,
    /// The listener.
    Submission,
}

impl Way {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Sendmail => "sendmail",
            Way::Submission => "submission",
        }
    }
}

/// A message handed in.
#[derive(Clone, Debug)]
pub struct Handed<'a> {
    /// How.
    pub way: Way,
    /// Who handed it in, for people: `root (uid 0)`, `scanner at 10.1.2.3`.
    pub by: String,
    /// Same client, same text: a user, or an address.
    pub client: String,
    /// Whose it is, where the message does not say: the address given beside it, or a user's name.
    pub other: String,
    /// The name shown beside that.
    pub full_name: Option<String>,
    /// Recipients that were given beside it: lists of addresses.
    pub given: Vec<String>,
    /// Those in the header are recipients too.
    pub by_header: bool,
    /// The message.
    pub raw: &'a [u8],
    /// Different for every mail, even if nothing else is.
    pub nonce: [u8; 16],
    /// The same message of the same client is the same mail: by Message-ID, recipients and body.
    pub once: bool,
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// That it was handed in.
    pub event: NewEvent,
    /// The mail.
    pub entry: NewEntry,
}

/// Makes event and entry, or says why not. Pure: the same input gives the same bytes.
pub fn prepare(
    mail: &Handed<'_>,
    settings: &Settings,
    host: &str,
    now: Timestamp,
) -> Result<Prepared, Refusal> {
    let policy = Policy { settings, host };
    let bad = |text: String| Refusal::new(What::Message, text, "");
    if mail.raw.len() as u64 > settings.handed_in.max_size {
        return Err(Refusal::new(
            What::Size,
            format!("it is larger than {} bytes", settings.handed_in.max_size),
            "Raise `handed_in: { max_size: .. }` in tidings.yaml, if the mail service takes more.",
        ));
    }
    let message = Incoming::parse(mail.raw).map_err(|error| bad(error.to_string()))?;
    let from = author(&message)?;
    let mut leaves = policy.sender(from.as_ref(), &mail.other)?;
    if from.is_none() && leaves.mailbox.name.is_none() {
        leaves.mailbox.name.clone_from(&mail.full_name);
    }
    let account = settings
        .accounts
        .get(&leaves.account)
        .ok_or_else(|| bad(format!("there is no account `{}`", leaves.account)))?;
    let recipients = recipients(mail, &message, &policy)?;
    let envelope = Envelope::new(
        leaves.mailbox.address.clone(),
        recipients.iter().map(|mailbox| mailbox.address.clone()).collect(),
    )
    .map_err(|_| Refusal::new(What::Nobody, "it has no recipient", "Name one."))?;

    let key = key(mail, &message, &recipients);
    let message_id = handed::message_id(&message).unwrap_or_else(|| {
        let hash = blake3::hash(format!("{key} {host} {}", now.as_nanosecond()).as_bytes()).to_hex();
        format!(
            "{}.tidings@{}",
            &hash[..32],
            ascii_domain(&leaves.mailbox.address)
        )
    });
    let keep_sender = message.first("Sender").is_some_and(|field| {
        let listed = list::parse(&field.text()).unwrap_or_default();
        let own = |one: &Listed| {
            one.address
                .parse::<Address>()
                .is_ok_and(|one| account.may_send_as(&one))
        };
        listed.len() == 1 && listed.iter().all(own)
    });
    let bytes = handed::write(
        &message,
        &Leaving {
            from: &leaves.mailbox,
            from_changed: leaves.changed,
            keep_sender,
            message_id: &message_id,
            date: &now.to_zoned(settings.defaults.timezone.clone()),
            resolve: &|listed| policy.recipient(&listed.address).unwrap_or_default(),
        },
    );
    let subject = message
        .first("Subject")
        .map(|field| field.shown())
        .unwrap_or_default();
    let summary = json!({
        "account": account.name,
        "from": leaves.mailbox.to_string(),
        "to": recipients.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "subject": one_line(&subject, MAX_SUBJECT),
        "message_id": message_id,
        "size": bytes.len(),
        "handed_in": format!("{} by {}", mail.way.as_str(), one_line(&mail.by, MAX_VALUE)),
    });
    let mut facts = Map::new();
    facts.insert("mail".to_owned(), summary.clone());
    let effect = Mail {
        account: account.name.clone(),
        accounts: Vec::new(),
        sender: leaves.mailbox.address.clone(),
        envelope,
        message_id,
        refused: Vec::new(),
    };
    Ok(Prepared {
        event: NewEvent {
            key: key.clone(),
            kind: Kind::MailHandedIn,
            source: mail.way.as_str().to_owned(),
            subject: one_line(&mail.by, MAX_VALUE),
            time: now,
            facts,
            file: None,
            origin: None,
            case: None,
        },
        entry: NewEntry {
            key,
            kind: EntryKind::Mail,
            rule: mail.way.as_str().to_owned(),
            event: None,
            lane: sender::lane(account, &leaves.mailbox.address),
            effect: serde_json::to_vec(&effect).map_err(|error| bad(error.to_string()))?,
            body: Body::Inline(bytes),
            summary,
            on_unknown: settings.outbox.on_unknown,
            due: now,
            held: None,
            answers: Vec::new(),
            of_case: None,
        },
    })
}

/// Keeps it: when this returns it is on disk. The same that came within `within` is not kept again.
pub async fn take(store: &Store, prepared: Prepared, within: Duration) -> Result<Admitted, StoreError> {
    let Prepared { event, entry } = prepared;
    store.take_in(event, entry, within).await
}

/// The one author of a message. Two From fields are two truths, and readers show either.
fn author(message: &Incoming<'_>) -> Result<Option<Listed>, Refusal> {
    let refuse = |text: String| {
        Err(Refusal::new(
            What::Message,
            text,
            "Let it have one From with one address.",
        ))
    };
    let mut fields = message.all("From");
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return refuse("it has more than one From".to_owned());
    }
    match list::parse(&field.text()) {
        Ok(mut listed) if listed.len() <= 1 => Ok(listed.pop()),
        Ok(_) => refuse("its From has more than one address".to_owned()),
        Err(error) => refuse(format!("its From cannot be read: {error}")),
    }
}

/// Everybody it goes to, once.
fn recipients(
    mail: &Handed<'_>,
    message: &Incoming<'_>,
    policy: &Policy<'_>,
) -> Result<Vec<Mailbox>, Refusal> {
    let mut texts = mail.given.clone();
    if mail.by_header {
        // A message that is sent on names its new recipients in fields of their own (RFC 5322 3.6.6).
        let resent = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
        let names = match resent.iter().any(|name| message.first(name).is_some()) {
            true => resent,
            false => ["To", "Cc", "Bcc"],
        };
        for name in names {
            texts.extend(message.all(name).map(|field| field.text()));
        }
    }
    let mut all: Vec<Mailbox> = Vec::new();
    for text in texts {
        let listed = list::parse(&text).map_err(|error| {
            Refusal::new(
                What::Message,
                format!("its recipients cannot be read: {error}"),
                "",
            )
        })?;
        for one in listed {
            for mailbox in policy.recipient(&one.address)? {
                if !all.iter().any(|known| known.address == mailbox.address) {
                    all.push(mailbox);
                }
            }
            if all.len() > MOST {
                let text = format!("it has more than {MOST} recipients");
                return Err(Refusal::new(What::Message, text, "Send it in parts."));
            }
        }
    }
    Ok(all)
}

/// What the mail is known by. With `once`, a repeated message has the key it had; the fields beside its Message-ID may
/// differ, as a client may write the date of each try. A client that gives all its messages one Message-ID is told
/// apart by what it says and to whom.
fn key(mail: &Handed<'_>, message: &Incoming<'_>, recipients: &[Mailbox]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match handed::message_id(message).filter(|_| mail.once) {
        Some(id) => {
            part(mail.client.as_bytes());
            part(id.as_bytes());
            for mailbox in recipients {
                part(mailbox.address.to_string().to_lowercase().as_bytes());
            }
            part(message.body);
        }
        None => part(&mail.nonce),
    }
    format!("handed:{}:{}", mail.way.as_str(), &hash.finalize().to_hex()[..32])
}

/// Bytes nobody can guess, for [`Handed::nonce`]. Without a random source, time and process have to do.
pub fn nonce() -> [u8; 16] {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 16];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        let text = format!("{} {}", Timestamp::now().as_nanosecond(), std::process::id());
        bytes.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    }
    bytes
}
