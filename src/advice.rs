//! Advice: from what a server said to what a person can do about it.
//!
//! The catalog is data (`src/advice/catalog.yaml`, compiled in). This module knows no
//! transport and no grant: it is given a [`Symptom`] and returns the entry that fits it best.

use std::time::Duration;

/// Whose servers an account uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Microsoft 365 and its clouds.
    Microsoft,
    /// Google Workspace and Gmail.
    Google,
    /// Anybody else.
    Generic,
}

/// At which step something was refused. A hint for ranking, not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}
