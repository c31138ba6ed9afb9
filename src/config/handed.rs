//! Mails that others hand in, as it is meant: whose they are, who is meant, and where a listener waits for them.

use crate::config::secret::SecretSource;
use crate::mail::address::Mailbox;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

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

/// A listener for mails that are handed in over SMTP.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key, PEM files; with them STARTTLS is offered.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may hand in, and the password. Empty: whoever is on this machine.
    pub users: BTreeMap<String, SecretSource>,
    /// Most messages of one client in a minute.
    pub per_minute: u32,
    /// Most connections at once.
    pub connections: usize,
    /// How long a client may be silent.
    pub timeout: Duration,
    /// The same message of the same client within this time is taken once.
    pub take_once: Duration,
}

/// Whether an address is reached from this machine alone.
pub fn is_here(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
