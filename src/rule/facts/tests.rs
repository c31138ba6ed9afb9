use super::*;
use crate::event::{EventId, FileRef, NewEvent};
use crate::rule::demand;
use crate::rule::index::tests::rule;
use crate::source::job::JobReport;
use proptest::prelude::*;

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn hint(vocabulary: &Vocabulary, text: &str) -> String {
    vocabulary.knows(&path(text)).unwrap_err().hint.unwrap()
}

fn message(vocabulary: &Vocabulary, text: &str) -> String {
    vocabulary.knows(&path(text)).unwrap_err().message
}

#[test]
fn every_fact_the_trigger_brings_is_known() {
    let file = Vocabulary::of(&[TriggerWord::FileArrives], None);
    for known in [
        "file.path",
        "file.name",
        "file.stem",
        "file.extension",
        "file.folder",
        "file.folder_name",
        "file.relative",
        "file.root",
        "file.size",
        "file.modified",
        "event.id",
        "event.type",
        "event.key",
        "event.time",
        "rule.name",
        "rule.description",
        "host",
        "now",
        "data",
        "file",
    ] {
        file.knows(&path(known)).unwrap();
    }
    let job = Vocabulary::of(&[TriggerWord::Job], None);
    for known in [
        "job.exit_code",
        "job.signal",
        "job.recovered",
        "job.log",
        "job.entry",
        "job.timed_out",
    ] {
        job.knows(&path(known)).unwrap();
    }
    let trouble = Vocabulary::of(&[TriggerWord::Trouble], None);
    for known in [
        "trouble.kind",
        "trouble.steps",
        "trouble.steps.0",
        "trouble.since",
    ] {
        trouble.knows(&path(known)).unwrap();
    }
}

#[test]
fn a_mistyped_fact_is_answered_with_the_one_meant() {
    let file = Vocabulary::of(&[TriggerWord::FileArrives], None);
    assert_eq!(hint(&file, "file.nmae"), "did you mean `file.name`?");
    assert_eq!(hint(&file, "fiel.name"), "did you mean `file`?");
    assert_eq!(hint(&file, "size"), "did you mean `file.size`?");
    assert_eq!(message(&file, "file.nmae"), "unknown fact `file.nmae`");
    assert_eq!(
        message(&file, "file.name.length"),
        "`file.name` is text and has no part `length`"
    );
}

#[test]
fn a_fact_of_another_trigger_names_that_trigger() {
    let file = Vocabulary::of(&[TriggerWord::FileArrives], None);
    assert_eq!(
        message(&file, "job.name"),
        "no trigger of this rule brings `job`, only `file`"
    );
    assert!(hint(&file, "job.name").contains("`on_failure`"));
    let schedule = Vocabulary::of(&[TriggerWord::Schedule], None);
    assert_eq!(hint(&schedule, "file.name"), "`file_arrives` would bring `file`");
}

#[test]
fn facts_of_any_of_several_triggers_may_be_named_and_are_told_to_be_optional() {
    let both = Vocabulary::of(&[TriggerWord::Schedule, TriggerWord::FileArrives], None);
    both.knows(&path("file.name")).unwrap();
    both.knows(&path("schedule.due")).unwrap();
    assert!(!both.always("file") && both.always("rule"));
    assert_eq!(both.samples().len(), 2);
}

#[test]
fn an_outcome_adds_job_and_keeps_what_the_event_brought() {
    let failure = Vocabulary::of(&[TriggerWord::FileArrives], Some(Branch::Failure));
    failure.knows(&path("job.output_tail")).unwrap();
    failure.knows(&path("file.name")).unwrap();
    assert!(failure.always("job") && failure.always("file"));
    assert!(
        failure
            .samples()
            .iter()
            .all(|sample| sample["job"]["ok"] == false)
    );
    let recovery = Vocabulary::of(&[TriggerWord::Schedule], Some(Branch::Recovery));
    assert_eq!(recovery.samples()[0]["job"]["recovered"], true);
}

#[test]
fn data_is_checked_by_its_real_keys_once_given() {
    let free = Vocabulary::of(&[TriggerWord::Schedule], None);
    free.knows(&path("data.anything.at.all")).unwrap();
    let given = free.with_data(json!({ "team": { "mail": "x@example.org" }, "list": [{ "a": 1 }] }));
    given.knows(&path("data.team.mail")).unwrap();
    given.knows(&path("data.list.0.a")).unwrap();
    assert_eq!(hint(&given, "data.taem"), "did you mean `data.team`?");
    let none = Vocabulary::of(&[TriggerWord::Schedule], None).with_data(Value::Null);
    assert_eq!(hint(&none, "data.team"), "`data` is empty");
}

#[test]
fn facts_of_an_event_are_those_the_vocabulary_promised() {
    let file = FileRef {
        root: "/srv/in".into(),
        relative: "a/b.pdf".into(),
        size: 7,
        mtime_ns: 0,
    };
    let mut rule = rule("invoices");
    rule.data = json!({ "team": "ap" });
    let mut brought = Map::new();
    brought.insert("rule".to_owned(), json!("forged"));
    brought.insert(
        "file".to_owned(),
        json!({ "name": "old.pdf", "changed": true, "lines": 3, "forged": 1 }),
    );
    brought.insert(
        "job".to_owned(),
        serde_json::to_value(JobReport::default()).unwrap(),
    );
    let event = Event {
        id: EventId(5),
        happening: NewEvent {
            key: "k".to_owned(),
            kind: Kind::JobSucceeds,
            source: String::new(),
            subject: "invoices".to_owned(),
            time: "2026-07-01T10:00:00Z".parse().unwrap(),
            facts: brought,
            file: Some(file),
            origin: None,
            case: None,
        },
        recorded: Timestamp::UNIX_EPOCH,
        recovers: true,
    };
    let surroundings = Surroundings {
        host: "h".to_owned(),
        now: "2026-07-01T12:00:01+02:00[Europe/Berlin]".parse().unwrap(),
    };
    let facts = facts(&event, &rule, &surroundings);
    assert_eq!(facts["file"]["name"], "b.pdf", "the file's present place");
    assert_eq!(
        facts["file"]["lines"], 3,
        "what was read of it stays when it moves"
    );
    assert_eq!(facts["file"]["forged"], Value::Null);
    assert_eq!(facts["rule"]["name"], "invoices", "nobody speaks as the rule");
    assert_eq!(facts["job"]["recovered"], true);
    assert_eq!(facts["event"]["time"], "2026-07-01T12:00:00+02:00");
    assert_eq!(facts["now"], "2026-07-01T12:00:01+02:00");
    assert_eq!(facts["data"]["team"], "ap");
    assert_eq!(facts["host"], "h");

    let promised = Vocabulary::of(&[TriggerWord::FileArrives], Some(Branch::Success)).samples();
    for (root, value) in promised[0].as_object().unwrap() {
        let Some(parts) = value.as_object() else { continue };
        // What stands in the file is read where a rule asks for it.
        let read = |part: &&String| root == "file" && demand::sample().iter().any(|(name, _)| name == part);
        for part in parts.keys().filter(|part| !read(part)) {
            assert!(facts[root].get(part).is_some(), "{root}.{part} was promised");
        }
    }
}

#[test]
fn what_an_event_says_is_for_its_sender_to_know() {
    let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
    let event = Vocabulary::of(&[TriggerWord::Event], None).with_data(json!({ "own": 1 }));
    for known in [
        "data.own",
        "data.any.thing",
        "cloudevent.type",
        "cloudevent.data.x.y",
        "cloudevent.extensions.z",
    ] {
        assert!(event.knows(&path(known)).is_ok(), "{known}");
    }
    assert!(event.knows(&path("cloudevent.tpye")).is_err());
    let file = Vocabulary::of(&[TriggerWord::FileArrives], None).with_data(json!({ "own": 1 }));
    assert!(file.knows(&path("data.any")).is_err());
    let unknown = file.knows(&path("cloudevent.type")).unwrap_err();
    assert!(unknown.hint.unwrap().contains("`event` would bring"));
}

#[test]
fn the_rules_own_data_lies_over_what_an_event_says() {
    let said = json!({ "data": { "a": 1, "b": { "c": 2 } } });
    assert_eq!(
        data(Some(&said), &json!({ "a": 9 })),
        json!({ "a": 9, "b": { "c": 2 } })
    );
    assert_eq!(
        data(Some(&said), &Value::Null),
        json!({ "a": 1, "b": { "c": 2 } })
    );
    assert_eq!(data(Some(&json!({ "data": "a text" })), &Value::Null), json!({}));
    assert_eq!(data(None, &json!({ "a": 9 })), json!({ "a": 9 }));
}

proptest! {
    #[test]
    fn no_path_makes_knows_panic(parts in proptest::collection::vec("[a-z0-9.]{0,8}", 0..6)) {
        let _ = Vocabulary::of(&TriggerWord::ALL, None).knows(&parts);
    }
}
