//! What we know of providers. Everything here can be overridden by single keys of `provider:`.

use crate::advice::Provider;
use crate::config::raw::settings::Preset;
use crate::config::settings::{LoginAs, Pace, Tls};

/// What is known of a provider.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Whose advice fits.
    pub provider: Provider,
    /// Where people sign in; `{tenant}` is filled in.
    pub authorize_url: &'static str,
    /// Where tokens are made; `{tenant}` is filled in.
    pub token_url: &'static str,
    /// Where a grant is given back.
    pub revoke_url: Option<&'static str>,
    /// What is asked for, to send over SMTP and to be renewed.
    pub scopes: &'static [&'static str],
    /// Further parameters of the sign-in address.
    pub authorize_extra: &'static [(&'static str, &'static str)],
    /// The submission server.
    pub host: &'static str,
    /// Its port.
    pub port: u16,
    /// How it is protected.
    pub tls: Tls,
    /// Whose name is given at sign-in for a shared mailbox.
    pub login_as: LoginAs,
    /// What a mailbox may send.
    pub pace: Pace,
}

/// Exchange Online. Three submissions at once and 30 messages a minute for each mailbox, 10,000
/// recipients a day; a delegated token opens a shared mailbox under that mailbox's own name.
/// Without `offline_access` there is no refresh token and no error either.
const MICROSOFT365: Known = Known {
    provider: Provider::Microsoft,
    authorize_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    token_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    revoke_url: None,
    scopes: &["https://outlook.office.com/SMTP.Send", "offline_access"],
    authorize_extra: &[],
    host: "smtp.office365.com",
    port: 587,
    tls: Tls::Starttls,
    login_as: LoginAs::Sender,
    pace: Pace {
        connections: 3,
        per_minute: Some(30),
        per_day: Some(10_000),
    },
};

/// Gmail. Nothing smaller than the full mail scope opens SMTP; a refresh token comes only with
/// `access_type=offline`, and after the first consent only with `prompt=consent`. 2,000 messages a
/// day in Workspace (500 for a private mailbox: set `pace`).
const GOOGLE: Known = Known {
    provider: Provider::Google,
    authorize_url: "https://accounts.google.com/o/oauth2/v2/auth",
    token_url: "https://oauth2.googleapis.com/token",
    revoke_url: Some("https://oauth2.googleapis.com/revoke"),
    scopes: &["https://mail.google.com/"],
    authorize_extra: &[("access_type", "offline"), ("prompt", "consent")],
    host: "smtp.gmail.com",
    port: 587,
    tls: Tls::Starttls,
    login_as: LoginAs::User,
    pace: Pace {
        connections: 3,
        per_minute: None,
        per_day: Some(2_000),
    },
};

/// What is known of `preset`.
pub fn known(preset: Preset) -> &'static Known {
    match preset {
        Preset::Microsoft365 => &MICROSOFT365,
        Preset::Google => &GOOGLE,
    }
}
