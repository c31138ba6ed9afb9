//! Realistic values, one set for each way an event comes about: what texts are tried out with.

use super::case::CaseFacts;
use super::word::TriggerWord;
use crate::event::FileRef;
use crate::rule::demand;
use crate::source::job::JobReport;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The same trouble when it is over.
pub(super) fn over(facts: &Value) -> Value {
    let mut facts = facts.clone();
    facts["trouble"]["ended"] = json!("2026-03-02T08:29:30+01:00");
    facts["trouble"]["lasted"] = json!(570);
    facts
}

pub(super) fn case() -> Value {
    json!(CaseFacts {
        key: "account:office".to_owned(),
        opened: "2026-03-02T08:20:00+01:00".to_owned(),
        open_for: 600,
        reminder: 0,
        escalation: 0,
    })
}

pub(super) fn file_ref() -> FileRef {
    FileRef {
        root: PathBuf::from("/srv/drop/invoices"),
        relative: PathBuf::from("2026/invoice-0815.pdf"),
        size: 48_213,
        mtime_ns: 1_772_436_600_000_000_000,
    }
}

pub(super) fn file(changed: bool) -> Value {
    let mut facts = file_ref().facts();
    facts["changed"] = json!(changed);
    for (name, value) in demand::sample() {
        facts[name] = value;
    }
    facts
}

pub(super) fn set() -> Value {
    let member = |extension: &str| FileRef {
        relative: PathBuf::from(format!("2026/invoice-0815.{extension}")),
        ..file_ref()
    };
    let facts = |file: FileRef| file.facts();
    json!({
        "file": file(false),
        "files": [facts(file_ref()), facts(member("sig")), facts(member("xml"))],
        "set": { "key": "invoice-0815", "count": 3 },
    })
}

/// What an absence brings, while it lasts or when it is over.
pub(super) fn absent(trigger: TriggerWord, over: bool) -> (&'static str, Value) {
    let expected = |pattern: &str, folder: &str| {
        json!({
            "match": pattern, "folder": folder, "by": "07:00, mon-fri except holidays",
            "deadline": "2026-03-02T07:00:00+01:00", "count": 1, "found": u8::from(over),
            "late": if over { json!(5400) } else { Value::Null }, "missing_since": "2026-03-02T07:00:00+01:00",
        })
    };
    match trigger {
        TriggerWord::FolderBacklog => (
            if over {
                "the backlog is cleared"
            } else {
                "there is a backlog"
            },
            json!({ "folder": {
                "path": "/srv/drop/invoices", "match": "*.pdf", "count": if over { 2 } else { 214 }, "bytes": 48_213_000,
                "oldest": "invoice-0815.pdf", "oldest_age": 7_800, "since": "2026-03-02T08:30:00+01:00", "cleared": over,
            }}),
        ),
        TriggerWord::JobRunsLong => {
            let report = JobReport {
                ok: false,
                exit_code: None,
                duration: 3_700.0,
                summary: if over {
                    "ended after 1 h 1 min"
                } else {
                    "still runs after 1 h 1 min"
                }
                .to_owned(),
                output_tail: String::new(),
                log: None,
                command: String::new(),
                entry: None,
                ended: if over { "2026-03-02T03:01:40+01:00" } else { "" }.to_owned(),
                ..sample_job()
            };
            let mut job = job_facts(&report, over);
            job["running_for"] = json!(3_700);
            (
                if over {
                    "the job that ran long has ended"
                } else {
                    "a job runs long"
                },
                json!({ "job": job }),
            )
        }
        TriggerWord::JobMissing => {
            let job = if over {
                ended_well(over)
            } else {
                let report = JobReport {
                    name: "nightly-export".to_owned(),
                    summary: "a report of nightly-export did not come by 2026-03-02 07:00 CET".to_owned(),
                    ..JobReport::default()
                };
                job_facts(&report, false)
            };
            (
                if over {
                    "the missing job reports"
                } else {
                    "a job is missing"
                },
                json!({ "expected": expected("nightly-export", ""), "job": job }),
            )
        }
        _ if over => (
            "the missing file came",
            json!({ "expected": expected("*.pdf", "/srv/drop/invoices"), "file": file_ref().facts() }),
        ),
        _ => (
            "a file is missing",
            json!({ "expected": expected("*.pdf", "/srv/drop/invoices") }),
        ),
    }
}

fn job_facts(report: &JobReport, recovered: bool) -> Value {
    let mut facts = serde_json::to_value(report).unwrap_or_default();
    if let Some(facts) = facts.as_object_mut() {
        facts.insert("recovered".to_owned(), Value::Bool(recovered));
    }
    facts
}

pub(super) fn ended_well(recovered: bool) -> Value {
    job_facts(
        &JobReport {
            ok: true,
            exit_code: Some(0),
            summary: "ended well".to_owned(),
            output_tail: "exported 1204 rows".to_owned(),
            ..sample_job()
        },
        recovered,
    )
}

pub(super) fn failed() -> Value {
    job_facts(&sample_job(), false)
}

pub(super) fn killed() -> Value {
    job_facts(
        &JobReport {
            exit_code: None,
            signal: Some("SIGKILL".to_owned()),
            timed_out: true,
            log: None,
            entry: None,
            summary: "ended by the time limit of 10m".to_owned(),
            ..sample_job()
        },
        false,
    )
}

fn sample_job() -> JobReport {
    JobReport {
        name: "nightly-export".to_owned(),
        ok: false,
        exit_code: Some(3),
        signal: None,
        duration: 12.5,
        attempt: 1,
        summary: "ended with exit code 3".to_owned(),
        output_tail: "connecting to the database\nerror: table orders is locked".to_owned(),
        log: Some("/var/lib/tidings/logs/nightly-export-4711.log".to_owned()),
        started: "2026-03-02T02:00:00+01:00".to_owned(),
        ended: "2026-03-02T02:00:12+01:00".to_owned(),
        command: "/opt/export --full".to_owned(),
        entry: Some(crate::entry::EntryId(4712)),
        ..JobReport::default()
    }
}
