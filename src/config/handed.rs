//! Mails that others hand in, as it is meant: whose they are, and who is meant.

use crate::mail::address::Mailbox;
use std::collections::BTreeMap;

/// What holds for every mail that is handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedIn {
    /// The account they leave by; else the default one.
    pub account: Option<String>,
    /// Whose mail leaves from which mailbox, by what the From says, in lower case: a name, an address, `*@domain`
    /// or `*`.
    pub senders: BTreeMap<String, Mailbox>,
    /// Who is meant by a name without a domain, in lower case; `*` for every other.
    pub recipients: BTreeMap<String, Vec<Mailbox>>,
    /// Largest message, bytes.
    pub max_size: u64,
}

impl Default for HandedIn {
    fn default() -> HandedIn {
        HandedIn {
            account: None,
            senders: BTreeMap::new(),
            recipients: BTreeMap::new(),
            max_size: 25_000_000,
        }
    }
}
