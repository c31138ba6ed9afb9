//! Mails that others hand in, as written.

use crate::config::raw::{Many, Secret, Size, Time};
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

/// A listener for scanners, printers and programs that speak SMTP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Where it listens: address and port. Default: 127.0.0.1:2525
    pub listen: Option<Many<String>>,
    /// Its certificate; with one it offers STARTTLS.
    pub tls: Option<ServerTls>,
    /// Who may hand mails in, by login name. Without any, whoever reaches it: on this machine only.
    pub users: Option<BTreeMap<String, SubmissionUser>>,
    /// Most messages of one client in a minute. Default: 60.
    #[schemars(range(min = 1))]
    pub per_minute: Option<u32>,
    /// Most connections at once. Default: 20.
    #[schemars(range(min = 1, max = 1000))]
    pub connections: Option<u32>,
    /// How long a client may be silent. Default: 5m.
    pub timeout: Option<Time>,
    /// The same message of the same client within this time is taken once. Default: 1h.
    pub take_once: Option<Time>,
}

/// The certificate of the listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Certificate and chain, PEM.
    pub cert: String,
    /// Its private key, PEM.
    pub key: String,
}

/// Somebody who may hand mails in.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmissionUser {
    /// The password.
    pub password: Secret,
}
