//! `mail:`: a message composed once, frozen, and sent as it is until it is accepted.
//!
//! [`prepare`] does all that can go wrong before a server is asked: recipients are rendered and held against the
//! allow-list, attachments opened, the template rendered, the bytes written. Whatever fails there, the mail is not
//! lost: it is admitted as held, with the reason and what to do.

use crate::action::Mail;
use crate::action::attach::{self, Attachments, Places};
use crate::action::frozen::Frozen;
use crate::action::recipients::{RecipientSpec, Saying, recipients, rendered};
use crate::config::settings::{Account, Settings};
use crate::entry::{Body, Kind, NewEntry, Reason};
use crate::event::{EventId, FileRef, shown};
use crate::mail::Envelope;
use crate::mail::address::Mailbox;
use crate::mail::header::{MAX_VALUE, ascii_domain, one_line, own_header};
use crate::mail::message::{Draft, Part};
use crate::store::spool::Spool;
use crate::template::{Attached, MAX_SUBJECT, RenderOptions, Templates, Text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// `mail:`, as the rule says it, defaults filled in.
#[derive(Clone, Debug)]
pub struct MailSpec {
    /// Which account sends.
    pub account: String,
    /// The rule names it; else it is the default.
    pub account_named: bool,
    /// Where the rule names several, all of them in order.
    pub accounts: Vec<String>,
    /// From.
    pub from: Mailbox,
    /// To; at least one.
    pub to: Vec<RecipientSpec>,
    /// Cc.
    pub cc: Vec<RecipientSpec>,
    /// Bcc: in the envelope only.
    pub bcc: Vec<RecipientSpec>,
    /// Reply-To, else the account's.
    pub reply_to: Option<Mailbox>,
    /// Instead of the template's subject.
    pub subject: Option<Text>,
    /// Which template.
    pub template: String,
    /// What to attach: paths, or `job.log`.
    pub attach: Vec<Text>,
    /// What to do with attachments that are too big.
    pub oversize: Oversize,
    /// How big all attachments may be together, counted as encoded, bytes.
    pub max_size: u64,
    /// X-Priority and Importance.
    pub priority: Priority,
    /// Further header fields.
    pub headers: Vec<(String, Text)>,
}

/// What to do with attachments that are too big.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// Leave them out and say so in the mail, with path and size.
    #[default]
    Note,
    /// Pack them; where that is still too big, as `Note`.
    Zip,
    /// Hold the mail.
    Fail,
}

/// How urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// What a mail is composed with.
#[derive(Clone, Copy)]
pub struct Composing<'a> {
    /// Accounts, groups, the allow-list, the setup folder.
    pub settings: &'a Settings,
    /// Templates.
    pub templates: &'a Templates,
    /// Where a large message is written.
    pub spool: &'a Spool,
    /// The rule that asks.
    pub rule: &'a str,
    /// The event it answers.
    pub event: Option<EventId>,
    /// What may be said.
    pub facts: &'a Value,
    /// The file the event is about, where it lies now.
    pub file: Option<&'a FileRef>,
    /// The log of the job the event is about.
    pub job_log: Option<&'a Path>,
    /// The time: Date, and due.
    pub now: Timestamp,
    /// This machine's name.
    pub host: &'a str,
}

impl<'a> Composing<'a> {
    fn saying(&self) -> Saying<'a> {
        Saying {
            settings: self.settings,
            rule: self.rule,
            facts: self.facts,
        }
    }
}

/// What stands before the subject of a mail that tells of a case again, so that it is not taken for the first one.
/// A rung with a subject of its own needs none.
fn mark(spec: &MailSpec, facts: &Value) -> String {
    let number = |path: &str| facts.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    match (number("/case/reminder"), number("/case/escalation")) {
        (0, 0) => String::new(),
        (0, _) if spec.subject.is_some() => String::new(),
        (0, rung) => format!("Escalation {rung}: "),
        (reminder, _) => format!("Reminder {reminder}: "),
    }
}

/// One event of several that a mail tells.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// What may be said of it.
    pub facts: &'a Value,
    /// The file it is about.
    pub file: Option<&'a FileRef>,
    /// The log of the job it is about.
    pub job_log: Option<&'a Path>,
}

/// Why there is no message.
enum Refusal {
    /// A person must mend something.
    Hold(Reason),
    /// Our own disk could not take it.
    Disk(io::Error),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal::Hold(reason)
    }
}

/// Composes a mail. One that cannot be composed is held, with the reason and an empty effect.
///
/// Reads attachments and may write to the spool, so it is called on a thread that may block. A spooled body is
/// durable when this returns; if the entry is never admitted, the store removes it as an orphan.
///
/// The error is our own disk's: full, or failing. Nobody needs to mend the mail then; ask again later.
pub fn prepare(spec: &MailSpec, key: &str, with: &Composing<'_>) -> io::Result<NewEntry> {
    prepare_over(spec, key, with, None)
}

/// Composes one mail of several events. `with` has the facts of the latest of them, and `group`.
///
/// It goes to everybody that any of the events gives, and everything they give is attached. What is gone or has
/// changed since is said in the mail, and does not keep it from leaving.
pub fn prepare_digest(
    spec: &MailSpec,
    key: &str,
    with: &Composing<'_>,
    members: &[Member<'_>],
) -> io::Result<NewEntry> {
    let mut entry = prepare_over(spec, key, with, Some(members))?;
    if members.len() > 1 {
        entry.summary["about"] = format!("{} events", members.len()).into();
    }
    Ok(entry)
}

fn prepare_over(
    spec: &MailSpec,
    key: &str,
    with: &Composing<'_>,
    members: Option<&[Member<'_>]>,
) -> io::Result<NewEntry> {
    let mut entry = NewEntry {
        key: key.to_owned(),
        kind: Kind::Mail,
        rule: with.rule.to_owned(),
        event: with.event,
        lane: spec.account.clone(),
        effect: Vec::new(),
        body: Body::None,
        summary: json!({
            "account": spec.account,
            "from": spec.from.to_string(),
            "template": spec.template,
        }),
        on_unknown: with.settings.outbox.on_unknown,
        due: with.now,
        held: None,
        answers: Vec::new(),
        of_case: None,
    };
    if let Some(file) = with.file {
        entry.summary["about"] = one_line(&shown(file.path().as_os_str()), MAX_VALUE).into();
    } else if let Some(what) = ["/job/name", "/trouble/subject"]
        .iter()
        .find_map(|fact| with.facts.pointer(fact)?.as_str())
    {
        entry.summary["about"] = one_line(what, MAX_VALUE).into();
    }
    match compose(spec, key, with, members, &mut entry) {
        Ok(()) => {}
        Err(Refusal::Hold(reason)) => {
            entry.effect = Vec::new();
            entry.body = Body::None;
            entry.held = Some(reason);
        }
        Err(Refusal::Disk(error)) => return Err(error),
    }
    Ok(entry)
}

fn compose(
    spec: &MailSpec,
    key: &str,
    with: &Composing<'_>,
    members: Option<&[Member<'_>]>,
    entry: &mut NewEntry,
) -> Result<(), Refusal> {
    let account = with.settings.accounts.get(&spec.account).ok_or_else(|| Reason {
        steps: vec!["Name an account of tidings.yaml in the rule, then retry the mail.".to_owned()],
        ..Reason::new(format!(
            "there is no account `{}`",
            one_line(&spec.account, MAX_VALUE)
        ))
    })?;
    let each: Option<Vec<&Value>> = members.map(|all| all.iter().map(|member| member.facts).collect());
    let to = recipients("to", &spec.to, &with.saying(), each.as_deref())?;
    let cc = recipients("cc", &spec.cc, &with.saying(), each.as_deref())?;
    let bcc = recipients("bcc", &spec.bcc, &with.saying(), each.as_deref())?;
    let names = |list: &[Mailbox]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    entry.summary["to"] = names(&to).into();
    entry.summary["cc"] = names(&cc).into();
    entry.summary["bcc"] = names(&bcc).into();

    let mark = mark(spec, with.facts);
    let written = spec
        .subject
        .as_ref()
        .map(|text| rendered("subject", text, &with.saying()));
    let written = written
        .transpose()
        .inspect_err(|_| entry.summary["fault"] = "template".into())?;
    let counts = spec.subject.as_ref().is_some_and(Text::counts);
    let subject = written.map(|text| if counts { text } else { format!("{mark}{text}") });
    if let Some(subject) = &subject {
        entry.summary["subject"] = one_line(subject, MAX_SUBJECT).into();
    }
    let Attachments { files, omitted } = attachments(spec, with, members)?;
    let attached: Vec<Attached> = files.iter().map(|file| file.shown.clone()).collect();
    let mail = with
        .templates
        .render(
            &spec.template,
            with.facts,
            RenderOptions {
                signature: account.signature.as_deref(),
                subject: subject.as_deref(),
                mark: Some(&mark),
                attachments: &attached,
                omitted: &omitted,
                zone: Some(&with.settings.defaults.timezone),
            },
        )
        .map_err(|error| Reason {
            steps: vec![
                "Mend the template (`tidings check` shows the place), then retry the mail.".to_owned(),
            ],
            ..Reason::new(error.to_string())
        })
        .inspect_err(|_| entry.summary["fault"] = "template".into())?;
    entry.summary["subject"] = mail.subject.clone().into();

    let envelope = Envelope::new(
        spec.from.address.clone(),
        [&to, &cc, &bcc]
            .into_iter()
            .flatten()
            .map(|mailbox| mailbox.address.clone())
            .collect(),
    )
    .map_err(|none| Reason::new(none.to_string()))?;
    let message_id = message_id(spec, key, with);
    let fields = fields(spec, mail.headers, with)?;
    let draft = Draft {
        from: &spec.from,
        reply_to: spec.reply_to.as_ref().or(account.reply_to.as_ref()),
        to: &to,
        cc: &cc,
        subject: &mail.subject,
        date: &with.now.to_zoned(with.settings.defaults.timezone.clone()),
        message_id: &message_id,
        fields: &fields,
        text: &mail.text,
        html: mail.html.as_deref(),
        attachments: files
            .iter()
            .map(|file| Part {
                name: file.shown.name.clone(),
                content_type: file.shown.content_type.clone(),
                size: file.shown.size,
                content: Box::new(&file.file),
            })
            .collect(),
    };
    let mut frozen = Frozen::new(with.spool);
    if let Err(error) = draft.write(&mut frozen) {
        return Err(match frozen.failed.take() {
            Some(disk) => Refusal::Disk(disk),
            None => Reason::new(error.to_string()).into(),
        });
    }
    if let Some(changed) = files.iter().find(|file| !file.is_unchanged()) {
        return Err(Reason::new(format!("{} changed while it was attached", changed.shown.name)).into());
    }
    let size = frozen.size;
    // Before the body is kept: what follows cannot fail.
    entry.effect = effect(account, spec, envelope, &message_id)?;
    entry.body = frozen.keep().map_err(Refusal::Disk)?;
    entry.summary["message_id"] = message_id.into();
    entry.summary["size"] = size.into();
    entry.summary["attachments"] = attached
        .iter()
        .map(|file| json!({"name": file.name, "size": file.size}))
        .collect();
    if !omitted.is_empty() {
        entry.summary["omitted"] = json!(omitted);
    }
    Ok(())
}

/// What is attached, after those that are too big were dealt with as the rule says.
fn attachments(
    spec: &MailSpec,
    with: &Composing<'_>,
    members: Option<&[Member<'_>]>,
) -> Result<Attachments, Refusal> {
    let places = Places {
        settings: with.settings,
        facts: with.facts,
        file: with.file,
        job_log: with.job_log,
    };
    let mut opened = match members {
        None => attach::open(&spec.attach, &places)?,
        Some(members) => {
            let each = members.iter().map(|member| Places {
                settings: with.settings,
                facts: member.facts,
                file: member.file,
                job_log: member.job_log,
            });
            attach::open_each(&spec.attach, &places, each)?
        }
    };
    let total = attach::encoded(&opened.files);
    if total <= spec.max_size {
        return Ok(opened);
    }
    match spec.oversize {
        Oversize::Fail => {
            return Err(Reason {
                steps: vec![
                    "Raise `max_size`, or choose `oversize: note` or `oversize: zip` in the rule.".to_owned(),
                    "Then retry the mail.".to_owned(),
                ],
                ..Reason::new(format!(
                    "the attachments are too big: {total} bytes as encoded, and the rule allows {}",
                    spec.max_size
                ))
            }
            .into());
        }
        Oversize::Zip => {
            let packed = attach::pack(&opened.files, with.settings).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Disk(error),
                _ => Reason::new(format!("the attachments cannot be packed: {error}")).into(),
            })?;
            if attach::encoded(std::slice::from_ref(&packed)) <= spec.max_size {
                opened.files = vec![packed];
            } else {
                attach::leave_out(&mut opened, spec.max_size, "too big to attach, even packed");
            }
        }
        Oversize::Note => attach::leave_out(&mut opened, spec.max_size, "too big to attach"),
    }
    Ok(opened)
}

fn effect(
    account: &Account,
    spec: &MailSpec,
    envelope: Envelope,
    message_id: &str,
) -> Result<Vec<u8>, Reason> {
    let mail = Mail {
        account: account.name.clone(),
        accounts: spec.accounts.clone(),
        sender: spec.from.address.clone(),
        envelope,
        message_id: message_id.to_owned(),
        refused: Vec::new(),
    };
    serde_json::to_vec(&mail).map_err(|error| Reason::new(format!("the mail cannot be described: {error}")))
}

/// Everybody a mail would go to; or why it would be held.
pub fn addressed(spec: &MailSpec, with: &Composing<'_>) -> Result<Vec<Mailbox>, Reason> {
    let mut all = recipients("to", &spec.to, &with.saying(), None)?;
    all.extend(recipients("cc", &spec.cc, &with.saying(), None)?);
    all.extend(recipients("bcc", &spec.bcc, &with.saying(), None)?);
    Ok(all)
}

/// Fixed for good: the same effect composed at the same time has the same one.
fn message_id(spec: &MailSpec, key: &str, with: &Composing<'_>) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [key, with.host, &with.now.as_nanosecond().to_string()] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    let hash = hash.finalize().to_hex();
    format!("{}.tidings@{}", &hash[..32], ascii_domain(&spec.from.address))
}

/// Our fields, priority, then the template's and the rule's own; the rule's win.
fn fields(
    spec: &MailSpec,
    of_template: Vec<(String, String)>,
    with: &Composing<'_>,
) -> Result<Vec<(String, String)>, Reason> {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut fields = vec![("X-Tidings-Rule".to_owned(), one_line(with.rule, MAX_SUBJECT))];
    if let Some(event) = with.event {
        fields.push(("X-Tidings-Event".to_owned(), event.to_string()));
    }
    match spec.priority {
        Priority::High => fields.extend([field("X-Priority", "1 (Highest)"), field("Importance", "high")]),
        Priority::Normal => {}
        Priority::Low => fields.extend([field("X-Priority", "5 (Lowest)"), field("Importance", "low")]),
    }
    let mut own = of_template;
    for (name, text) in &spec.headers {
        let value = rendered(name, text, &with.saying())?;
        own.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        own.push((name.clone(), value));
    }
    for (name, value) in own {
        own_header(&name).map_err(|error| Reason::new(error.to_string()))?;
        fields.push((name, value));
    }
    Ok(fields)
}
