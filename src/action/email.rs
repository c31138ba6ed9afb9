//! `mail:`: a message composed once, frozen, and sent as it is until it is accepted.
//!
//! [`prepare`] does all that can go wrong before a server is asked: recipients are rendered and held against the
//! allow-list, attachments opened, the template rendered, the bytes written. Whatever fails there, the mail is not
//! lost: it is admitted as held, with the reason and what to do.

use crate::action::Mail;
use crate::action::attach::{self, Attachments, Places};
use crate::config::settings::{Account, Settings};
use crate::entry::{Body, Kind, NewEntry, Reason};
use crate::event::{EventId, FileRef};
use crate::mail::Envelope;
use crate::mail::address::Mailbox;
use crate::mail::header::{MAX_VALUE, ascii_domain, one_line, own_header};
use crate::mail::message::{Draft, Part};
use crate::store::spool::{Spool, SpoolFile};
use crate::template::{Attached, MAX_SUBJECT, RenderOptions, Templates, Text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;

/// Longest message kept in the store itself, bytes; a longer one goes to the spool.
const INLINE: usize = 256 * 1024;

/// `mail:`, as the rule says it, defaults filled in.
#[derive(Clone, Debug)]
pub struct MailSpec {
    /// Which account sends.
    pub account: String,
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

/// Who gets a mail.
#[derive(Clone, Debug)]
pub enum RecipientSpec {
    /// Written out in the rule, or a group's member: allowed by being written.
    Fixed(Mailbox),
    /// From a template: must meet the allow-list.
    Template(Text),
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

/// Composes a mail. One that cannot be composed is held, with the reason and an empty effect.
///
/// Reads attachments and may write to the spool, so it is called on a thread that may block. A spooled body is
/// durable when this returns; if the entry is never admitted, the store removes it as an orphan.
pub fn prepare(spec: &MailSpec, key: &str, with: &Composing<'_>) -> NewEntry {
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
    };
    if let Err(reason) = compose(spec, key, with, &mut entry) {
        entry.effect = Vec::new();
        entry.body = Body::None;
        entry.held = Some(reason);
    }
    entry
}

fn compose(spec: &MailSpec, key: &str, with: &Composing<'_>, entry: &mut NewEntry) -> Result<(), Reason> {
    let account = with.settings.accounts.get(&spec.account).ok_or_else(|| Reason {
        steps: vec!["Name an account of tidings.yaml in the rule, then retry the mail.".to_owned()],
        ..Reason::new(format!(
            "there is no account `{}`",
            one_line(&spec.account, MAX_VALUE)
        ))
    })?;
    let to = recipients("to", &spec.to, with)?;
    let cc = recipients("cc", &spec.cc, with)?;
    let bcc = recipients("bcc", &spec.bcc, with)?;
    let names = |list: &[Mailbox]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    entry.summary["to"] = names(&to).into();
    entry.summary["cc"] = names(&cc).into();
    entry.summary["bcc"] = names(&bcc).into();

    let subject = spec
        .subject
        .as_ref()
        .map(|text| rendered("subject", text, with))
        .transpose()?;
    if let Some(subject) = &subject {
        entry.summary["subject"] = one_line(subject, MAX_SUBJECT).into();
    }
    let Attachments { files, omitted } = attachments(spec, with)?;
    let attached: Vec<Attached> = files.iter().map(|file| file.shown.clone()).collect();
    let mail = with
        .templates
        .render(
            &spec.template,
            with.facts,
            RenderOptions {
                signature: account.signature.as_deref(),
                subject: subject.as_deref(),
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
        })?;
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
    draft
        .write(&mut frozen)
        .map_err(|error| Reason::new(error.to_string()))?;
    if let Some(changed) = files.iter().find(|file| !file.is_unchanged()) {
        return Err(Reason::new(format!(
            "{} changed while it was attached",
            changed.shown.name
        )));
    }
    let size = frozen.size;
    entry.body = frozen
        .keep()
        .map_err(|error| Reason::new(format!("the message cannot be written to the spool: {error}")))?;
    entry.effect = effect(account, spec, envelope, &message_id)?;
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
fn attachments(spec: &MailSpec, with: &Composing<'_>) -> Result<Attachments, Reason> {
    let places = Places {
        settings: with.settings,
        facts: with.facts,
        file: with.file,
        job_log: with.job_log,
    };
    let mut opened = attach::open(&spec.attach, &places)?;
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
            });
        }
        Oversize::Zip => {
            let packed = attach::pack(&opened.files, with.settings)
                .map_err(|error| Reason::new(format!("the attachments cannot be packed: {error}")))?;
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
        sender: spec.from.address.clone(),
        envelope,
        message_id: message_id.to_owned(),
        refused: Vec::new(),
    };
    serde_json::to_vec(&mail).map_err(|error| Reason::new(format!("the mail cannot be described: {error}")))
}

fn rendered(what: &str, text: &Text, with: &Composing<'_>) -> Result<String, Reason> {
    text.render(with.facts).map_err(|error| Reason {
        steps: vec![format!(
            "Mend `{what}` in the rule `{}`, then retry the mail.",
            with.rule
        )],
        ..Reason::new(format!(
            "`{what}: {}`: {error}",
            one_line(text.source(), MAX_VALUE)
        ))
    })
}

/// Everybody a list means. What a template made must be allowed; what is written out is.
fn recipients(what: &str, specs: &[RecipientSpec], with: &Composing<'_>) -> Result<Vec<Mailbox>, Reason> {
    let mut all = Vec::new();
    for spec in specs {
        match spec {
            RecipientSpec::Fixed(mailbox) => all.push(mailbox.clone()),
            RecipientSpec::Template(text) => {
                let value = rendered(what, text, with)?;
                all.extend(templated(what, text, value.trim(), with)?);
            }
        }
    }
    Ok(all)
}

/// What one rendered recipient means: a group of the settings, or one allowed address.
fn templated(what: &str, text: &Text, value: &str, with: &Composing<'_>) -> Result<Vec<Mailbox>, Reason> {
    let known = &with.settings.recipients;
    if let Some(group) = known.groups.get(value) {
        return Ok(group.clone());
    }
    let source = one_line(text.source(), MAX_VALUE);
    let refuse = |why: String, step: String| {
        Err(Reason {
            steps: vec![step, "Then retry the mail, or cancel it.".to_owned()],
            ..Reason::new(format!("`{what}: {source}` {why}"))
        })
    };
    if value.is_empty() {
        return refuse(
            "gave no address".to_owned(),
            format!(
                "See which fact is empty (`tidings events show`), and mend the rule `{}`.",
                with.rule
            ),
        );
    }
    let mailbox = match value.parse::<Mailbox>() {
        Ok(mailbox) if !value.contains([',', ';']) => mailbox,
        Ok(_) | Err(_) => {
            return refuse(
                format!(
                    "gave `{}`, which is not one mail address or a group",
                    one_line(value, 200)
                ),
                format!("Let it give one address; mend the rule `{}`.", with.rule),
            );
        }
    };
    let address = mailbox.address.to_string().to_lowercase();
    let allowed = match &known.allow {
        Some(allow) => allow.is_match(&address),
        None => with
            .settings
            .written_out()
            .any(|written| *written == mailbox.address),
    };
    if allowed {
        return Ok(vec![mailbox]);
    }
    match known.allow {
        Some(_) => refuse(
            format!("gave {address}, which `recipients.allow` does not allow"),
            format!(
                "If it shall get mail, add it (or a pattern for it) to `recipients: allow:` in tidings.yaml: \"{address}\"."
            ),
        ),
        None => refuse(
            format!(
                "gave {address}, and without `recipients.allow` only addresses that tidings.yaml writes out are allowed"
            ),
            format!(
                "If it shall get mail, allow it in tidings.yaml: `recipients: {{ allow: [\"{address}\"] }}`."
            ),
        ),
    }
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
        let value = rendered(name, text, with)?;
        own.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        own.push((name.clone(), value));
    }
    for (name, value) in own {
        own_header(&name).map_err(|error| Reason::new(error.to_string()))?;
        fields.push((name, value));
    }
    Ok(fields)
}

/// A message on its way: in memory while it is short, in the spool from then on.
struct Frozen<'a> {
    spool: &'a Spool,
    short: Vec<u8>,
    long: Option<io::BufWriter<SpoolFile>>,
    size: u64,
}

impl<'a> Frozen<'a> {
    fn new(spool: &'a Spool) -> Frozen<'a> {
        Frozen {
            spool,
            short: Vec::new(),
            long: None,
            size: 0,
        }
    }

    fn keep(self) -> io::Result<Body> {
        match self.long {
            None => Ok(Body::Inline(self.short)),
            Some(long) => long.into_inner().map_err(io::IntoInnerError::into_error)?.keep(),
        }
    }
}

impl Write for Frozen<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.long.is_none() && self.short.len() + bytes.len() > INLINE {
            let mut long = io::BufWriter::new(self.spool.create()?);
            long.write_all(&std::mem::take(&mut self.short))?;
            self.long = Some(long);
        }
        match &mut self.long {
            Some(long) => long.write_all(bytes)?,
            None => self.short.extend_from_slice(bytes),
        }
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.long {
            Some(long) => long.flush(),
            None => Ok(()),
        }
    }
}
