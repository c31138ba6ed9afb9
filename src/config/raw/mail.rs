//! A mail of a rule, as written.

use crate::config::raw::{Many, Size, Template};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A mail.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Which account sends it; or several: the next one, where one needs a person or is out of reach. Default: that of
    /// the settings.
    pub account: Option<Many<String>>,
    /// From: `address` or `Name <address>`; one that the account may send as.
    pub from: Option<String>,
    /// To: addresses, names of groups, or templates that give addresses.
    pub to: Many<Template>,
    /// Cc.
    pub cc: Option<Many<Template>>,
    /// Bcc: they get it, and nobody sees it.
    pub bcc: Option<Many<Template>>,
    /// Where replies shall go. Default: the account's.
    pub reply_to: Option<String>,
    /// Instead of the template's subject.
    pub subject: Option<Template>,
    /// Which template. Default: that of the settings.
    pub template: Option<String>,
    /// Files to attach: paths, or job.log.
    pub attach: Option<Many<Template>>,
    /// What to do with attachments that are too big. Default: note.
    pub oversize: Option<Oversize>,
    /// How big all attachments may be together, as they are sent. Default: 20MB.
    pub max_size: Option<Size>,
    /// How urgent. Default: normal.
    pub priority: Option<Priority>,
    /// Further header fields, as X-Ticket.
    pub headers: Option<BTreeMap<String, Template>>,
}

/// What to do with attachments that are too big.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    /// Pack them; where that is still too big, as note.
    Zip,
    /// Leave them out and say so in the mail.
    Note,
    /// Hold the mail.
    Fail,
}

/// How urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Priority {
    High,
    Normal,
    Low,
}
