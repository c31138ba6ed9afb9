//! Which rules an event concerns.

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
