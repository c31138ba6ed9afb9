//! What we know of providers. Everything here can be overridden by single keys of `provider:`.

use crate::advice::Provider;
use crate::config::raw::settings::{Cloud, Preset};
use crate::config::settings::{LoginAs, Pace, Tls};

/// What is known of a provider.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Whose advice fits.
    pub provider: Provider,
    /// Where people sign in; `{tenant}` is filled in.
    pub authorize_url: &'static str,
    /// Where codes for another device are made; `{tenant}` is filled in.
    pub device_url: &'static str,
    /// Where tokens are made; `{tenant}` is filled in.
    pub token_url: &'static str,
    /// Where a grant is given back.
    pub revoke_url: Option<&'static str>,
    /// The right to send over SMTP for somebody who signed in.
    pub smtp_scope: &'static str,
    /// What an application asks for that sends over SMTP by itself.
    pub smtp_app_scope: &'static str,
    /// Where scopes of its HTTP interface begin, without the last slash.
    pub api: &'static str,
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
const MICROSOFT365: Known = Known {
    provider: Provider::Microsoft,
    authorize_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    device_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
    token_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    revoke_url: None,
    smtp_scope: "https://outlook.office.com/SMTP.Send",
    smtp_app_scope: "https://outlook.office365.com/.default",
    api: "https://graph.microsoft.com",
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

/// Mailboxes of private people: another server, and none but one's own mailbox.
const OUTLOOK_COM: Known = Known {
    host: "smtp-mail.outlook.com",
    login_as: LoginAs::User,
    ..MICROSOFT365
};

/// The clouds of the United States' government. Login and Graph hosts are Microsoft's word, the
/// mail hosts that of those who use them.
const GCC_HIGH: Known = Known {
    authorize_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/authorize",
    device_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/devicecode",
    token_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/token",
    smtp_scope: "https://outlook.office365.us/SMTP.Send",
    smtp_app_scope: "https://outlook.office365.us/.default",
    api: "https://graph.microsoft.us",
    host: "smtp.office365.us",
    ..MICROSOFT365
};

const DOD: Known = Known {
    api: "https://dod-graph.microsoft.us",
    host: "outlook-dod.office365.us",
    ..GCC_HIGH
};

/// China, run by 21Vianet.
const CHINA: Known = Known {
    authorize_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/authorize",
    device_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/devicecode",
    token_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/token",
    smtp_scope: "https://partner.outlook.cn/SMTP.Send",
    smtp_app_scope: "https://partner.outlook.cn/.default",
    api: "https://microsoftgraph.chinacloudapi.cn",
    host: "smtp.partner.outlook.cn",
    ..MICROSOFT365
};

/// Gmail. Nothing smaller than the full mail scope opens SMTP; a refresh token comes only with
/// `access_type=offline`, and after the first consent only with `prompt=consent`. 2,000 messages a
/// day in Workspace (500 for a private mailbox: set `pace`).
const GOOGLE: Known = Known {
    provider: Provider::Google,
    authorize_url: "https://accounts.google.com/o/oauth2/v2/auth",
    device_url: "https://oauth2.googleapis.com/device/code",
    token_url: "https://oauth2.googleapis.com/token",
    revoke_url: Some("https://oauth2.googleapis.com/revoke"),
    smtp_scope: "https://mail.google.com/",
    smtp_app_scope: "https://mail.google.com/",
    api: "https://www.googleapis.com/auth",
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

/// The directory of all private people at Microsoft.
pub const CONSUMERS: &str = "consumers";

/// What is known of `preset` in that cloud. `tenant` tells private people's mailboxes apart.
pub fn known(preset: Preset, cloud: Cloud, tenant: Option<&str>) -> &'static Known {
    match (preset, cloud) {
        (Preset::Google, _) => &GOOGLE,
        (Preset::Microsoft365, Cloud::Worldwide) if tenant == Some(CONSUMERS) => &OUTLOOK_COM,
        (Preset::Microsoft365, Cloud::Worldwide) => &MICROSOFT365,
        (Preset::Microsoft365, Cloud::GccHigh) => &GCC_HIGH,
        (Preset::Microsoft365, Cloud::Dod) => &DOD,
        (Preset::Microsoft365, Cloud::China) => &CHINA,
    }
}
