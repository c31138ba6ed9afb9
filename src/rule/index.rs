//! The index: from an event to the rules it concerns. Pure.
//!
//! Each kind of event has one way in, so that an event costs what the rules of *its* folder, job or
//! name cost, however many others there are:
//!
//! | event | looked up by | then |
//! |---|---|---|
//! | `file_arrives` | the watch that saw it | pattern, ignore, depth, size; a new version; the set it completes |
//! | `file_removed` | the watch that knew it | pattern, ignore, depth |
//! | `schedule` | the rule's name | |
//! | `job_*` | the job's name, or one set of all patterns | how it ended |
//! | `file_missing`, `folder_backlog`, `job_missing`, `job_runs_long` | the expectation's id | |
//! | `event` | its type, or one set of all patterns | its source |
//! | `trouble` | its kind | |
//! | the outcome of a rule's work | the rule's name | how it ended |
//!
//! A rule answers an event once, through the first of its triggers that is met. It never answers
//! the end of its own work through a trigger: that is what its outcomes are for, and `job_fails: "*"`
//! would go round in a circle.

use crate::event::{Does, Event, Kind};
use crate::rule::{Outcome, Rule, Trigger};
use crate::source::Wanted;
use globset::{GlobMatcher, GlobSet, GlobSetBuilder};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Which outcome of a rule's own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Branch {
    /// `on_success`
    Success,
    /// `on_failure`
    Failure,
    /// `on_recovery`: also the end of a case, also of a failing job for a rule that follows its cases
    Recovery,
}

impl Branch {
    /// The word for it in YAML and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Branch::Success => "on_success",
            Branch::Failure => "on_failure",
            Branch::Recovery => "on_recovery",
        }
    }

    /// What `rule` says of it.
    pub fn of(self, rule: &Rule) -> &Outcome {
        match self {
            Branch::Success => &rule.on_success,
            Branch::Failure => &rule.on_failure,
            Branch::Recovery => &rule.on_recovery,
        }
    }
}

/// Why an event concerns a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// It meets that one of the rule's triggers.
    Trigger(usize),
    /// It is the end of the rule's own work.
    Outcome(Branch),
}

/// A rule that an event concerns.
#[derive(Clone, Debug)]
pub struct Match {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Why.
    pub why: Why,
}

/// All rules of a setup, ready to be found. Built once, read by many.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Arc<Rule>>,
    by_name: HashMap<String, usize>,
    by_watch: HashMap<String, Vec<Bound>>,
    /// What rules call files that belong together.
    sets: HashSet<String>,
    jobs: Names,
    events: Names,
    by_expectation: HashMap<String, Vec<Bound>>,
    troubles: HashMap<String, Vec<Bound>>,
    any_trouble: Vec<Bound>,
}

/// One trigger of one rule, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    rule: usize,
    trigger: usize,
}

/// Triggers by a name, of a job or a type of event: names to the letter in a map, patterns in one set.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, Vec<Bound>>,
    set: GlobSet,
    /// What each pattern of `set` belongs to.
    patterns: Vec<Bound>,
    /// Only where `set` could not be built of them.
    one_by_one: Vec<(GlobMatcher, Bound)>,
}

impl Rules {
    /// Takes the rules of a setup; of two with one name the first is found by it.
    pub fn new(rules: Vec<Rule>) -> Rules {
        let mut index = Rules {
            rules: rules.into_iter().map(Arc::new).collect(),
            ..Rules::default()
        };
        let (mut jobs, mut events) = (Vec::new(), Vec::new());
        for (at, rule) in index.rules.iter().enumerate() {
            index.by_name.entry(rule.name.clone()).or_insert(at);
            for (trigger, what) in rule.triggers.iter().enumerate() {
                let bound = Bound { rule: at, trigger };
                match what {
                    Trigger::FileArrives { watch, .. }
                    | Trigger::FileChanges { watch, .. }
                    | Trigger::FileRemoved { watch, .. } => {
                        index.by_watch.entry(watch.clone()).or_default().push(bound);
                    }
                    Trigger::FilesTogether { watch, set, .. } => {
                        index.by_watch.entry(watch.clone()).or_default().push(bound);
                        index.sets.insert(set.clone());
                    }
                    // Found by the rule's name.
                    Trigger::Schedule(_) => {}
                    Trigger::JobSucceeds(job)
                    | Trigger::JobFails(job)
                    | Trigger::JobFinishes(job)
                    | Trigger::JobRecovers(job) => index.jobs.add(job, bound, &mut jobs),
                    Trigger::Event { types, .. } => {
                        for pattern in types {
                            index.events.add(pattern, bound, &mut events);
                        }
                    }
                    Trigger::Absence(expectation) => {
                        let of = index.by_expectation.entry(expectation.id.clone());
                        of.or_default().push(bound);
                    }
                    Trigger::Trouble(kinds) if kinds.is_empty() => index.any_trouble.push(bound),
                    Trigger::Trouble(kinds) => {
                        for kind in kinds {
                            index.troubles.entry(kind.clone()).or_default().push(bound);
                        }
                    }
                }
            }
        }
        index.jobs.take_patterns(jobs);
        index.events.take_patterns(events);
        index
    }

    /// All rules, in the order given.
    pub fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.by_name.get(name).map(|&at| &self.rules[at])
    }

    /// The rules `event` concerns, in the order of the setup, each with the reason. A rule comes
    /// twice only for its own work that ended well after a failure: `on_success`, then `on_recovery`.
    pub fn find(&self, event: &Event) -> Vec<Match> {
        let own = event
            .happening
            .origin
            .as_ref()
            .and_then(|origin| self.by_name.get(&origin.rule).copied());
        let step = event.happening.case.as_ref();
        let closes = step.is_some_and(|step| step.does == Does::Closes);
        // By rule: the first trigger met answers.
        let mut met: BTreeMap<usize, Why> = BTreeMap::new();
        for bound in self.candidates(event) {
            if Some(bound.rule) == own || !self.meets(bound, event) {
                continue;
            }
            let why = if closes || self.over(bound, event) {
                Why::Outcome(Branch::Recovery)
            } else {
                Why::Trigger(bound.trigger)
            };
            met.entry(bound.rule)
                .and_modify(|first| *first = why.min(*first))
                .or_insert(why);
        }
        let mut matches: Vec<(usize, Why)> = met
            .into_iter()
            .filter(|(at, why)| match why {
                Why::Trigger(_) => true,
                Why::Outcome(_) => self.rules[*at].follows_cases(),
            })
            .collect();
        if let Some(own) = own {
            let rule = &self.rules[own];
            for branch in branches(event) {
                if branch.of(rule).says_something() {
                    matches.push((own, Why::Outcome(branch)));
                }
            }
            matches.sort();
        }
        matches
            .into_iter()
            .map(|(at, why)| Match {
                rule: self.rules[at].clone(),
                why,
            })
            .collect()
    }

    /// The triggers `event` could meet.
    fn candidates(&self, event: &Event) -> Vec<Bound> {
        let happening = &event.happening;
        match happening.kind {
            Kind::FileArrives | Kind::FileRemoved => {
                self.by_watch.get(&happening.source).cloned().unwrap_or_default()
            }
            Kind::Schedule => {
                let Some(&rule) = self.by_name.get(&happening.source) else {
                    return Vec::new();
                };
                let triggers = self.rules[rule].triggers.iter().enumerate();
                triggers
                    .filter(|(_, what)| matches!(what, Trigger::Schedule(_)))
                    .map(|(trigger, _)| Bound { rule, trigger })
                    .collect()
            }
            Kind::JobSucceeds | Kind::JobFails => self.jobs.named(&happening.subject),
            Kind::FileMissing | Kind::FolderBacklog | Kind::JobMissing | Kind::JobRunsLong => {
                let of = self.by_expectation.get(&happening.source);
                of.cloned().unwrap_or_default()
            }
            Kind::Event => self.events.named(&happening.subject),
            Kind::MailHandedIn => Vec::new(),
            Kind::Trouble => {
                let kind = happening
                    .facts
                    .get("trouble")
                    .and_then(|trouble| trouble.get("kind"))
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default();
                let of_kind = self.troubles.get(kind).into_iter().flatten();
                of_kind.chain(&self.any_trouble).copied().collect()
            }
        }
    }

    /// Whether a job works again of which the rule tells while it fails: to that rule it is as a case closed.
    fn over(&self, bound: Bound, event: &Event) -> bool {
        let rule = &self.rules[bound.rule];
        event.happening.kind == Kind::JobSucceeds
            && event.recovers
            && rule.follows_cases()
            && matches!(rule.triggers[bound.trigger], Trigger::JobFails(_))
    }

    /// Whether `event` really meets the trigger.
    fn meets(&self, bound: Bound, event: &Event) -> bool {
        let happening = &event.happening;
        let came = happening.kind == Kind::FileArrives;
        let set = happening.facts.get("set");
        let wants = |wanted: &Wanted| {
            let file = happening.file.as_ref();
            file.is_some_and(|file| wanted.wants(&file.relative, file.size))
        };
        match &self.rules[bound.rule].triggers[bound.trigger] {
            Trigger::FileArrives { wanted, .. } => came && set.is_none() && wants(wanted),
            Trigger::FileChanges { wanted, .. } => {
                let changed = happening.facts.get("file").and_then(|file| file.get("changed"));
                came && set.is_none() && changed == Some(&true.into()) && wants(wanted)
            }
            Trigger::FileRemoved { wanted, .. } => !came && wants(wanted),
            Trigger::FilesTogether {
                wanted, set: ours, ..
            } => {
                let id = set
                    .and_then(|set| set.get("id"))
                    .and_then(serde_json::Value::as_str);
                // One that was recorded before the setup changed is asked about by what it is made of.
                let known = id.is_some_and(|id| self.sets.contains(id));
                came && set.is_some() && if known { id == Some(ours) } else { wants(wanted) }
            }
            Trigger::Schedule(_) | Trigger::JobFinishes(_) | Trigger::Absence(_) | Trigger::Trouble(_) => {
                true
            }
            Trigger::Event { source, .. } => source
                .as_ref()
                .is_none_or(|source| source.is_match(&event.happening.source)),
            Trigger::JobSucceeds(_) => event.happening.kind == Kind::JobSucceeds,
            Trigger::JobFails(_) => event.happening.kind == Kind::JobFails || self.over(bound, event),
            Trigger::JobRecovers(_) => event.happening.kind == Kind::JobSucceeds && event.recovers,
        }
    }
}

impl Names {
    /// Notes one trigger; its pattern, if it is one, goes into `patterns` for the set of all.
    fn add(&mut self, name: &GlobMatcher, bound: Bound, patterns: &mut Vec<(GlobMatcher, Bound)>) {
        let text = name.glob().glob();
        if text.contains(['*', '?', '[', ']', '{', '}', '\\']) {
            patterns.push((name.clone(), bound));
        } else {
            self.exact.entry(text.to_owned()).or_default().push(bound);
        }
    }

    fn take_patterns(&mut self, patterns: Vec<(GlobMatcher, Bound)>) {
        let mut set = GlobSetBuilder::new();
        for (pattern, _) in &patterns {
            set.add(pattern.glob().clone());
        }
        match set.build() {
            Ok(set) => {
                self.set = set;
                self.patterns = patterns.into_iter().map(|(_, bound)| bound).collect();
            }
            // Each compiled alone; together they are too big for one automaton.
            Err(_) => self.one_by_one = patterns,
        }
    }

    fn named(&self, name: &str) -> Vec<Bound> {
        let mut found = self.exact.get(name).cloned().unwrap_or_default();
        if !self.set.is_empty() {
            found.extend(self.set.matches(name).into_iter().map(|at| self.patterns[at]));
        }
        let one_by_one = self.one_by_one.iter();
        found.extend(
            one_by_one
                .filter(|(pattern, _)| pattern.is_match(name))
                .map(|(_, bound)| *bound),
        );
        found
    }
}

/// Which outcomes of its rule the end of some work stands for.
fn branches(event: &Event) -> Vec<Branch> {
    match event.happening.kind {
        Kind::JobSucceeds if event.recovers => vec![Branch::Success, Branch::Recovery],
        Kind::JobSucceeds => vec![Branch::Success],
        Kind::JobFails => vec![Branch::Failure],
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests;
