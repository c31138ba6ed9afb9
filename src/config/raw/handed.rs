//! Mails that others hand in, as written.

use crate::config::raw::{Many, Size};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Mails that scripts and devices hand in, by `tidings sendmail` or by the submission listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandedIn {
    /// The account they leave by. Default: `defaults: account`, or another one that may send as their From.
    pub account: Option<String>,
    /// Whose mail leaves from which mailbox: `root`, `scanner@old.local`, `"*@web1"` or `"*"`, and a mailbox.
    pub senders: Option<BTreeMap<String, String>>,
    /// Who is meant by a name without a domain: `root`, `"*"`, and a group, an address or a list.
    pub recipients: Option<BTreeMap<String, Many<String>>>,
    /// Largest message. Default: 25MB.
    pub max_size: Option<Size>,
}
