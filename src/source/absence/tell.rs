//! Events of what is missing, with the facts that rules and mails speak of. Pure.

use super::backlog::Pile;
use super::expected::{Expected, Open, Step};
use super::running::{Running, Step as Run};
use super::{Expectation, What};
use crate::event::{CaseStep, Does, Event, FileRef, Kind, NewEvent, shown};
use crate::source::job::JobReport;
use crate::store::Case;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// The kinds of events made here.
pub const KINDS: [Kind; 4] = [
    Kind::FileMissing,
    Kind::FolderBacklog,
    Kind::JobMissing,
    Kind::JobRunsLong,
];

fn key(each: &Expectation, which: &str) -> String {
    format!("{}:{}:{which}", each.kind().as_str(), each.id)
}

fn stamp(time: Timestamp, zone: &TimeZone) -> String {
    time.display_with_offset(zone.to_offset(time)).to_string()
}

fn clock_time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%F %H:%M %Z").to_string()
}

/// A time for people, `1 h 5 min`.
fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The event of a deadline that passed, or of what came after it.
pub fn expected(
    each: &Expectation,
    step: &Step,
    by: Option<&Event>,
    file: Option<FileRef>,
    now: Timestamp,
) -> NewEvent {
    let (open, does, late) = match step {
        Step::Opens(open) => (open, Does::Opens, None),
        Step::Closes { open, late, .. } => (open, Does::Closes, Some(*late)),
        Step::GivenUp(open) => (open, Does::Closes, None),
    };
    let case = key(each, &open.deadline.to_string());
    let (subject, facts, text) = match &each.what {
        What::File(expects) => {
            let folder = shown(expects.root.as_os_str());
            let facts = about(
                &expects.expected,
                open,
                late,
                &expects.pattern,
                &folder,
                &each.zone,
            );
            let text = sentence(
                &expects.expected,
                open,
                &each.zone,
                &format!("{} in {folder}", expects.pattern),
            );
            (format!("{} in {folder}", expects.pattern), facts, text)
        }
        What::Job(expects) => {
            let mut facts = about(&expects.expected, open, late, &expects.job, "", &each.zone);
            let text = sentence(
                &expects.expected,
                open,
                &each.zone,
                &format!("a report of {}", expects.job),
            );
            let report = by.and_then(|by| by.happening.facts.get("job").cloned());
            let missing = JobReport {
                name: expects.job.clone(),
                summary: text.clone(),
                ..JobReport::default()
            };
            let job = report.unwrap_or_else(|| serde_json::to_value(&missing).unwrap_or_default());
            facts.insert("job".to_owned(), job);
            (expects.job.clone(), facts, text)
        }
        What::Backlog(..) | What::Running(_) => (String::new(), Map::new(), String::new()),
    };
    let text = match (step, late) {
        (Step::GivenUp(_), _) => "it is not waited for any longer: too many are missing".to_owned(),
        (_, Some(late)) => format!("{subject} came {} late", span(late)),
        (_, None) => text,
    };
    let (key, time) = match (step, does) {
        (Step::Closes { arrival, .. }, _) => (format!("{case}:closed"), arrival.at.max(open.deadline)),
        (_, Does::Closes) => (format!("{case}:closed"), now),
        (_, Does::Opens) => (case.clone(), open.deadline),
    };
    NewEvent {
        key,
        kind: each.kind(),
        // Where nothing came, no rule shall say that it did.
        source: if matches!(step, Step::GivenUp(_)) {
            String::new()
        } else {
            each.id.clone()
        },
        subject,
        time,
        facts,
        file,
        origin: None,
        case: Some(CaseStep {
            key: case,
            does,
            text,
        }),
    }
}

fn sentence(expected: &Expected, open: &Open, zone: &TimeZone, what: &str) -> String {
    let deadline = clock_time(open.deadline, zone);
    if expected.count > 1 {
        format!(
            "{} of {} of {what} came by {deadline} ({})",
            open.found, expected.count, expected.by
        )
    } else {
        format!("{what} did not come by {deadline} ({})", expected.by)
    }
}

fn about(
    expected: &Expected,
    open: &Open,
    late: Option<i64>,
    pattern: &str,
    folder: &str,
    zone: &TimeZone,
) -> Map<String, Value> {
    let facts = json!({
        "match": pattern,
        "folder": folder,
        "by": expected.by,
        "deadline": stamp(open.deadline, zone),
        "count": expected.count,
        "found": open.found,
        "late": late,
        "missing_since": stamp(open.since, zone),
    });
    Map::from_iter([("expected".to_owned(), facts)])
}

/// The event of a backlog that is there, or was cleared.
pub fn backlog(each: &Expectation, does: Does, pile: &Pile, since: Timestamp, now: Timestamp) -> NewEvent {
    let (folder, pattern) = match &each.what {
        What::Backlog(backlog, pattern) => (shown(backlog.root.as_os_str()), pattern.as_str()),
        _ => (String::new(), ""),
    };
    let case = key(each, &since.to_string());
    let oldest = pile
        .oldest
        .as_ref()
        .map(|(path, _)| shown(path.as_os_str()))
        .unwrap_or_default();
    let age = pile.age(now).as_secs();
    let facts = json!({
        "path": folder,
        "match": pattern,
        "count": pile.count,
        "bytes": pile.bytes,
        "oldest": oldest,
        "oldest_age": age,
        "since": stamp(since, &each.zone),
        "cleared": does == Does::Closes,
    });
    let text = match does {
        Does::Opens => format!(
            "{} files lie in {folder}, the oldest for {}",
            pile.count,
            span(i64::try_from(age).unwrap_or(i64::MAX))
        ),
        Does::Closes => format!("{folder} is cleared; {} files lie there", pile.count),
    };
    NewEvent {
        key: if does == Does::Opens {
            case.clone()
        } else {
            format!("{case}:closed")
        },
        kind: each.kind(),
        source: each.id.clone(),
        subject: folder,
        time: now,
        facts: Map::from_iter([("folder".to_owned(), facts)]),
        file: None,
        origin: None,
        case: Some(CaseStep {
            key: case,
            does,
            text,
        }),
    }
}

/// The event of a job that runs too long, or has ended since.
pub fn running(each: &Expectation, step: &Run, now: Timestamp) -> NewEvent {
    let (run, does): (&Running, Does) = match step {
        Run::Opens(run) => (run, Does::Opens),
        Run::Closes(run) => (run, Does::Closes),
    };
    let case = key(each, &run.id);
    let seconds = now.duration_since(run.started).as_secs().max(0);
    let summary = match does {
        Does::Opens => format!("still runs after {}", span(seconds)),
        Does::Closes => format!("ended after {}", span(seconds)),
    };
    let report = JobReport {
        name: run.name.clone(),
        attempt: 1,
        duration: seconds as f64,
        started: stamp(run.started, &each.zone),
        ended: if does == Does::Closes {
            stamp(now, &each.zone)
        } else {
            String::new()
        },
        summary: summary.clone(),
        ..JobReport::default()
    };
    let mut job = serde_json::to_value(&report).unwrap_or_default();
    job["running_for"] = json!(seconds);
    NewEvent {
        key: if does == Does::Opens {
            case.clone()
        } else {
            format!("{case}:closed")
        },
        kind: each.kind(),
        source: each.id.clone(),
        subject: run.name.clone(),
        time: now,
        facts: Map::from_iter([("job".to_owned(), job)]),
        file: None,
        origin: None,
        case: Some(CaseStep {
            key: case,
            does,
            text: format!("{} {summary}", run.name),
        }),
    }
}

/// The event that ends the case of a rule that is gone, or says something else now.
pub fn forgotten(kind: Kind, case: &Case, now: Timestamp) -> NewEvent {
    NewEvent {
        key: format!("{}:closed", case.key),
        kind,
        source: String::new(),
        subject: case.subject.clone(),
        time: now,
        facts: Map::new(),
        file: None,
        origin: None,
        case: Some(CaseStep {
            key: case.key.clone(),
            does: Does::Closes,
            text: "no rule expects this any more: it was changed or removed".to_owned(),
        }),
    }
}
