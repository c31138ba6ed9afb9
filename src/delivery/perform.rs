//! One entry performed, from lease to settlement.

use crate::action::run::Performing;
use crate::action::work;
use crate::action::{Mail, Step, Work};
use crate::clock::Clock;
use crate::delivery::Plan;
use crate::delivery::verdict::{self, Trouble, Verdict};
use crate::entry::{Body, EntryId, Fence, Kind, Leased, Reason, Settlement};
use crate::event::{self, FileRef};
use crate::store::{Also, NewCase, Store};
use crate::transport::{Content, Gate, GateClosed, Parcel};
use jiff::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The key of the case about an account's grant, which the token keeper opens and closes.
pub fn grant_case(account: &str) -> String {
    format!("account:{account}")
}

/// The key of the case about what an account's mail server says to it, opened and closed by attempts.
/// Not the grant's: a server may refuse a grant that renews itself well, and take the last hour of one
/// that is dead.
pub fn account_case(account: &str) -> String {
    format!("sender:{account}")
}

/// What remains to be known after an entry was settled.
#[derive(Debug, Default)]
pub struct Performed {
    /// Nothing else of the lane before this time.
    pub pause: Option<Timestamp>,
    /// The case whose end ends the pause as well.
    pub awaits: Option<String>,
    /// Files that work took out of their folders.
    pub gone: Vec<FileRef>,
}

/// All that performing needs.
#[derive(Debug)]
pub struct Performer {
    pub(super) store: Store,
    pub(super) plan: Arc<Plan>,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

/// The store's answer to a transport that is about to hand over for good.
struct StoreGate<'a> {
    store: &'a Store,
    id: EntryId,
    fence: Fence,
}

impl Gate for StoreGate<'_> {
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), GateClosed>> + Send + '_>> {
        Box::pin(async move {
            self.store
                .gate(self.id, self.fence)
                .await
                .map_err(|error| GateClosed(error.to_string()))
        })
    }
}

impl Performer {
    /// Performs and settles. Returns only when the store has the outcome, or somebody else does.
    pub async fn perform(self, leased: Leased) -> Performed {
        if self.stop.is_cancelled() {
            // Handed over in the moment in which somebody said stop.
            self.settle(&leased, Settlement::Release, Also::default()).await;
            return Performed::default();
        }
        match leased.entry.kind {
            Kind::Mail => self.mail(&leased).await,
            Kind::Work => self.work(&leased).await,
        }
    }

    async fn mail(&self, leased: &Leased) -> Performed {
        let entry = &leased.entry;
        let mail: Mail = match serde_json::from_slice(&leased.effect) {
            Ok(mail) => mail,
            Err(error) => return self.unreadable(leased, &error.to_string()).await,
        };
        let content = match &leased.body {
            Body::Inline(bytes) => Content::Bytes(Arc::from(bytes.as_slice())),
            Body::Spooled { name, len } => Content::File {
                path: self.store.spool().path(name),
                len: *len,
            },
            Body::None => return self.unreadable(leased, "its message is missing").await,
        };
        let Some(sender) = self.plan.senders.get(&mail.account) else {
            let reason = Reason {
                text: format!("the settings no longer have the account `{}`", mail.account),
                steps: vec![
                    "Put the account back, or cancel the mail with `tidings outbox cancel`.".to_owned(),
                    "Then say `tidings outbox retry` with this entry's number.".to_owned(),
                ],
                ..Reason::default()
            };
            self.hold(leased, reason).await;
            return Performed::default();
        };
        let parcel = Parcel {
            envelope: mail.envelope.clone(),
            content,
            message_id: mail.message_id.clone(),
        };
        let gate = StoreGate {
            store: &self.store,
            id: entry.id,
            fence: leased.fence,
        };
        let outcome = sender.send(&parcel, &mail.sender, &gate).await;
        let now = self.clock.now();
        let Verdict {
            settlement,
            effect,
            resend,
            pause,
            trouble,
        } = verdict::settle(outcome, entry, &mail, now, self.plan.retry, random());
        match &settlement {
            Settlement::Accept(reason) => {
                tracing::info!(entry = %entry.id, rule = %entry.rule, reply = reason.reply, "mail accepted");
            }
            settlement => {
                let reason = settlement.reason().cloned().unwrap_or_default();
                tracing::warn!(entry = %entry.id, rule = %entry.rule, verb = ?settlement.verb(),
                    reason = %reason.text, reply = reason.reply, "mail not accepted");
            }
        }
        let accepted = matches!(settlement, Settlement::Accept(_));
        let case = match &trouble {
            Some(Trouble::Grant(_)) => Some(grant_case(&mail.account)),
            Some(Trouble::Account(_)) => Some(account_case(&mail.account)),
            _ => None,
        };
        let mut also = Also {
            effect: effect.and_then(|mail| serde_json::to_vec(&mail).ok()),
            resend,
            awaits: case.clone(),
            ..Also::default()
        };
        match (&trouble, &case) {
            (Some(Trouble::Grant(reason) | Trouble::Account(reason)), Some(case)) => {
                also.open = self.case(leased, "account", case, reason).await;
            }
            (Some(Trouble::Mail(reason)), _) => {
                also.open = self.case(leased, "mail", &mail_case(entry.id), reason).await;
            }
            _ if accepted => also.close = vec![account_case(&mail.account), mail_case(entry.id)],
            _ => {}
        }
        self.settle(leased, settlement, also).await;
        Performed {
            pause,
            awaits: case,
            gone: Vec::new(),
        }
    }

    async fn work(&self, leased: &Leased) -> Performed {
        let entry = &leased.entry;
        let work: Work = match serde_json::from_slice(&leased.effect) {
            Ok(work) => work,
            Err(error) => return self.unreadable(leased, &error.to_string()).await,
        };
        // A command is not to be repeated blindly after a crash; moving a file is safe to repeat.
        if work.steps.iter().any(|step| matches!(step, Step::Run(_))) {
            let gate = StoreGate {
                store: &self.store,
                id: entry.id,
                fence: leased.fence,
            };
            if let Err(closed) = gate.pass().await {
                tracing::warn!(entry = %entry.id, %closed, "work not begun");
                self.settle(leased, Settlement::Release, Also::default()).await;
                return Performed {
                    pause: Some(self.clock.now() + Duration::from_secs(5)),
                    ..Performed::default()
                };
            }
        }
        let context = Performing {
            setup: self.plan.setup.clone(),
            logs: self.plan.logs.clone(),
            temp: None,
            entry: Some(entry.id),
            stop: self.stop.clone(),
            clock: self.clock.clone(),
        };
        let done = work::perform(&work, &context).await;
        let report = done.report;
        tracing::info!(entry = %entry.id, job = %work.job, ok = report.ok, summary = %report.summary, "work ended");
        let reason = Reason::new(report.summary.clone());
        let settlement = if report.ok {
            Settlement::Accept(reason.clone())
        } else {
            Settlement::Fail(reason.clone())
        };
        let mut also = Also {
            gone: done.gone.clone(),
            ..Also::default()
        };
        if work.reports {
            also.events
                .push(work::outcome(&work, &report, done.file, entry.attempts));
        }
        let case = format!("work:{}", entry.id);
        if !report.ok && !work.reports {
            also.open = self.case(leased, "rule", &case, &reason).await;
        } else if report.ok && entry.attempts > 1 {
            also.close.push(case);
        }
        self.settle(leased, settlement, also).await;
        Performed {
            gone: done.gone,
            ..Performed::default()
        }
    }

    /// An effect that cannot be read: written by another version, or damaged. Held, never dropped.
    async fn unreadable(&self, leased: &Leased, why: &str) -> Performed {
        let reason = Reason::new(format!("this entry cannot be performed: {why}"));
        self.hold(leased, reason).await;
        Performed::default()
    }

    /// Holds a mail for a person, and tells.
    async fn hold(&self, leased: &Leased, reason: Reason) {
        let key = mail_case(leased.entry.id);
        let also = Also {
            open: self.case(leased, "mail", &key, &reason).await,
            ..Also::default()
        };
        self.settle(leased, Settlement::Hold(reason), also).await;
    }

    /// Settles, for as long as it takes: an outcome that is not written would be done again.
    async fn settle(&self, leased: &Leased, settlement: Settlement, also: Also) {
        let mut wait = Duration::from_millis(200);
        loop {
            let tried = self
                .store
                .settle(leased.entry.id, leased.fence, settlement.clone(), also.clone())
                .await;
            match tried {
                Ok(()) => return,
                Err(error) if error.is_fenced() => {
                    tracing::error!(entry = %leased.entry.id, %error, "somebody else settled this entry");
                    return;
                }
                Err(error) => {
                    tracing::error!(entry = %leased.entry.id, %error, "cannot record an outcome; trying until it works");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
            }
        }
    }

    /// The case to open, unless what failed was itself the news of a trouble.
    async fn case(&self, leased: &Leased, kind: &str, key: &str, reason: &Reason) -> Option<NewCase> {
        let entry = &leased.entry;
        if kind != "account" && self.is_about_trouble(entry.event).await {
            tracing::error!(entry = %entry.id, reason = %reason.text, "the news of a trouble cannot be told by mail");
            return None;
        }
        let subject = match kind {
            "account" => key.split_once(':').map_or(key, |(_, account)| account).to_owned(),
            _ => format!("{} {} of rule {}", entry.kind.as_str(), entry.id, entry.rule),
        };
        Some(NewCase {
            key: key.to_owned(),
            kind: kind.to_owned(),
            subject,
            reason: reason.clone(),
        })
    }

    async fn is_about_trouble(&self, event: Option<event::EventId>) -> bool {
        let Some(id) = event else { return false };
        match self.store.event(id).await {
            Ok(Some(detail)) => detail.event.happening.kind == event::Kind::Trouble,
            _ => false,
        }
    }
}

/// The key of the case of a mail.
fn mail_case(id: EntryId) -> String {
    format!("mail:{id}")
}

/// A number in 0.0 ..= 1.0. Without a random source, the middle: retries then only bunch up.
fn random() -> f64 {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 4];
    match ring::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
