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
pub(super) mod tests {
    use super::*;
    use crate::action::{Overlap, StepSpec};
    use crate::event::{EventId, FileRef, NewEvent, Origin};
    use crate::source::Wanted;
    use crate::source::schedule::{Missed, Schedule, ScheduleSpec};
    use globset::{Glob, GlobBuilder};
    use jiff::Timestamp;
    use serde_json::{Map, Value, json};

    pub(in crate::rule) fn rule(name: &str) -> Rule {
        Rule {
            name: name.to_owned(),
            description: None,
            place: "rules/test.yaml:1".to_owned(),
            triggers: Vec::new(),
            condition: None,
            data: Value::Null,
            work: Vec::new(),
            overlap: Overlap::Queue,
            mails: Vec::new(),
            emits: Vec::new(),
            on_success: Outcome::default(),
            on_failure: Outcome::default(),
            on_recovery: Outcome::default(),
            asks: crate::rule::demand::Asks::default(),
            ladder: crate::rule::ladder::Ladder::default(),
            telling: crate::rule::gather::Telling::default(),
        }
    }

    fn with(name: &str, triggers: Vec<Trigger>) -> Rule {
        Rule {
            triggers,
            ..rule(name)
        }
    }

    fn glob(pattern: &str) -> GlobMatcher {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        glob.unwrap().compile_matcher()
    }

    fn wanted(pattern: &str) -> Wanted {
        Wanted {
            matching: glob(pattern),
            ignore: crate::source::wanted::Ignore::default(),
            recursive: true,
            min_size: 0,
            max_size: None,
        }
    }

    fn files(watch: &str, pattern: &str) -> Trigger {
        Trigger::FileArrives {
            watch: watch.to_owned(),
            wanted: wanted(pattern),
        }
    }

    fn event(kind: Kind, source: &str, subject: &str) -> Event {
        Event {
            id: EventId(1),
            happening: NewEvent {
                key: "k".to_owned(),
                kind,
                source: source.to_owned(),
                subject: subject.to_owned(),
                time: Timestamp::UNIX_EPOCH,
                facts: Map::new(),
                file: None,
                origin: None,
                case: None,
            },
            recorded: Timestamp::UNIX_EPOCH,
            recovers: false,
        }
    }

    fn file_event(watch: &str, relative: &str, size: u64) -> Event {
        let mut event = event(Kind::FileArrives, watch, relative);
        event.happening.file = Some(FileRef {
            root: "/srv/in".into(),
            relative: relative.into(),
            size,
            mtime_ns: 0,
        });
        event
    }

    fn job_event(kind: Kind, name: &str, recovers: bool, origin: Option<&str>) -> Event {
        let mut event = event(kind, "", name);
        event.recovers = recovers;
        event.happening.origin = origin.map(|rule| Origin {
            rule: rule.to_owned(),
            event: EventId(0),
        });
        event
    }

    fn found(rules: &Rules, event: &Event) -> Vec<(String, Why)> {
        let matches = rules.find(event);
        matches
            .into_iter()
            .map(|m| (m.rule.name.clone(), m.why))
            .collect()
    }

    fn names(rules: &Rules, event: &Event) -> Vec<String> {
        found(rules, event).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_file_concerns_the_rules_of_its_watch_whose_pattern_it_meets() {
        let rules = Rules::new(vec![
            with("pdf", vec![files("w1", "**/*.pdf")]),
            with("top", vec![files("w1", "*.pdf")]),
            with("elsewhere", vec![files("w2", "**/*.pdf")]),
        ]);
        assert_eq!(names(&rules, &file_event("w1", "a.pdf", 1)), ["pdf", "top"]);
        assert_eq!(names(&rules, &file_event("w1", "x/a.pdf", 1)), ["pdf"]);
        assert_eq!(names(&rules, &file_event("w2", "a.pdf", 1)), ["elsewhere"]);
        assert!(names(&rules, &file_event("w1", "a.csv", 1)).is_empty());
        assert!(names(&rules, &file_event("w3", "a.pdf", 1)).is_empty());
    }

    #[test]
    fn ignore_depth_and_size_leave_files_out() {
        let mut want = wanted("**/*");
        want.ignore = crate::source::wanted::Ignore::new(&[Glob::new("~*").unwrap()]);
        want.min_size = 2;
        want.max_size = Some(5);
        let takes = |want: &Wanted, relative: &str, size| want.wants(std::path::Path::new(relative), size);
        assert!(takes(&want, "a/b.txt", 2) && takes(&want, "b.txt", 5));
        assert!(!takes(&want, "b.txt", 1), "too small");
        assert!(!takes(&want, "b.txt", 6), "too big");
        assert!(!takes(&want, "a/~b.txt", 3), "ignored by its name alone");
        want.recursive = false;
        assert!(takes(&want, "b.txt", 3) && !takes(&want, "a/b.txt", 3));
    }

    #[test]
    fn a_rule_answers_once_through_its_first_trigger() {
        let rules = Rules::new(vec![with(
            "r",
            vec![
                Trigger::JobFinishes(glob("*")),
                Trigger::JobFails(glob("nightly")),
            ],
        )]);
        let event = job_event(Kind::JobFails, "nightly", false, None);
        assert_eq!(found(&rules, &event), [("r".to_owned(), Why::Trigger(0))]);
    }

    #[test]
    fn jobs_are_found_by_name_and_by_pattern_and_by_how_they_ended() {
        let rules = Rules::new(vec![
            with("fails", vec![Trigger::JobFails(glob("billing-*"))]),
            with("exact", vec![Trigger::JobSucceeds(glob("billing-close"))]),
            with("ends", vec![Trigger::JobFinishes(glob("{billing,export}-close"))]),
            with("recovers", vec![Trigger::JobRecovers(glob("billing-?lose"))]),
        ]);
        let on = |kind, name, recovers| names(&rules, &job_event(kind, name, recovers, None));
        assert_eq!(on(Kind::JobFails, "billing-close", false), ["fails", "ends"]);
        assert_eq!(on(Kind::JobSucceeds, "billing-close", false), ["exact", "ends"]);
        assert_eq!(
            on(Kind::JobSucceeds, "billing-close", true),
            ["exact", "ends", "recovers"]
        );
        assert!(on(Kind::JobFails, "other", false).is_empty());
    }

    #[test]
    fn the_end_of_a_rules_work_meets_its_outcomes() {
        let mut own = rule("import");
        own.on_success.work.push(StepSpec::Delete);
        own.on_failure.work.push(StepSpec::Delete);
        own.on_recovery.work.push(StepSpec::Delete);
        let rules = Rules::new(vec![own, rule("silent")]);
        let on = |kind, recovers, origin| found(&rules, &job_event(kind, "import", recovers, Some(origin)));
        let outcome = |branch| ("import".to_owned(), Why::Outcome(branch));
        assert_eq!(on(Kind::JobFails, false, "import"), [outcome(Branch::Failure)]);
        assert_eq!(on(Kind::JobSucceeds, false, "import"), [outcome(Branch::Success)]);
        assert_eq!(
            on(Kind::JobSucceeds, true, "import"),
            [outcome(Branch::Success), outcome(Branch::Recovery)]
        );
        assert!(
            on(Kind::JobFails, false, "silent").is_empty(),
            "nothing said of it"
        );
        assert!(
            on(Kind::JobFails, false, "gone").is_empty(),
            "the rule was removed meanwhile"
        );
        let reported = job_event(Kind::JobFails, "import", false, None);
        assert!(
            found(&rules, &reported).is_empty(),
            "another's job of the same name"
        );
    }

    #[test]
    fn a_rule_does_not_trigger_itself() {
        let rules = Rules::new(vec![
            with("loop", vec![Trigger::JobFails(glob("*"))]),
            with("other", vec![Trigger::JobFails(glob("loop"))]),
        ]);
        let own = job_event(Kind::JobFails, "loop", false, Some("loop"));
        assert_eq!(names(&rules, &own), ["other"]);
        let reported = job_event(Kind::JobFails, "loop", false, None);
        assert_eq!(names(&rules, &reported), ["loop", "other"]);
    }

    #[test]
    fn a_slot_concerns_only_the_rule_of_its_name() {
        let schedule = Trigger::Schedule(
            Schedule::compile(&ScheduleSpec {
                cron: Some("0 2 * * *"),
                every: None,
                timezone: jiff::tz::TimeZone::UTC,
                missed: Missed::Once,
            })
            .unwrap(),
        );
        let rules = Rules::new(vec![
            with("nightly", vec![Trigger::JobFails(glob("x")), schedule.clone()]),
            with("weekly", vec![schedule]),
        ]);
        let slot = event(Kind::Schedule, "nightly", "nightly");
        assert_eq!(found(&rules, &slot), [("nightly".to_owned(), Why::Trigger(1))]);
    }

    #[test]
    fn trouble_is_found_by_its_kind() {
        let of = |kinds: &[&str]| Trigger::Trouble(kinds.iter().map(|&k| k.to_owned()).collect());
        let rules = Rules::new(vec![
            with("mail", vec![of(&["mail", "watch"])]),
            with("account", vec![of(&["account"])]),
            with("any", vec![of(&[])]),
        ]);
        let mut trouble = event(Kind::Trouble, "", "office");
        trouble
            .happening
            .facts
            .insert("trouble".to_owned(), json!({ "kind": "watch" }));
        assert_eq!(names(&rules, &trouble), ["mail", "any"]);
    }

    fn emitted(types: &[&str], source: Option<&str>) -> Trigger {
        let any = |pattern: &&str| Glob::new(pattern).unwrap().compile_matcher();
        Trigger::Event {
            types: types.iter().map(any).collect(),
            source: source.as_ref().map(any),
        }
    }

    #[test]
    fn an_emitted_event_is_found_by_type_and_source_and_not_by_the_rule_that_emitted_it() {
        let rules = Rules::new(vec![
            with("exact", vec![emitted(&["com.example.done"], None)]),
            with(
                "glob",
                vec![emitted(&["com.example.*", "com.example.done"], None)],
            ),
            with("whose", vec![emitted(&["com.*"], Some("//db/*"))]),
            with("other", vec![emitted(&["com.example"], None)]),
        ]);
        let mut done = event(Kind::Event, "//db/1", "com.example.done");
        assert_eq!(names(&rules, &done), ["exact", "glob", "whose"]);
        done.happening.source = "//web/1".to_owned();
        assert_eq!(names(&rules, &done), ["exact", "glob"]);
        done.happening.origin = Some(Origin {
            rule: "glob".to_owned(),
            event: EventId(0),
        });
        assert_eq!(names(&rules, &done), ["exact"]);
        done.happening.subject = "com.exampledone".to_owned();
        done.happening.origin = None;
        assert!(names(&rules, &done).is_empty());
    }

    #[test]
    fn rules_that_do_not_concern_an_event_cost_nothing() {
        let pattern = files("", "**/*.pdf");
        let setup = |count: usize| {
            let others = (0..count).map(|n| {
                let mut file = pattern.clone();
                if let Trigger::FileArrives { watch, .. } = &mut file {
                    *watch = format!("w{n}");
                }
                // Compiling a pattern is slow without optimisation: some of the jobs are enough.
                let job = (n < 10 || n % 20 == 0).then(|| Trigger::JobFails(glob(&format!("job-{n}"))));
                with(&format!("rule-{n}"), std::iter::once(file).chain(job).collect())
            });
            Rules::new(others.collect())
        };
        let (small, large) = (setup(10), setup(10_000));
        let file = file_event("w7", "a.pdf", 1);
        let job = job_event(Kind::JobFails, "job-7", false, None);
        for event in [&file, &job] {
            // What is looked at, not how long it takes: a busy machine must not fail this.
            assert_eq!(small.candidates(event), large.candidates(event));
            assert_eq!(large.candidates(event).len(), 1);
            assert_eq!(names(&large, event), ["rule-7"]);
        }
        let time = |rules: &Rules| {
            let start = std::time::Instant::now();
            for _ in 0..1_000 {
                assert_eq!(rules.find(&file).len() + rules.find(&job).len(), 2);
            }
            start.elapsed() / 2_000
        };
        println!(
            "an event among 10 rules: {:?}, among 10,000: {:?}",
            time(&small),
            time(&large)
        );
    }
}
