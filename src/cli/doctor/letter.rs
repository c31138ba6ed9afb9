//! One real message from each sender, through to the server's last word: Exchange looks at the sender only when it
//! has the whole message, so nothing less proves the right to send.

use super::finding::{Finding, Standing, Step};
use crate::advice::{Local, Stage, Symptom, advise_with};
use crate::cli::Exit;
use crate::cli::send::{self, Composed};
use crate::clock::Clock;
use crate::config::known;
use crate::config::settings::{Account, Settings};
use crate::entry::Reason;
use crate::mail::address::Address;
use crate::oauth::keeper::Keeper;
use crate::sender::{Outcome, Sender};
use crate::store::Store;
use crate::template::Templates;
use crate::transport::Open;
use std::sync::Arc;

/// What letters are written with.
#[derive(Debug)]
pub struct Desk {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The templates.
    pub templates: Arc<Templates>,
    /// Where a message lies until it is handed over.
    pub store: Store,
    /// Who signs in.
    pub keeper: Arc<Keeper>,
    /// What time it is.
    pub clock: Clock,
}

/// Sends one message of `account` from each of `senders` to `to`.
pub async fn send(desk: &Desk, account: &Account, senders: &[Address], to: &str) -> Vec<Finding> {
    let sender = match Sender::new(account.clone(), Arc::clone(&desk.keeper), None) {
        Ok(sender) => sender,
        Err(error) => {
            return vec![Finding::failed(
                Step::Message,
                Reason::new(error.to_string()),
                Exit::Config,
            )];
        }
    };
    let mut findings = Vec::new();
    for from in senders {
        findings.push(match compose(desk, account, from, to).await {
            Err(reason) => Finding::failed(Step::Message, reason, Exit::BadInput),
            Ok(composed) => {
                let outcome = sender.send(&composed.parcel, from, &Open).await;
                composed.forget();
                judged(account, &sender.mailbox(from), from, to, outcome)
            }
        });
    }
    if findings.iter().any(|finding| finding.standing == Standing::Ok) {
        send::proven(&desk.store, &account.name).await;
    }
    findings
}

async fn compose(desk: &Desk, account: &Account, from: &Address, to: &str) -> Result<Composed, Reason> {
    let args = send::Args::plain(&account.name, &from.to_string(), to);
    let spec = send::spec(&args, &desk.settings).map_err(Reason::new)?;
    let composed = send::compose(&desk.settings, &desk.templates, &desk.store, &desk.clock, spec);
    composed.await.map_err(Reason::new)?
}

/// Reads what became of it.
fn judged(account: &Account, mailbox: &str, from: &Address, to: &str, outcome: Outcome) -> Finding {
    let step = Step::Message;
    match outcome {
        Outcome::Answered {
            accepted,
            mut refused,
            later,
            ..
        } => {
            refused.extend(later);
            match (accepted, refused.into_iter().next()) {
                (_, Some((_, reason))) => Finding::failed(step, reason, Exit::BadInput),
                (Some(reply), None) => Finding::ok(step, format!("{from} to {to}: {reply}")),
                (None, None) => Finding::not_tried(step, "there was nobody to send to"),
            }
        }
        Outcome::Later { reason, .. } => {
            Finding::failed(step, own(account, mailbox, from, reason), Exit::Unavailable)
        }
        Outcome::Grant(reason) | Outcome::Account(reason) => Finding::failed(step, reason, Exit::Credential),
        Outcome::Mail { reason, .. } => {
            Finding::failed(step, own(account, mailbox, from, reason), Exit::Credential)
        }
        Outcome::Never(reason) => Finding::failed(step, reason, Exit::BadInput),
        Outcome::Unknown(reason) => Finding::failed(step, reason, Exit::TryLater),
        Outcome::NotSent(why) => Finding::failed(step, Reason::new(why), Exit::TryLater),
    }
}

/// A mailbox that cannot be opened: where it is the very one that signed in, no right is missing but the licence.
fn own(account: &Account, mailbox: &str, from: &Address, reason: Reason) -> Reason {
    let own = account
        .user
        .as_deref()
        .is_some_and(|user| user.eq_ignore_ascii_case(mailbox));
    if !own || reason.advice.as_deref() != Some("exo-mailbox-logon-failure") {
        return reason;
    }
    let symptom = Symptom {
        stage: Some(Stage::SmtpData),
        local: Some(Local::NoLicence),
        text: reason.reply.unwrap_or_default(),
        ..Symptom::default()
    };
    let values = known::of_account(account, mailbox, &from.to_string());
    advise_with(&symptom, account.provider, &values).reason(&symptom)
}
