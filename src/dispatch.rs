//! Dispatch: from a recorded event to entries in the outbox.
//!
//! Theory of operation. The dispatcher asks the journal for events nobody dispatched yet, finds the
//! rules each concerns, lets their actions prepare effects, and admits these together with what each
//! rule decided, in the transaction that marks the event as dispatched. It owns no state between two
//! events: killed anywhere, it begins again with the same events, and the outbox takes each key once.
//! It is woken by the store's commits, and looks by itself now and then.
//!
//! ```text
//!   journal --pending--> [ find rules > condition > prepare ] --admit--> outbox
//!                                     |
//!                                     +--> what each rule decided, and why (`explain`)
//! ```

use crate::action::email::{self, Composing};
use crate::action::{Work, spare, work};
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::entry::{Body, Kind, NewEntry, OnUnknown, Reason};
use crate::event::{self, Event, EventId};
use crate::mail::header::one_line;
use crate::pulse::Pulse;
use crate::rule::facts::{self, Surroundings};
use crate::rule::index::{Branch, Match, Rules, Why};
use crate::rule::{Outcome, Rule};
use crate::sender;
use crate::store::{Admission, RuleVerdict, Store, StoreError};
use crate::template::Templates;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events taken in one go.
const BATCH: usize = 256;

/// Longest time between two looks at the journal, should a wake-up be lost.
const LOOK: Duration = Duration::from_millis(500);

/// What the dispatcher works by; replaced whole at a reload.
#[derive(Debug)]
pub struct Plan {
    /// The rules, indexed.
    pub rules: Rules,
    /// The settings they were checked with.
    pub settings: Settings,
    /// The templates they name.
    pub templates: Templates,
    /// This machine's name, for facts.
    pub host: String,
    /// Ids and roots of the watches the rules know.
    pub watches: Vec<(String, PathBuf)>,
}

impl Plan {
    /// The rules an event concerns. A file that was recorded under a watch which the setup no longer has, since
    /// it was changed meanwhile, is asked about under the watches of the same folder there are now: what was
    /// recorded is not lost by a reload or a restart.
    fn find(&self, event: &Event) -> Vec<Match> {
        let source = &event.happening.source;
        let Some(file) = &event.happening.file else {
            return self.rules.find(event);
        };
        if event.happening.kind != event::Kind::FileArrives || self.watches.iter().any(|(id, _)| id == source)
        {
            return self.rules.find(event);
        }
        let mut found: Vec<Match> = Vec::new();
        for (id, _) in self.watches.iter().filter(|(_, root)| *root == file.root) {
            let mut moved = event.clone();
            moved.happening.source.clone_from(id);
            for each in self.rules.find(&moved) {
                if found.iter().all(|known| known.rule.name != each.rule.name) {
                    found.push(each);
                }
            }
        }
        found
    }
}

/// The task.
#[derive(Debug)]
pub struct Dispatcher {
    store: Store,
    plan: watch::Receiver<Arc<Plan>>,
    clock: Clock,
    pulse: Pulse,
}

impl Dispatcher {
    /// A dispatcher that has not begun.
    pub fn new(store: Store, plan: watch::Receiver<Arc<Plan>>, clock: Clock, pulse: Pulse) -> Dispatcher {
        Dispatcher {
            store,
            plan,
            clock,
            pulse,
        }
    }

    /// Works until stopped. A store that cannot write is waited for; nothing is skipped.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.store.changes();
        loop {
            self.pulse.tick();
            let pause = match self.drain().await {
                Ok(_) => LOOK,
                Err(error) => {
                    tracing::error!(%error, "cannot dispatch; trying again");
                    Duration::from_secs(5)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Accounts that need a person: asked only where a trouble is to be told.
    async fn ailing(&self, events: &[Event]) -> Result<BTreeSet<String>, StoreError> {
        if events
            .iter()
            .all(|event| event.happening.kind != event::Kind::Trouble)
        {
            return Ok(BTreeSet::new());
        }
        let open = self.store.open_cases().await?.into_iter();
        Ok(open
            .filter(|case| case.kind == "account")
            .map(|case| case.subject)
            .collect())
    }

    /// Dispatches until the journal has nothing pending. Tells how many events that were.
    pub async fn drain(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        loop {
            let events = self.store.pending_events(BATCH).await?;
            if events.is_empty() {
                return Ok(count);
            }
            count += events.len();
            let ailing = self.ailing(&events).await?;
            let plan = Arc::clone(&self.plan.borrow());
            let (store, now, pulse) = (self.store.clone(), self.clock.now(), self.pulse.clone());
            let prepared = tokio::task::spawn_blocking(move || {
                let each = events.iter().map(|event| {
                    // Large attachments take their time; each one done is progress.
                    pulse.tick();
                    admission(event, &plan, &store, &ailing, now).map_err(|error| (event.id, error))
                });
                each.collect::<Vec<_>>()
            });
            // A panic in a template engine must not lose the batch: it stays pending, and is told.
            let prepared = match prepared.await {
                Ok(prepared) => prepared,
                Err(error) => {
                    tracing::error!(%error, "preparing effects failed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            // What the spool could not take stays pending, and everything else goes its way.
            let (admissions, disk): (Vec<_>, Vec<_>) = prepared.into_iter().partition(Result::is_ok);
            let admissions: Vec<Admission> = admissions.into_iter().flatten().collect();
            for admission in &admissions {
                tracing::debug!(
                    event = admission.event.map(|event| event.0),
                    entries = admission.entries.len(),
                    "event dispatched"
                );
            }
            let held: Vec<_> = admissions.iter().flat_map(held).collect();
            let admitted = self.store.admit(admissions).await?;
            for (entry, held) in admitted.iter().flatten().zip(held) {
                if let Some((event, rule, reason)) = held
                    && entry.fresh
                {
                    tracing::warn!(entry = %entry.id, %event, rule, reason, "held, a person must mend something");
                }
            }
            self.pulse.tick();
            if let Some((event, source)) = disk.into_iter().find_map(Result::err) {
                tracing::error!(%event, error = %source, "no space for a mail; its event waits");
                return Err(StoreError::File {
                    what: "cannot write to",
                    path: self.store.path().with_file_name("spool"),
                    source: Arc::new(source),
                });
            }
        }
    }
}

/// For each entry of an admission, what the log says of it if it is held.
fn held(admission: &Admission) -> impl Iterator<Item = Option<(EventId, String, String)>> {
    admission.entries.iter().map(|entry| {
        let reason = entry.held.as_ref()?;
        Some((
            entry.event?,
            one_line(&entry.rule, 200),
            one_line(&reason.text, 500),
        ))
    })
}

/// What one event leads to. Reads files it must attach; changes nothing.
///
/// The error is our own disk's; what was written until then is given up.
fn admission(
    event: &Event,
    plan: &Plan,
    store: &Store,
    ailing: &BTreeSet<String>,
    now: jiff::Timestamp,
) -> io::Result<Admission> {
    let mut made = Admission {
        event: Some(event.id),
        entries: Vec::new(),
        verdicts: Vec::new(),
        ..Admission::default()
    };
    for found in plan.find(event) {
        let asked = Asked {
            event,
            rule: &found.rule,
            plan,
            store,
            ailing,
            now,
        };
        let answer = match found.why {
            Why::Trigger(_) => asked.triggered(&mut made.entries),
            Why::Outcome(branch) => asked.ended(branch, &mut made.entries),
        };
        let (outcome, detail) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                for entry in &made.entries {
                    store.spool().discard(&entry.body);
                }
                return Err(error);
            }
        };
        made.verdicts.push(RuleVerdict {
            rule: found.rule.name.clone(),
            outcome: outcome.to_owned(),
            detail,
        });
    }
    Ok(made)
}

/// One rule asked about one event.
struct Asked<'a> {
    event: &'a Event,
    rule: &'a Rule,
    plan: &'a Plan,
    store: &'a Store,
    ailing: &'a BTreeSet<String>,
    now: jiff::Timestamp,
}

impl Asked<'_> {
    fn facts(&self) -> Value {
        let zone = self.plan.settings.defaults.timezone.clone();
        let surroundings = Surroundings {
            host: self.plan.host.clone(),
            now: self.now.to_zoned(zone),
        };
        facts::facts(self.event, self.rule, &surroundings)
    }

    /// A trigger of the rule met the event: condition, then work or mails.
    fn triggered(&self, entries: &mut Vec<NewEntry>) -> io::Result<(&'static str, String)> {
        let facts = self.facts();
        let why = match self
            .rule
            .condition
            .as_ref()
            .map(|condition| condition.check(&facts))
        {
            None => String::new(),
            Some(Ok(decision)) if decision.holds => decision.why,
            Some(Ok(decision)) => return Ok(("condition_false", decision.why)),
            Some(Err(error)) => {
                let text = format!("the condition of rule `{}` failed: {error}", self.rule.name);
                entries.push(self.unmade(Kind::Mail, "if", Reason::new(text.clone())));
                return Ok(("failed", text));
            }
        };
        if self.rule.work.is_empty() {
            self.mails(&self.rule.mails, "mail", &facts, entries)?;
        } else {
            self.work(&self.rule.work, "work", true, &facts, entries);
        }
        Ok(("fired", why))
    }

    /// The rule's own work ended.
    fn ended(&self, branch: Branch, entries: &mut Vec<NewEntry>) -> io::Result<(&'static str, String)> {
        let (outcome, name): (&Outcome, _) = match branch {
            Branch::Success => (&self.rule.on_success, "on_success"),
            Branch::Failure => (&self.rule.on_failure, "on_failure"),
            Branch::Recovery => (&self.rule.on_recovery, "on_recovery"),
        };
        let facts = self.facts();
        // Mails first: they freeze what they attach before a move is even admitted.
        self.mails(&outcome.mails, name, &facts, entries)?;
        if !outcome.work.is_empty() {
            self.work(&outcome.work, name, false, &facts, entries);
        }
        Ok(("fired", name.to_owned()))
    }

    /// Deterministic, and different for everything a rule asks for on one event.
    fn key(&self, branch: &str, what: &str) -> String {
        format!(
            "{}/{}/{branch}/{what}",
            self.event.happening.asked(),
            self.rule.name
        )
    }

    fn mails(
        &self,
        specs: &[email::MailSpec],
        part: &str,
        facts: &Value,
        entries: &mut Vec<NewEntry>,
    ) -> io::Result<()> {
        let settings = &self.plan.settings;
        let log = facts
            .pointer("/job/log")
            .and_then(Value::as_str)
            .map(PathBuf::from);
        for (number, spec) in specs.iter().enumerate() {
            // The news of an account's trouble does not wait for that account.
            let spec = &*spare::sparing(spec, facts, settings, self.ailing);
            let mut entry = email::prepare(
                spec,
                &self.key(part, &format!("mail-{number}")),
                &Composing {
                    settings,
                    templates: &self.plan.templates,
                    spool: self.store.spool(),
                    rule: &self.rule.name,
                    event: Some(self.event.id),
                    facts,
                    file: self.event.happening.file.as_ref(),
                    job_log: log.as_deref(),
                    now: self.now,
                    host: &self.plan.host,
                },
            )?;
            if let Some(account) = settings.accounts.get(&spec.account) {
                entry.lane = sender::lane(account, &spec.from.address);
            }
            entries.push(entry);
        }
        Ok(())
    }

    fn work(
        &self,
        specs: &[crate::action::StepSpec],
        part: &str,
        reports: bool,
        facts: &Value,
        entries: &mut Vec<NewEntry>,
    ) {
        let file = self.event.happening.file.clone();
        let setup: &Path = &self.plan.settings.dir;
        let steps = match work::prepare(specs, facts, file.as_ref(), setup) {
            Ok(steps) => steps,
            Err(error) => {
                let text = format!(
                    "the work of rule `{}` cannot be prepared: {error}",
                    self.rule.name
                );
                entries.push(self.unmade(Kind::Work, part, Reason::new(text)));
                return;
            }
        };
        let work = Work {
            job: self.rule.name.clone(),
            steps,
            facts: facts.as_object().cloned().unwrap_or_default(),
            event: Some(self.event.id),
            file,
            reports,
            overlap: self.rule.overlap,
        };
        let summary = json!({ "job": work.job, "steps": work::describe(&work.steps) });
        match serde_json::to_vec(&work) {
            Ok(effect) => entries.push(NewEntry {
                key: self.key(part, "work"),
                kind: Kind::Work,
                rule: self.rule.name.clone(),
                event: Some(self.event.id),
                lane: if reports {
                    self.rule.name.clone()
                } else {
                    format!("{} files", self.rule.name)
                },
                effect,
                body: Body::None,
                summary,
                // Work is never repeated blindly; a lost job is reported as an outcome.
                on_unknown: OnUnknown::Hold,
                due: self.now,
                held: None,
                answers: Vec::new(),
                of_case: None,
            }),
            Err(error) => {
                entries.push(self.unmade(Kind::Work, part, Reason::new(error.to_string())));
            }
        }
    }

    /// An entry that could not be made: held with its reason. `outbox retry` dispatches the event
    /// again, when the rule or template is mended.
    fn unmade(&self, kind: Kind, part: &str, mut reason: Reason) -> NewEntry {
        reason.steps = vec![
            format!(
                "Mend the rule ({}) and check it with `tidings check`.",
                self.rule.place
            ),
            "Then say `tidings outbox retry` with this entry's number.".to_owned(),
        ];
        NewEntry {
            key: self.key(part, kind.as_str()),
            kind,
            rule: self.rule.name.clone(),
            event: Some(self.event.id),
            lane: self.rule.name.clone(),
            effect: Vec::new(),
            body: Body::None,
            summary: json!({ "problem": reason.text, "fault": if part == "if" { "condition" } else { "work" } }),
            on_unknown: OnUnknown::Hold,
            due: self.now,
            held: Some(reason),
            answers: Vec::new(),
            of_case: None,
        }
    }
}
