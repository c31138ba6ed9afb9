//! `tidings.yaml`, as written.

use crate::config::raw::absence::Calendar;
use crate::config::raw::emit::{Alive, Emitted};
use crate::config::raw::handed::{HandedIn, Submission};
use crate::config::raw::{Many, Secret, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Settings of tidings: accounts, defaults, recipients, the outbox.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "tidings.yaml")]
pub struct Settings {
    /// Who signs in and how mail leaves, by name.
    pub accounts: BTreeMap<String, Account>,
    /// What rules may leave out.
    pub defaults: Option<Defaults>,
    /// Groups, and who may be written to.
    pub recipients: Option<Recipients>,
    /// Where events and mails are kept until they are done, and how often they are tried.
    pub outbox: Option<Outbox>,
    /// Days on which deadlines do not count, by name: `except: NAME` of a rule.
    pub calendars: Option<BTreeMap<String, Calendar>>,
    /// Where others drop events.
    pub emitted: Option<Emitted>,
    /// Whom to call while all is well: a dead-man's switch.
    pub alive: Option<Alive>,
    /// The fuse: how many mails of one rule may go in an hour, or `none`. Default: 1000, then hold.
    pub limits: Option<Limits>,
    /// Mails that scripts and devices hand in: whose they are, and who is meant.
    pub handed_in: Option<HandedIn>,
    /// A listener for scanners, printers and programs that speak SMTP.
    pub submission: Option<Submission>,
}

/// An account: who signs in, and how mail leaves.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// For people.
    pub description: Option<String>,
    /// Whose servers these are: a known provider, or a map of endpoints.
    pub provider: Option<Provider>,
    /// Which of Microsoft's clouds. Default: worldwide.
    pub cloud: Option<Cloud>,
    /// How mail leaves. Default: smtp.
    pub transport: Option<Transport>,
    /// With `transport: file`: the folder the .eml files are written to.
    pub folder: Option<String>,
    /// Who signs in: a mail address, or a login name.
    pub user: Option<String>,
    /// Addresses it may send as, shared mailboxes for example. Its own needs no line.
    pub senders: Option<Many<String>>,
    /// Where replies shall go.
    pub reply_to: Option<String>,
    /// A template that is appended to each mail.
    pub signature: Option<String>,
    /// Sign in with OAuth2.
    pub oauth2: Option<OAuth2>,
    /// Sign in with a password.
    pub password: Option<Password>,
    /// The submission server.
    pub smtp: Option<Smtp>,
    /// With `transport: graph`.
    pub graph: Option<Graph>,
    /// How fast it may send.
    pub pace: Option<Pace>,
    /// Keep a transcript of every session in this file, secrets masked.
    pub transcript: Option<String>,
}

/// How mail leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Over SMTP.
    Smtp,
    /// Over Microsoft Graph.
    Graph,
    /// Over the Gmail API.
    Gmail,
    /// As .eml files in a folder; nothing is sent.
    File,
}

/// A known provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Microsoft 365, Outlook.
    Microsoft365,
    /// Google Workspace, Gmail.
    Google,
}

/// One of Microsoft's clouds. A token of one is worth nothing in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cloud {
    /// Everybody's, GCC among them.
    #[default]
    Worldwide,
    /// Of the government of the United States.
    GccHigh,
    /// Of its Department of Defense.
    Dod,
    /// Run by 21Vianet.
    China,
}

/// Whose servers an account uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// A known provider.
    Preset(Preset),
    /// Endpoints.
    Own(Box<Endpoints>),
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Provider, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Provider;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("microsoft365, google or a map of endpoints")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Provider, E> {
                Preset::deserialize(StrDeserializer::new(text)).map(Provider::Preset)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Provider, A::Error> {
                Endpoints::deserialize(MapAccessDeserializer::new(map))
                    .map(|own| Provider::Own(Box::new(own)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Provider {
    fn schema_name() -> Cow<'static, str> {
        "Provider".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let preset = generator.subschema_for::<Preset>();
        let own = generator.subschema_for::<Endpoints>();
        json_schema!({ "anyOf": [preset, own] })
    }
}

/// A provider's endpoints. `https` only; `http` to this machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// Begin with what is known of this provider; the other keys override.
    pub preset: Option<Preset>,
    /// OpenID discovery: the endpoints are read from this address.
    pub issuer: Option<String>,
    /// Where people sign in.
    pub authorize_url: Option<String>,
    /// Where codes for another device are made.
    pub device_url: Option<String>,
    /// Where tokens are made.
    pub token_url: Option<String>,
    /// Where a managed identity is asked for.
    pub managed_identity_url: Option<String>,
    /// Where a grant is given back.
    pub revoke_url: Option<String>,
    /// What is asked for.
    pub scopes: Option<Many<String>>,
    /// Further parameters of the sign-in address.
    pub authorize_extra: Option<BTreeMap<String, String>>,
    /// Certificates (PEM) to trust besides the system's, for these addresses.
    pub ca_file: Option<String>,
    /// Where Microsoft Graph begins. Default: graph.microsoft.com
    pub graph_url: Option<String>,
    /// Where the Gmail API begins. Default: gmail.googleapis.com
    pub gmail_url: Option<String>,
    /// The submission server.
    pub smtp: Option<Smtp>,
    /// How fast one may send there.
    pub pace: Option<Pace>,
}

/// A submission server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Its name, which its certificate must bear.
    pub host: Option<String>,
    /// Its port. Default: 587, or 465 with `tls: implicit`, or 25 with `tls: none`.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// How the connection is protected. Default: starttls, or implicit on port 465.
    pub tls: Option<Tls>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<String>,
    /// Whose name is given at sign-in when a mail is from a shared mailbox. Default: sender with
    /// microsoft365, else user.
    pub login_as: Option<LoginAs>,
}

/// Microsoft Graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Out of whose mailbox a mail from a shared mailbox goes. Default: user.
    pub mailbox: Option<GraphMailbox>,
    /// Whether mails too big for one request are uploaded, which needs the right to read and write the mailbox.
    /// Default: true.
    pub uploads: Option<bool>,
}

/// Out of whose mailbox a mail goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GraphMailbox {
    /// That of the account's user (needs Send As).
    User,
    /// The shared mailbox itself (needs Full Access and Send As).
    Sender,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// STARTTLS, or nothing is sent.
    Starttls,
    /// TLS from the first byte.
    Implicit,
    /// Not at all.
    None,
}

/// Whose name is given at sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoginAs {
    /// The shared mailbox (needs Full Access to it).
    Sender,
    /// Always the account's user (needs Send As).
    User,
}

/// How fast an account may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Connections at once.
    #[schemars(range(min = 1, max = 100))]
    pub connections: Option<u32>,
    /// Messages a minute.
    #[schemars(range(min = 1))]
    pub per_minute: Option<u32>,
    /// Messages in 24 hours.
    #[schemars(range(min = 1))]
    pub per_day: Option<u32>,
}

/// Sign in with OAuth2.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// How the grant is obtained. Default: authorization_code.
    pub grant: Option<Grant>,
    /// The directory: a domain or id. Needed with microsoft365.
    pub tenant: Option<String>,
    /// Who we are to the provider: the id of the app registration. Needed but with a service
    /// account, or with managed_identity where the machine has only one.
    pub client_id: Option<String>,
    /// Its secret. Two while it is being changed: the newer first. Absent: a public client.
    pub client_secret: Option<Many<Secret>>,
    /// A certificate instead of a secret. Two while it is being changed: the newer first.
    pub certificate: Option<Many<Certificate>>,
    /// A token of another provider instead of a secret, as a platform puts it into a file (workload
    /// identity federation). Read anew at each request.
    pub assertion: Option<Secret>,
    /// With jwt_bearer: the key of a service account, as the JSON that Google gives out.
    pub service_account: Option<Secret>,
    /// With jwt_bearer elsewhere: the client's own private key (PEM, RSA).
    pub signing_key: Option<Secret>,
    /// The name of `signing_key` at the provider (kid).
    pub key_id: Option<String>,
    /// When the secret ends, as 2027-05-01.
    pub secret_expires: Option<String>,
    /// How long a sign-in lasts where the provider limits that, as 7d for a Google app in "Testing": it is warned
    /// ahead of its end.
    pub grant_life: Option<Time>,
    /// Where the browser comes back to: this machine, or https where a proxy passes it on to
    /// `listen`. Default: http://127.0.0.1 on a free port.
    pub redirect: Option<String>,
    /// With an https `redirect`: where a proxy passes the browser's answer to, as 127.0.0.1:8017.
    /// Listened on only while somebody signs in.
    pub listen: Option<String>,
}

/// How a grant is obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// A person signs in once, in a browser.
    AuthorizationCode,
    /// A person signs in once, on any other device, with a code.
    DeviceCode,
    /// Nobody signs in: the application itself has the right.
    ClientCredentials,
    /// Nobody signs in: a key vouches for the mailbox.
    JwtBearer,
    /// Nobody signs in: the machine has an identity (Azure).
    ManagedIdentity,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate.
    pub cert: String,
    /// Its private key, not encrypted. Default: in the same file.
    pub key: Option<String>,
}

/// Sign in with a password.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The login name. Default: the account's user.
    pub user: Option<String>,
    /// The password.
    pub secret: Secret,
}

/// What rules may leave out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The account of a mail that names none. Default: the only one.
    pub account: Option<String>,
    /// The From of a mail that names none. Default: the account's user.
    pub from: Option<String>,
    /// Zone of schedules and of times in mails, as Europe/Berlin. Default: this machine's.
    pub timezone: Option<String>,
    /// Template of a mail that names none. Default: plain.
    pub template: Option<String>,
    /// Time between two full looks into a watched folder, whatever is notified. Default: 60s.
    pub scan_every: Option<Time>,
}

/// Who may be written to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipients {
    /// Names that stand for several addresses in `to:`, `cc:` and `bcc:`.
    pub groups: Option<BTreeMap<String, Many<String>>>,
    /// Patterns (`*@contoso.com`) that every address must match. Without this list, addresses written
    /// out are allowed, and a template may give only those that these settings write out.
    pub allow: Option<Many<String>>,
}

/// Where events and mails are kept until they are done.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    /// The database. Its folder holds all that tidings keeps. Default: sqlite:state/tidings.db
    pub store: Option<String>,
    /// How often a mail is tried.
    pub retry: Option<Retry>,
    /// What to do with a mail of which nobody can say whether it was sent. Default: resend. With verify, a list says
    /// what to do where nobody can look: [verify, resend] or [verify, hold]; verify alone is [verify, hold].
    pub on_unknown: Option<Many<OnUnknown>>,
    /// How long an account may be out of reach before its mails go on by the next account their rule names.
    /// Default: 15m.
    pub fail_over: Option<Time>,
    /// How long what is done is kept. Default: 30d.
    pub keep: Option<Time>,
}

/// How often a mail is tried.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Wait before the second attempt. Default: 1m.
    pub first: Option<Time>,
    /// Longest wait between two attempts. Default: 1h.
    pub longest: Option<Time>,
    /// After this long a mail is held and somebody is told. Default: 2d.
    pub give_up: Option<Time>,
}

/// What to do with a mail of which nobody can say whether it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Send the same mail again; the receiver may see it twice.
    Resend,
    /// Wait for a person.
    Hold,
    /// Ask the mail service whether it was sent.
    Verify,
}

/// The fuse: a map, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limits {
    /// There is none.
    None,
    /// How many mails, and what becomes of those that are more.
    Fuse(Fuse),
}

/// The fuse: past it nothing is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fuse {
    /// Most mails of one rule in an hour. Default: 1000.
    #[schemars(range(min = 1))]
    pub mails_per_rule_per_hour: Option<u32>,
    /// What becomes of those that are more. Default: hold.
    pub then: Option<Then>,
}

/// What becomes of mails past the fuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// They wait for a person, and somebody is told once.
    Hold,
    /// They become one digest an hour later.
    Summary,
}

/// The one word that may stand for the fuse.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum NoLimits {
    /// There is no fuse.
    None,
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Limits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("none, or a map")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Limits, E> {
                let NoLimits::None = NoLimits::deserialize(StrDeserializer::new(text))?;
                Ok(Limits::None)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limits, A::Error> {
                Fuse::deserialize(MapAccessDeserializer::new(map)).map(Limits::Fuse)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Limits {
    fn schema_name() -> Cow<'static, str> {
        "Limits".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let none = generator.subschema_for::<NoLimits>();
        let fuse = generator.subschema_for::<Fuse>();
        json_schema!({ "anyOf": [none, fuse] })
    }
}
