//! Advice: from what a server said to what a person can do about it.
//!
//! The catalog is data (`src/advice/catalog.yaml`, compiled in; a setup may have its own, [`catalog`]). This module knows no
//! transport and no grant: it is given a [`Symptom`] and returns the entry that fits it best
//! ([`advise`]), and from both what is to be done by itself ([`disposition`]). Pure.
//!
//! Neither the texts nor all codes are promised by the vendors to stay. So a reply that the catalog
//! does not know gets honest words and a class from its first digit, and the server's own words
//! always stay beside the advice.

pub mod catalog;
pub mod values;

use crate::advice::values::Values;
use crate::entry::Reason;
use serde::Deserialize;
use std::time::Duration;

/// Whose servers an account uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Microsoft 365 and its clouds.
    Microsoft,
    /// Google Workspace and Gmail.
    Google,
    /// Anybody else.
    Generic,
}

/// At which step something was refused. A hint for ranking, not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Stage {
    Authorize,
    Token,
    Connect,
    Tls,
    SmtpAuth,
    SmtpMail,
    SmtpRcpt,
    SmtpData,
    Graph,
    Gmail,
}

/// A refusal, as the server put it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Symptom {
    /// Where it was seen.
    pub stage: Option<Stage>,
    /// SMTP reply code.
    pub code: Option<u16>,
    /// Enhanced status code (RFC 3463), as `5.7.60`.
    pub enhanced: Option<String>,
    /// HTTP status.
    pub http_status: Option<u16>,
    /// `error` of an OAuth2 error answer (RFC 6749 5.2).
    pub oauth_error: Option<String>,
    /// Microsoft's `suberror`, Google's `error_subtype`.
    pub oauth_suberror: Option<String>,
    /// Number in `AADSTSnnn` or `error_codes`.
    pub aadsts: Option<u32>,
    /// `error.code` of Graph.
    pub graph_code: Option<String>,
    /// The server's own words, decoded, secrets masked, control characters made visible; lines
    /// joined by ` / `.
    pub text: String,
    /// How long the server asked us to wait.
    pub retry_after: Option<Duration>,
    /// What we found out ourselves, without or beside a server's word.
    pub local: Option<Local>,
}

/// What we refuse or notice ourselves. Each has its entry in the catalog, under a `local:` fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// No answer to the final dot.
    DataTimeout,
    /// The server's name has no address.
    DnsFailure,
    /// No connection.
    ConnectFailed,
    /// The server's certificate is not to be trusted.
    TlsCertificate,
    /// TLS could not be set up, for another reason.
    TlsFailed,
    /// STARTTLS is required and not offered.
    StarttlsMissing,
    /// Plain-text bytes behind the STARTTLS reply.
    StarttlsInjected,
    /// A credential would cross an unprotected connection.
    CredentialInClear,
    /// A control character in login name or secret.
    CredentialCharacters,
    /// No offered mechanism fits the credential.
    MechanismMissing,
    /// Above the server's SIZE.
    MessageTooBig,
    /// Needs 8BITMIME, not offered.
    EightBitUnsupported,
    /// Needs SMTPUTF8, not offered.
    Smtputf8Unsupported,
    /// Silence or hanging up before the point of no return.
    NoAnswer,
    /// Not SMTP, or beyond all limits.
    Protocol,
    /// Our own copy of the message cannot be read.
    MessageUnreadable,
    /// The folder of a file account cannot be written.
    FolderUnwritable,
    /// A web page where the sign-in server should have answered.
    WebPage,
    /// The sign-in server was not reached.
    SignInUnreached,
    /// The token is made for another service.
    Audience,
    /// The client secret looks like the number of a secret.
    SecretId,
    /// A secret cannot be read.
    SecretUnreadable,
    /// The own mailbox opens, a shared one does not.
    SharedMailbox,
    /// The own mailbox cannot be opened though the sign-in is taken.
    NoLicence,
    /// No refresh token came, or none is asked for.
    NoRefreshToken,
    /// Not all that is needed was granted.
    ScopeNotGranted,
    /// Somebody else has signed in.
    AccountMismatch,
    /// The clocks differ.
    ClockSkew,
    /// A page came where the mail service should have answered.
    HttpPage,
    /// A yes that is not the one which means accepted.
    NotAccepted,
    /// The header names somebody the mail is not for, and the service reads recipients there.
    HeaderRecipients,
    /// Too big for one request, and uploads are switched off.
    UploadsOff,
    /// More recipients than the service takes.
    TooManyRecipients,
}

impl Local {
    /// All of them.
    pub const ALL: [Local; 33] = [
        Local::DataTimeout,
        Local::DnsFailure,
        Local::ConnectFailed,
        Local::TlsCertificate,
        Local::TlsFailed,
        Local::StarttlsMissing,
        Local::StarttlsInjected,
        Local::CredentialInClear,
        Local::CredentialCharacters,
        Local::MechanismMissing,
        Local::MessageTooBig,
        Local::EightBitUnsupported,
        Local::Smtputf8Unsupported,
        Local::NoAnswer,
        Local::Protocol,
        Local::MessageUnreadable,
        Local::FolderUnwritable,
        Local::WebPage,
        Local::SignInUnreached,
        Local::Audience,
        Local::SecretId,
        Local::SecretUnreadable,
        Local::SharedMailbox,
        Local::NoLicence,
        Local::NoRefreshToken,
        Local::ScopeNotGranted,
        Local::AccountMismatch,
        Local::ClockSkew,
        Local::HttpPage,
        Local::NotAccepted,
        Local::HeaderRecipients,
        Local::UploadsOff,
        Local::TooManyRecipients,
    ];

    /// The fragment that stands for it in the catalog.
    pub fn fragment(self) -> &'static str {
        match self {
            Local::DataTimeout => "local:timeout-after-final-dot",
            Local::DnsFailure => "local:dns-failure",
            Local::ConnectFailed => "local:connect-failed",
            Local::TlsCertificate => "local:tls-certificate",
            Local::TlsFailed => "local:tls-failed",
            Local::StarttlsMissing => "local:starttls-missing",
            Local::StarttlsInjected => "local:starttls-injected",
            Local::CredentialInClear => "local:credential-in-clear",
            Local::CredentialCharacters => "local:credential-characters",
            Local::MechanismMissing => "local:mechanism-missing",
            Local::MessageTooBig => "local:message-too-big",
            Local::EightBitUnsupported => "local:eight-bit-unsupported",
            Local::Smtputf8Unsupported => "local:smtputf8-unsupported",
            Local::NoAnswer => "local:no-answer",
            Local::Protocol => "local:protocol",
            Local::MessageUnreadable => "local:message-unreadable",
            Local::FolderUnwritable => "local:folder-unwritable",
            Local::WebPage => "local:web-page",
            Local::SignInUnreached => "local:sign-in-unreached",
            Local::Audience => "local:audience",
            Local::SecretId => "local:secret-id",
            Local::SecretUnreadable => "local:secret-unreadable",
            Local::SharedMailbox => "local:shared-mailbox",
            Local::NoLicence => "local:no-licence",
            Local::NoRefreshToken => "local:no-refresh-token",
            Local::ScopeNotGranted => "local:scope-not-granted",
            Local::AccountMismatch => "local:account-mismatch",
            Local::ClockSkew => "local:clock-skew",
            Local::HttpPage => "local:http-page",
            Local::NotAccepted => "local:sendmail-status-200",
            Local::HeaderRecipients => "local:header-recipients",
            Local::UploadsOff => "local:uploads-off",
            Local::TooManyRecipients => "local:too-many-recipients",
        }
    }
}

/// What kind of remedy a refusal calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Wait and try again.
    Retry,
    /// Wait, and send slower.
    Throttle,
    /// Somebody must sign in again.
    Reauthorize,
    /// Somebody must change a setting of ours.
    FixConfig,
    /// Somebody must grant a right at the provider.
    FixPermission,
    /// This recipient does not get it; others may.
    RejectRecipient,
    /// This message will not be taken as it is.
    RejectMessage,
}

impl Class {
    /// Another try may help although nobody does anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Class::Retry | Class::Throttle)
    }

    /// The word for it in the catalog and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Retry => "retry",
            Class::Throttle => "throttle",
            Class::Reauthorize => "reauthorize",
            Class::FixConfig => "fix-config",
            Class::FixPermission => "fix-permission",
            Class::RejectRecipient => "reject-recipient",
            Class::RejectMessage => "reject-message",
        }
    }
}

/// What a refusal means and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The catalog's entry, or `unknown`.
    pub id: String,
    /// What kind of remedy.
    pub class: Class,
    /// One sentence.
    pub meaning: String,
    /// Steps for a person, in order, with the account's own values; words in angle brackets that are left
    /// stand for what only the reader knows.
    pub steps: Vec<String>,
    /// Who can mend it.
    pub who: Option<String>,
    /// How long a change takes to bite.
    pub takes: Option<String>,
    /// Whether the catalog knows it. If not, the class follows from the first digit alone.
    pub known: bool,
}

impl Advice {
    /// The reason an entry bears, with the server's own words.
    pub fn reason(&self, symptom: &Symptom) -> Reason {
        Reason {
            text: self.meaning.clone(),
            reply: Some(symptom.text.clone()).filter(|text| !text.is_empty()),
            advice: self.known.then(|| self.id.as_str().into()),
            steps: self.steps.clone(),
            who: self.who.as_deref().map(Into::into),
            takes: self.takes.as_deref().map(Into::into),
        }
    }
}

/// What is to be done with a refused mail without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again later.
    Retry,
    /// Try again later, and slow the whole mailbox down.
    Throttle,
    /// Renew the access token and try once more, at once.
    RenewToken,
    /// Keep it until a person has mended something. Other mails of the account share the fault.
    Hold,
    /// This recipient is given up, the others are not.
    RefuseRecipient,
    /// This mail is given up.
    Fail,
}

/// What to do about `symptom`, given its `advice`. `renewed`: a bearer token was renewed already for
/// this mail, or there is none to renew.
pub fn disposition(symptom: &Symptom, advice: &Advice, renewed: bool) -> Disposition {
    if !renewed && renewing_may_help(symptom) {
        return Disposition::RenewToken;
    }
    match advice.class {
        Class::Retry => Disposition::Retry,
        Class::Throttle => Disposition::Throttle,
        Class::Reauthorize | Class::FixConfig | Class::FixPermission => Disposition::Hold,
        Class::RejectRecipient if symptom.stage == Some(Stage::SmtpRcpt) => Disposition::RefuseRecipient,
        Class::RejectRecipient | Class::RejectMessage => Disposition::Fail,
    }
}

/// Whether a fresh access token may cure it. Exchange says the same `535 5.7.3` to a token that has
/// run out and to a missing right, so the token is the first suspect; `5.7.139` names a switch that
/// no token turns.
pub fn renewing_may_help(symptom: &Symptom) -> bool {
    let enhanced = symptom.enhanced.as_deref();
    match (symptom.stage, symptom.code, symptom.http_status) {
        (Some(Stage::SmtpAuth), Some(535 | 334), _) => enhanced != Some("5.7.139"),
        (Some(Stage::SmtpAuth), Some(501), _) => enhanced == Some("5.5.127"),
        (Some(Stage::Graph | Stage::Gmail), _, Some(401)) => true,
        _ => false,
    }
}

/// The best the catalog has for `symptom` at `provider`; honest words where it has nothing.
/// Placeholders stay as they are: see [`advise_with`].
pub fn advise(symptom: &Symptom, provider: Provider) -> Advice {
    advise_with(symptom, provider, &Values::default())
}

/// The same with the account's own values filled in.
pub fn advise_with(symptom: &Symptom, provider: Provider, values: &Values) -> Advice {
    match catalog::current().find(symptom, provider) {
        Some(item) => item.advice(values),
        None => unknown(symptom),
    }
}

/// Honest words for what the catalog does not know.
fn unknown(symptom: &Symptom) -> Advice {
    use Stage::*;
    let stage = symptom.stage;
    let class = match (symptom.code, symptom.http_status) {
        (Some(500..), _) => match stage {
            Some(Authorize | Token | Connect | Tls | SmtpAuth | SmtpMail) => Class::FixConfig,
            Some(SmtpRcpt) => Class::RejectRecipient,
            _ => Class::RejectMessage,
        },
        (Some(_), _) => Class::Retry,
        (None, Some(429)) => Class::Throttle,
        (None, Some(408 | 500..)) => Class::Retry,
        (None, Some(401)) => Class::Reauthorize,
        (None, Some(403)) => Class::FixPermission,
        (None, Some(_)) => Class::FixConfig,
        (None, None) if symptom.oauth_error.is_some() => Class::FixConfig,
        (None, None) => Class::Retry,
    };
    let (meaning, step) = if class.is_transient() {
        (
            "We do not know this answer; its code says that a later try may succeed.",
            "Nothing needs to be done now: it is tried again by itself.",
        )
    } else {
        (
            "We do not know this answer; its code says that trying again as it is will not help.",
            "Read the server's own words; they say more than we know.",
        )
    };
    let place = match stage {
        Some(Authorize | Token) => {
            "Where to look: the provider's own sign-in log (Entra ID: Sign-in logs; Google: Admin console, Reporting), by the numbers in the reply."
        }
        Some(Graph | Gmail) => {
            "Where to look: the provider's description of its answers, under the code in the reply."
        }
        _ => {
            "Where to look: a record of the whole session (`transcript:` of the account, or `tidings send --transcript FILE`), and the mail server's own log."
        }
    };
    Advice {
        id: "unknown".to_owned(),
        class,
        meaning: meaning.to_owned(),
        steps: vec![step.to_owned(), place.to_owned()],
        who: None,
        takes: None,
        known: false,
    }
}

#[cfg(test)]
mod tests;
