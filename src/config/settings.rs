//! Settings as they are meant: `tidings.yaml`, checked. Nothing here asks what was typed.

use crate::advice::Provider;
use crate::advice::catalog::Catalog;
use crate::config::calendar::Calendar;
use crate::config::handed::{HandedIn, Submission};
use crate::config::secret::SecretSource;
use crate::entry::OnUnknown;
use crate::ground::Ground;
use crate::mail::address::{Address, Mailbox};
use globset::GlobSet;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// All of `tidings.yaml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The setup folder, absolute. Relative paths start here.
    pub dir: PathBuf,
    /// Accounts by name.
    pub accounts: BTreeMap<String, Account>,
    /// What rules may leave out.
    pub defaults: Defaults,
    /// Groups and the allow-list.
    pub recipients: Recipients,
    /// Where effects wait, and how long.
    pub outbox: Outbox,
    /// Days on which deadlines do not count, by name.
    pub calendars: BTreeMap<String, Arc<Calendar>>,
    /// Where others drop events, besides the folder in `state`.
    pub emitted: Option<PathBuf>,
    /// Whom to call while all is well.
    pub alive: Option<Alive>,
    /// The fuse; `None`: there is none.
    pub limits: Option<Limits>,
    /// Mails that others hand in.
    pub handed_in: HandedIn,
    /// Where others hand in over SMTP.
    pub submission: Option<Submission>,
    /// Folder of everything we keep: store, spool, locks, logs of jobs, key. 0700.
    pub state: PathBuf,
    /// The advice catalog with the setup's own entries, where it has some (`advice.yaml`).
    pub advice: Option<Arc<Catalog>>,
    /// Where all these folders really lie: on this machine, but for tests of rules.
    pub ground: Ground,
}

impl Settings {
    /// Addresses written out here: members of groups, senders, and where replies go. Without an allow-list a
    /// template may write to these and to nobody else.
    pub fn written_out(&self) -> impl Iterator<Item = &Address> {
        let groups = self.recipients.groups.values().flatten();
        let replies = self
            .accounts
            .values()
            .filter_map(|account| account.reply_to.as_ref());
        let senders = self.accounts.values().flat_map(|account| &account.senders);
        let meant = self.handed_in.recipients.values().flatten();
        groups
            .chain(replies)
            .chain(meant)
            .map(|mailbox| &mailbox.address)
            .chain(senders)
    }
}

/// What rules may leave out.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The account of a mail that names none. With one account only, that one.
    pub account: Option<String>,
    /// The From of a mail that names none; else the account's user.
    pub from: Option<Mailbox>,
    /// Zone of schedules, and of times in templates.
    pub timezone: TimeZone,
    /// Template of a mail that names none.
    pub template: String,
}

/// Who may be written to.
#[derive(Clone, Debug, Default)]
pub struct Recipients {
    /// Names that stand for several mailboxes in `to:`, `cc:`, `bcc:`.
    pub groups: BTreeMap<String, Vec<Mailbox>>,
    /// Patterns an address from a template must match, compared in lower case. `None`: only
    /// [`Settings::written_out`].
    pub allow: Option<GlobSet>,
}

/// Where effects wait, and how long.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// The SQLite file.
    pub store: PathBuf,
    /// Wait before the second attempt.
    pub first: Duration,
    /// Longest wait between two attempts.
    pub longest: Duration,
    /// A mail not accepted this long after it was composed is held, and somebody is told.
    pub give_up: Duration,
    /// What to do with a mail whose fate is unknown.
    pub on_unknown: OnUnknown,
    /// How long an account may be out of reach before its mails go on by the next account their rule names.
    pub fail_over: Duration,
    /// How long accepted and cancelled entries, their bodies and old events are kept.
    pub keep: Duration,
}

/// A dead-man's switch: somebody who tells when our calls stop.
#[derive(Clone, Debug)]
pub struct Alive {
    /// The address that is called. Whoever knows it can call in our place, so it is kept like a secret.
    pub url: SecretSource,
    /// Time from one call to the next.
    pub every: Duration,
}

/// The fuse: how many mails of one rule may go in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most mails of one rule in an hour; at least 1.
    pub mails_per_rule_per_hour: u32,
    /// What becomes of those that are more.
    pub then: Then,
}

/// What becomes of mails past the fuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// They wait for a person, and somebody is told once.
    Hold,
    /// They become one digest an hour later.
    Summary,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            mails_per_rule_per_hour: 1000,
            then: Then::Hold,
        }
    }
}

/// Who signs in, and how it submits.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name in the settings.
    pub name: String,
    /// Free text for people.
    pub description: Option<String>,
    /// Whose servers these are; chooses advice and presets.
    pub provider: Provider,
    /// Who signs in: a mailbox, or a bare login name.
    pub user: Option<String>,
    /// How mail leaves.
    pub transport: Transport,
    /// With what it signs in.
    pub credential: Credential,
    /// Addresses it may send as; its own (`user`, if that is an address) is among them. Empty for a
    /// relay or file account that may send as anyone.
    pub senders: Vec<Address>,
    /// Whether `senders` is no limit.
    pub any_sender: bool,
    /// Where replies shall go.
    pub reply_to: Option<Mailbox>,
    /// Template appended by the layout.
    pub signature: Option<String>,
    /// How fast.
    pub pace: Pace,
    /// Keep a transcript of every session here, secrets masked.
    pub transcript: Option<PathBuf>,
}

impl Account {
    /// Whether a mail of this account may be from `address`.
    pub fn may_send_as(&self, address: &Address) -> bool {
        self.any_sender || self.senders.contains(address)
    }
}

/// How mail leaves.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Submission (RFC 6409).
    Smtp(SmtpSettings),
    /// Microsoft Graph.
    Graph(GraphSettings),
    /// The Gmail API.
    Gmail(GmailSettings),
    /// `.eml` files in a folder.
    File {
        /// The folder, absolute.
        folder: PathBuf,
    },
}

/// A submission server.
#[derive(Clone, Debug)]
pub struct SmtpSettings {
    /// Its name, which its certificate must bear.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// Roots to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whose name is given at sign-in.
    pub login_as: LoginAs,
}

/// Microsoft Graph.
#[derive(Clone, Debug)]
pub struct GraphSettings {
    /// Where it begins: `https://graph.microsoft.com/`.
    pub url: Url,
    /// Out of whose mailbox a mail from a shared mailbox goes.
    pub mailbox: GraphMailbox,
    /// Whether what is too big for one request is uploaded; needs Mail.ReadWrite.
    pub uploads: bool,
    /// Who signed in: that one's mailbox is `/me`. Absent where the application acts by itself.
    pub me: Option<String>,
    /// Roots to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Out of whose mailbox a mail goes over Graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphMailbox {
    /// The account's user: needs Send As for a shared mailbox, files the copy with the user.
    User,
    /// The sender's own: needs Full Access and Send As, files the copy there.
    Sender,
}

/// The Gmail API.
#[derive(Clone, Debug)]
pub struct GmailSettings {
    /// Where it begins: `https://gmail.googleapis.com/`.
    pub url: Url,
    /// Roots to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, or nothing is sent (RFC 3207).
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// None. Never with credentials, except to loopback.
    None,
}

/// Whose name is given at sign-in when the sender is a shared mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAs {
    /// The sender's own address: Exchange opens that mailbox with the member's token. Needs Full
    /// Access, files the sent copy there.
    Sender,
    /// Always `user`: needs SendAs.
    User,
}

/// With what an account signs in.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Nothing: a relay that knows us by address, or files.
    None,
    /// A password, for PLAIN or LOGIN.
    Password {
        /// The login name.
        user: String,
        /// The password.
        secret: SecretSource,
    },
    /// A bearer token, looked after by the token keeper.
    OAuth2(Box<OAuth2>),
}

/// How a grant is obtained and renewed.
#[derive(Clone, Debug)]
pub struct OAuth2 {
    /// Whose it is, for advice.
    pub provider: Provider,
    /// How it is obtained.
    pub grant: Grant,
    /// Where codes for another device are made; absent where there are none, or `issuer` tells.
    pub device_url: Option<Url>,
    /// Where a managed identity is asked for; absent: where Azure has it.
    pub managed_identity_url: Option<Url>,
    /// The rights a token of an application should name, for a note when it does not.
    pub roles: Vec<String>,
    /// Where people sign in; absent when `issuer` tells.
    pub authorize_url: Option<Url>,
    /// Where tokens are made; absent when `issuer` tells.
    pub token_url: Option<Url>,
    /// Where a grant is given back.
    pub revoke_url: Option<Url>,
    /// OpenID discovery: `{issuer}/.well-known/openid-configuration`.
    pub issuer: Option<Url>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Further parameters of the authorize address (`access_type=offline`, `prompt=consent`).
    pub authorize_extra: Vec<(String, String)>,
    /// Who we are to the provider.
    pub client_id: String,
    /// How we prove that; the first is the newest. Empty: a public client.
    pub proofs: Vec<Proof>,
    /// When the client secret ends.
    pub secret_expires: Option<Date>,
    /// How long a sign-in lasts, where the provider limits that.
    pub grant_life: Option<Duration>,
    /// Where the browser comes back to. Port 0: a free one.
    pub redirect: Url,
    /// Where a proxy passes the browser's answer to, if `redirect` leads to that.
    pub listen: Option<SocketAddr>,
    /// The account that must sign in; compared with the one that did.
    pub login_hint: Option<String>,
    /// Directory of the provider, for advice (`contoso.onmicrosoft.com`).
    pub tenant: Option<String>,
    /// Roots to trust besides the system's, for these addresses.
    pub ca_file: Option<PathBuf>,
}

impl OAuth2 {
    /// Nobody signs in: the application has rights of its own and gets a token by itself.
    pub fn unattended(&self) -> bool {
        !matches!(self.grant, Grant::AuthorizationCode | Grant::DeviceCode)
    }
}

/// How a grant is obtained.
#[derive(Clone, Debug)]
pub enum Grant {
    /// A person signs in, in a browser (RFC 6749 4.1).
    AuthorizationCode,
    /// A person signs in on another device, with a code (RFC 8628).
    DeviceCode,
    /// The application itself has the right (RFC 6749 4.4).
    ClientCredentials,
    /// A key of ours vouches for a mailbox (RFC 7523 2.1).
    JwtBearer(KeyOf),
    /// The machine we run on has an identity (Azure).
    ManagedIdentity,
}

/// Whose key signs for a mailbox.
#[derive(Clone, Debug)]
pub enum KeyOf {
    /// A service account's, as the JSON file that Google gives out.
    ServiceAccount(SecretSource),
    /// One in PEM, of the client itself; with its name at the provider.
    Client {
        /// The key.
        key: SecretSource,
        /// `kid`.
        id: Option<String>,
    },
}

/// How a client proves who it is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A secret.
    Secret(SecretSource),
    /// A certificate the provider knows.
    Certificate(CertificateFiles),
    /// A token of somebody the provider trusts (workload identity federation).
    Assertion(SecretSource),
}

/// A certificate and its key, as PEM files; both may be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// How fast an account may send, per mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Connections at once.
    pub connections: u32,
    /// Messages a minute.
    pub per_minute: Option<u32>,
    /// Messages in 24 hours.
    pub per_day: Option<u32>,
}
