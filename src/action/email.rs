//! `mail:`: a message composed once, frozen, and sent as it is until it is accepted.

use crate::mail::address::Mailbox;
use crate::template::Text;

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
