//! One entry performed, from lease to settlement.

use crate::action::run::Performing;
use crate::action::work;
use crate::action::{Mail, Step, Work};
use crate::clock::Clock;
use crate::delivery::Plan;
use crate::delivery::over::{self, Condition};
use crate::delivery::verdict::{self, Trouble, Verdict};
use crate::entry::{Body, Entry, EntryId, Fence, Kind, Leased, OnUnknown, Reason, Settlement, State};
use crate::event::FileRef;
use crate::sender::{self, Outcome, Sender};
use crate::store::{Also, NewCase, Store};
use crate::transport::{Content, Found, Gate, GateClosed, Parcel};
use jiff::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
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
    /// The entry was not done with: it may be due again.
    pub again: bool,
}

/// Told as soon as the store was handed the outcome of a mail.
#[derive(Clone, Copy, Debug)]
pub struct Freed {
    /// Whose.
    pub id: EntryId,
    /// Nothing else of the lane before this time.
    pub pause: Option<Timestamp>,
}

/// How many outcomes of a lane the store did not take so far.
#[derive(Clone, Debug, Default)]
pub struct Stuck(Arc<AtomicUsize>);

impl Stuck {
    /// Whether there is one.
    pub fn is_stuck(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn one(&self) -> Sticking {
        self.0.fetch_add(1, Ordering::AcqRel);
        Sticking(self.clone())
    }
}

/// Counts as stuck until it is dropped.
struct Sticking(Stuck);

impl Drop for Sticking {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All that performing needs.
#[derive(Debug)]
pub struct Performer {
    pub(super) store: Store,
    pub(super) plan: Arc<Plan>,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
    pub(super) stuck: Stuck,
    pub(super) freed: mpsc::UnboundedSender<Freed>,
}

/// The store's answer to a transport that is about to hand over for good.
struct StoreGate<'a> {
    store: &'a Store,
    id: EntryId,
    fence: Fence,
    stuck: &'a Stuck,
}

impl Gate for StoreGate<'_> {
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), GateClosed>> + Send + '_>> {
        Box::pin(async move {
            if self.stuck.is_stuck() {
                return Err(GateClosed("an earlier outcome is still to be written".to_owned()));
            }
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
            stuck: &self.stuck,
        };
        let looked = self.look(sender, leased, &mail).await;
        let outcome = match &looked {
            Looked::Send(_) => sender.send(&parcel, &mail.sender, &gate).await,
            Looked::Later(reason) => Outcome::Later {
                reason: reason.clone(),
                after: None,
                everyone: false,
            },
            Looked::Sent(reason) => {
                let also = Also {
                    close: vec![mail_case(entry.id)],
                    ..Also::default()
                };
                tracing::info!(entry = %entry.id, rule = %entry.rule, found = %reason.text, "an unknown mail had been sent");
                self.settle(leased, Settlement::Accept(reason.clone()), also)
                    .await;
                return Performed::default();
            }
            Looked::Wait(reason) => {
                tracing::warn!(entry = %entry.id, rule = %entry.rule, reason = %reason.text, cure = cure(reason), "an unknown mail waits for a person");
                let also = Also {
                    open: self.case(leased, "mail", &mail_case(entry.id), reason).await,
                    ..Also::default()
                };
                self.settle(leased, Settlement::Lose(reason.clone()), also).await;
                return Performed::default();
            }
        };
        let now = self.clock.now();
        let condition = over::condition(&outcome);
        let down = sender.note_reach(condition == Condition::Down, now);
        let Verdict {
            settlement,
            effect,
            resend,
            mut pause,
            trouble,
        } = verdict::settle(outcome, entry, &mail, now, self.plan.retry, self.random());
        let settlement = match looked {
            Looked::Send(Some(why)) => unlooked(settlement, &why),
            _ => settlement,
        };
        match &settlement {
            Settlement::Accept(reason) => {
                tracing::info!(entry = %entry.id, rule = %entry.rule, reply = reason.reply, "mail accepted");
            }
            settlement => {
                let reason = settlement.reason().cloned().unwrap_or_default();
                tracing::warn!(entry = %entry.id, rule = %entry.rule, verb = ?settlement.verb(),
                    reason = %reason.text, reply = reason.reply, cure = cure(&reason), "mail not accepted");
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
        // How long this mail waits is known also after a restart.
        let mut settlement = settlement;
        if over::calls_for(condition, down.min(entry.since), now, self.plan.fail_over)
            && let Some((moved, wrapped)) = self.elsewhere(entry, &mail).await
            && let Settlement::Defer(until, reason) = &settlement
        {
            let mut reason = reason.clone();
            reason.text = format!("{}; it goes on by account `{}`", reason.text, moved.account);
            tracing::warn!(entry = %entry.id, rule = %entry.rule, from = %mail.account, to = %moved.account, "a mail goes on by another account");
            let due = if wrapped { *until } else { now };
            settlement = Settlement::Defer(due, reason);
            also.lane = self.plan.senders.get(&moved.account).map(|next| {
                let lane = sender::lane(next.account(), &mail.sender);
                (lane, moved.account.clone())
            });
            also.effect = serde_json::to_vec(&moved).ok();
            also.awaits = None;
            // Those behind it are to go on as well, and not to wait for the account.
            pause = None;
        }
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
        let again = !accepted;
        self.settle_and_free(leased, settlement, also, pause).await;
        Performed {
            pause,
            awaits: pause.and(case),
            again,
            ..Performed::default()
        }
    }

    /// The mail as the next account of its rule shall send it, and whether all were tried.
    async fn elsewhere(&self, entry: &Entry, mail: &Mail) -> Option<(Mail, bool)> {
        let (account, wrapped) = over::next(mail, |name| self.plan.senders.get(name).is_some())?;
        let attempts = self.store.entry(entry.id).await.ok()??.attempts;
        over::is_unsent(&attempts).then(|| {
            let moved = Mail {
                account,
                ..mail.clone()
            };
            (moved, wrapped)
        })
    }

    /// Before a mail that may have gone out goes again: was it sent?
    async fn look(&self, sender: &Sender, leased: &Leased, mail: &Mail) -> Looked {
        let entry = &leased.entry;
        if !entry.on_unknown.verifies() || entry.attempts < 2 {
            return Looked::Send(None);
        }
        let attempts = match self.store.entry(entry.id).await {
            Ok(detail) => detail.map(|detail| detail.attempts).unwrap_or_default(),
            Err(error) => return Looked::Later(Reason::new(format!("its attempts cannot be read: {error}"))),
        };
        if !attempts
            .iter()
            .any(|attempt| attempt.outcome == Some(State::Unknown))
        {
            return Looked::Send(None);
        }
        looked(sender.find(&mail.message_id, &mail.sender).await, entry)
    }

    async fn work(&self, leased: &Leased) -> Performed {
        let entry = &leased.entry;
        let mut work: Work = match serde_json::from_slice(&leased.effect) {
            Ok(work) => work,
            Err(error) => return self.unreadable(leased, &error.to_string()).await,
        };
        // A command is not to be repeated blindly after a crash; moving a file is safe to repeat.
        if work.steps.iter().any(|step| matches!(step, Step::Run(_))) {
            let gate = StoreGate {
                store: &self.store,
                id: entry.id,
                fence: leased.fence,
                stuck: &self.stuck,
            };
            if let Err(closed) = gate.pass().await {
                tracing::warn!(entry = %entry.id, %closed, "work not begun");
                self.settle(leased, Settlement::Release, Also::default()).await;
                return Performed {
                    pause: Some(self.clock.now() + Duration::from_secs(5)),
                    again: true,
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
            ground: self.plan.ground.clone(),
            commands: self.plan.commands.clone(),
        };
        let done = work::perform(&work, &context).await;
        let report = done.report;
        work::moved(&mut work.facts, &done.files);
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
            again: true,
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

    /// Settles as [`Performer::settle`] does. The connection is free once the store was handed the outcome,
    /// before it is written: the store works in order, so the gate of whatever comes next on the connection is
    /// not on disk before this outcome is.
    async fn settle_and_free(
        &self,
        leased: &Leased,
        settlement: Settlement,
        also: Also,
        pause: Option<Timestamp>,
    ) {
        let mut settling = std::pin::pin!(self.settle(leased, settlement, also));
        tokio::select! {
            biased;
            // Asked for once, it has said to the store what it has to say.
            () = &mut settling => return,
            () = std::future::ready(()) => {}
        }
        // Nobody listens any more when we stop.
        let _ = self.freed.send(Freed {
            id: leased.entry.id,
            pause,
        });
        settling.await;
    }

    /// Settles, for as long as it takes: an outcome that is not written would be done again. Meanwhile the
    /// lane is stuck.
    async fn settle(&self, leased: &Leased, settlement: Settlement, also: Also) {
        let mut wait = Duration::from_millis(200);
        let mut stuck = None;
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
                    stuck.get_or_insert_with(|| self.stuck.one());
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
        if kind != "account" && self.is_about_trouble(entry).await {
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

    /// Whether it tells of a trouble, alone or with others, or came of one.
    async fn is_about_trouble(&self, entry: &Entry) -> bool {
        let answers = match self.store.entry(entry.id).await {
            Ok(detail) => detail.map(|detail| detail.answers).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        for event in entry.event.into_iter().chain(answers) {
            if matches!(self.store.is_of_a_trouble(event).await, Ok(true)) {
                return true;
            }
        }
        false
    }
}

/// What a look for a mail that may have gone out leads to.
#[derive(Clone, Debug, PartialEq)]
enum Looked {
    /// It is sent (again); with why nobody looked, where that was wanted.
    Send(Option<String>),
    /// It was sent.
    Sent(Reason),
    /// Looked for again later.
    Later(Reason),
    /// A person decides.
    Wait(Reason),
}

/// Says that nobody looked, where the mail goes again all the same.
fn unlooked(settlement: Settlement, why: &str) -> Settlement {
    match settlement {
        Settlement::Accept(mut reason) => {
            reason.text = format!(
                "{}; it was sent again although it may have gone out before, for nobody can tell: {why}",
                reason.text
            );
            Settlement::Accept(reason)
        }
        other => other,
    }
}

/// Pure.
fn looked(found: Found, entry: &Entry) -> Looked {
    match found {
        Found::Sent(who) => Looked::Sent(Reason::new(format!("it had been sent: {who}"))),
        Found::NotThere => Looked::Send(None),
        Found::Later(text) => Looked::Later(Reason::new(format!(
            "it may have gone out, and whether it did cannot be asked now: {text}"
        ))),
        Found::Unauthorized => Looked::Later(Reason::new("the token is refused")),
        Found::CannotTell(why) if entry.on_unknown.otherwise() == OnUnknown::Resend => {
            Looked::Send(Some(why))
        }
        Found::CannotTell(why) => Looked::Wait(Reason {
            steps: vec![
                "Look among the sent mails, or ask a recipient.".to_owned(),
                format!(
                    "Then: tidings outbox retry {0}, or tidings outbox cancel {0}",
                    entry.id
                ),
            ],
            ..Reason::new(format!(
                "it may have gone out, nobody can tell, and it is not sent again (`on_unknown`): {why}"
            ))
        }),
    }
}

/// The key of the case of a mail.
fn mail_case(id: EntryId) -> String {
    format!("mail:{id}")
}

impl Performer {
    /// How far a retry is spread. A clock that is moved by hand has no crowd on it, and repeats itself.
    fn random(&self) -> f64 {
        if self.clock.is_by_hand() { 0.5 } else { random() }
    }
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

/// What the log says of what to do.
fn cure(reason: &Reason) -> Option<String> {
    Some(reason.cure().join(" ")).filter(|cure| !cure.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::NewEntry;

    #[tokio::test]
    async fn while_an_outcome_of_the_lane_cannot_be_written_its_gates_stay_shut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.db");
        let store = Store::open(&path, Clock::system()).await.unwrap();
        let entry = NewEntry {
            key: "mail:1".to_owned(),
            kind: Kind::Mail,
            rule: "each".to_owned(),
            event: None,
            lane: "relay".to_owned(),
            effect: b"{}".to_vec(),
            body: Body::Inline(b"x".to_vec()),
            summary: serde_json::Value::Null,
            on_unknown: OnUnknown::Resend,
            due: Timestamp::UNIX_EPOCH,
            held: None,
            answers: Vec::new(),
            of_case: None,
        };
        let id = store.admit_alone(entry).await.unwrap().id;
        let lease = Duration::from_secs(60);
        let claimed = store.claim(Kind::Mail, "relay", 1, lease).await.unwrap();
        let stuck = Stuck::default();
        let gate = StoreGate {
            store: &store,
            id,
            fence: claimed[0].fence,
            stuck: &stuck,
        };
        let sticking = stuck.one();
        assert!(gate.pass().await.unwrap_err().to_string().contains("outcome"));
        let detail = store.entry(id).await.unwrap().unwrap();
        assert!(detail.attempts.iter().all(|attempt| !attempt.gated));
        drop(sticking);
        gate.pass().await.unwrap();
    }
}
