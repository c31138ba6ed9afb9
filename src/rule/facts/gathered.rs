//! Facts of what was gathered: `group` and `throttle`.

use crate::event::Event;
use crate::rule::gather::{Batch, Folded};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// What every event of a rule says alike, and is not said again for each of a group.
const COMMON: [&str; 4] = ["rule", "host", "now", "data"];

/// One event of a group: its facts, with `subject` (what it is about, in one line) and `time` besides.
pub fn member(event: &Event, facts: &Value) -> Value {
    let mut member = own(facts);
    let text = |path: &str| facts.pointer(path).and_then(Value::as_str);
    let subject = match (text("/file/relative"), text("/job/name")) {
        (_, Some(job)) => match text("/job/summary") {
            Some(summary) if !summary.is_empty() => format!("{job}: {summary}"),
            _ => job.to_owned(),
        },
        (Some(file), None) => file.to_owned(),
        (None, None) => event.happening.subject.clone(),
    };
    member.insert("subject".to_owned(), subject.into());
    member.insert("time".to_owned(), facts["event"]["time"].clone());
    Value::Object(member)
}

fn own(facts: &Value) -> Map<String, Value> {
    let all = facts.as_object().into_iter().flatten();
    all.filter(|(name, _)| !COMMON.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// `group`: what was gathered, and each event of this mail.
pub fn group(batch: &Batch, members: Vec<Value>, zone: &TimeZone) -> Value {
    json!({
        "key": batch.key,
        "count": members.len(),
        "first": stamp(batch.first, zone),
        "last": stamp(batch.last, zone),
        "events": members,
    })
}

/// `throttle`: how many were not told one by one before this mail; 0 mostly.
pub fn throttle(folded: Option<&Folded>, zone: &TimeZone) -> Value {
    json!({
        "folded": folded.map_or(0, |folded| folded.count),
        "since": folded.map(|folded| stamp(folded.since, zone)).unwrap_or_default(),
    })
}

fn stamp(time: Timestamp, zone: &TimeZone) -> String {
    time.display_with_offset(zone.to_offset(time)).to_string()
}

/// Adds realistic ones to sample facts.
pub fn add_samples(facts: &mut Value, groups: bool, throttles: bool) {
    if groups {
        let mut member = own(facts);
        let text = |path: &str| facts.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let subject = text("/job/name").or_else(|| text("/file/relative"));
        member.insert(
            "subject".to_owned(),
            subject.unwrap_or_else(|| "sample".to_owned()).into(),
        );
        member.insert("time".to_owned(), facts["event"]["time"].clone());
        let members = vec![Value::Object(member); 3];
        facts["group"] = json!({
            "key": text("/file/folder").unwrap_or_default(),
            "count": members.len(),
            "first": "2026-03-02T08:26:00+01:00",
            "last": "2026-03-02T08:30:00+01:00",
            "events": members,
        });
    }
    if throttles {
        facts["throttle"] = json!({ "folded": 7, "since": "2026-03-02T07:42:00+01:00" });
    }
}
