//! A caller who may not write to the store hands his mail to the daemon's listener instead, as any other client would.
//! It judges the mail again, by the same rules.

use crate::action::Mail;
use crate::cli::{Exit, show, tell};
use crate::config::handed::is_here;
use crate::config::settings::{LoginAs, Settings, SmtpSettings, Tls};
use crate::entry::{Body, NewEntry};
use crate::store::StoreError;
use crate::transport::smtp::Smtp;
use crate::transport::{Content, Limits, Login, Open, Parcel, RecipientVerdict, Verdict};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whether the store is somebody else's.
pub fn may_help(error: &StoreError) -> bool {
    matches!(error, StoreError::File { source, .. }
        if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
}

/// Where the daemon takes mails of this machine without a password.
pub fn address(settings: &Settings) -> Option<SocketAddr> {
    let submission = settings
        .submission
        .as_ref()
        .filter(|submission| submission.users.is_empty())?;
    submission
        .listen
        .iter()
        .copied()
        .find(|address| is_here(address.ip()))
}

/// Hands it over, and says what became of it.
pub async fn hand_over(address: SocketAddr, entry: NewEntry, verbose: bool) -> Exit {
    let server = SmtpSettings {
        host: address.ip().to_string(),
        port: address.port(),
        tls: Tls::None,
        ca_file: None,
        login_as: LoginAs::User,
    };
    let limits = Limits {
        connect: Duration::from_secs(10),
        reply: Duration::from_secs(60),
        final_reply: Duration::from_secs(120),
        total: Duration::from_secs(300),
    };
    let (Ok(mail), Body::Inline(bytes)) = (serde_json::from_slice::<Mail>(&entry.effect), entry.body) else {
        return Exit::Software;
    };
    let parcel = Parcel {
        envelope: mail.envelope,
        content: Content::Bytes(Arc::from(bytes)),
        message_id: mail.message_id,
    };
    let smtp = match Smtp::new(&server, limits, 1) {
        Ok(smtp) => smtp,
        Err(error) => {
            tell(format_args!("sendmail: the mail is NOT taken: {error}"));
            return Exit::TryLater;
        }
    };
    let report = smtp.submit(&Login::Anonymous, &parcel, &Open, None).await;
    smtp.close().await;
    let refused = report
        .recipients
        .iter()
        .find_map(|(address, verdict)| match verdict {
            RecipientVerdict::Refused(symptom) => Some((address, symptom)),
            RecipientVerdict::Accepted => None,
        });
    match (report.verdict, refused) {
        (Verdict::Accepted { reply }, None) => {
            if verbose {
                tell(format_args!("sendmail: {address} said: {}", show::clean(&reply)));
            }
            Exit::Done
        }
        (Verdict::Accepted { .. }, Some((recipient, symptom))) => {
            tell(format_args!(
                "sendmail: NOT taken for {recipient}: {}",
                show::clean(&symptom.text)
            ));
            Exit::Code(67)
        }
        (verdict, _) => {
            let symptom = verdict.symptom().unwrap_or_default();
            tell(format_args!(
                "sendmail: the mail is NOT taken by the listener on {address}: {}",
                show::clean(&symptom.text)
            ));
            match symptom.code {
                Some(500..=599) => Exit::Code(77),
                _ => Exit::TryLater,
            }
        }
    }
}
