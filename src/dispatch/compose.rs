//! What a rule asks for, made into entries. A thing that cannot be made is an entry all the same, held with
//! its reason.

use crate::action::email::{self, Composing, MailSpec};
use crate::action::{StepSpec, Work, spare, work};
use crate::dispatch::Plan;
use crate::dispatch::asked::Asked;
use crate::entry::{Body, Kind, NewEntry, OnUnknown, Reason};
use crate::sender;
use crate::store::Store;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The log of the job that facts speak of.
pub(super) fn job_log(facts: &Value) -> Option<PathBuf> {
    facts
        .pointer("/job/log")
        .and_then(Value::as_str)
        .map(PathBuf::from)
}

impl Plan {
    /// Who waits for whom: mails of one account and sender.
    pub(super) fn lane(&self, spec: &MailSpec, entry: &mut NewEntry) {
        if let Some(account) = self.settings.accounts.get(&spec.account) {
            entry.lane = sender::lane(account, &spec.from.address);
        }
    }
}

impl Plan {
    /// The mail as it shall leave: the news of an account's trouble does not wait for that account, where another
    /// is well. Reads the open cases then; called on a thread that may block.
    pub(super) fn sparing<'a>(&self, spec: &'a MailSpec, facts: &Value, store: &Store) -> Cow<'a, MailSpec> {
        if !spare::may_be_needed(spec, facts) {
            return Cow::Borrowed(spec);
        }
        let ailing = match tokio::runtime::Handle::current().block_on(store.open_cases()) {
            Ok(cases) => cases
                .into_iter()
                // What is about to end works still.
                .filter(|case| case.kind == "account" && !case.key.starts_with("ends:"))
                .map(|case| case.subject)
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "cannot ask which accounts are well; the mail takes the usual one");
                BTreeSet::new()
            }
        };
        spare::sparing(spec, &self.settings, &ailing)
    }
}

impl Asked<'_> {
    /// Deterministic, and different for everything a rule asks for on one event.
    pub(super) fn key(&self, branch: &str, what: &str) -> String {
        format!(
            "{}/{}/{branch}/{what}",
            self.event.happening.asked(),
            self.rule.name
        )
    }

    pub(super) fn mails(
        &self,
        specs: &[MailSpec],
        part: &str,
        facts: &Value,
        entries: &mut Vec<NewEntry>,
    ) -> io::Result<()> {
        for (number, spec) in specs.iter().enumerate() {
            let key = self.key(part, &format!("mail-{number}"));
            let spec = self.plan.sparing(spec, facts, self.store);
            let mut entry = self.composing(facts, |with| email::prepare(&spec, &key, with))?;
            self.plan.lane(&spec, &mut entry);
            entries.push(entry);
        }
        Ok(())
    }

    /// Lends what a mail about the event is composed with.
    pub(super) fn composing<T>(&self, facts: &Value, work: impl FnOnce(&Composing<'_>) -> T) -> T {
        let log = job_log(facts);
        work(&Composing {
            settings: &self.plan.settings,
            templates: &self.plan.templates,
            spool: self.store.spool(),
            rule: &self.rule.name,
            event: Some(self.event.id),
            facts,
            file: self.event.happening.file.as_ref(),
            job_log: log.as_deref(),
            now: self.now,
            host: &self.plan.host,
        })
    }

    pub(super) fn work(
        &self,
        specs: &[StepSpec],
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
    pub(super) fn unmade(&self, kind: Kind, part: &str, mut reason: Reason) -> NewEntry {
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
