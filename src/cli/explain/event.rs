//! An event told: what happened, who noticed, what the rules made of it, what became of that.

use super::Sight;
use super::story::{Lines, Story, Times, long};
use crate::cli::{events, outbox, show};
use crate::entry::{Entry, State};
use crate::event::{Does, Event, Kind};
use crate::store::{EventDetail, Gathering};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// An event with all around it.
#[derive(Debug)]
pub struct Told {
    /// Itself.
    pub detail: EventDetail,
    /// What led to it, the nearest first: the event whose work this is the end of, and so on.
    pub causes: Vec<Event>,
    /// Where it is gathered still, with the number of events there.
    pub gathered: Vec<(Gathering, usize)>,
}

/// A delay between a happening and its record that is worth a word.
const LATE: SignedDuration = SignedDuration::from_secs(10);

/// What happened, in one clause: `the file /srv/drop/a.pdf arrived (1.2 kB)`.
pub fn happened(event: &Event) -> String {
    let subject = &event.happening.subject;
    let fact = |pointer: &str| fact(event, pointer);
    let closes = event
        .happening
        .case
        .as_ref()
        .is_some_and(|step| step.does == Does::Closes);
    let open = |begins: String, ends: String| if closes { ends } else { begins };
    match event.happening.kind {
        Kind::FileArrives => match event.happening.file.as_ref() {
            Some(file) => format!("the file {subject} arrived ({})", show::bytes(file.size)),
            None => format!("the file {subject} arrived"),
        },
        Kind::FileRemoved => format!("the file {subject} was removed"),
        Kind::FileMissing => open(
            format!("a file that was expected had not come: {subject}"),
            format!("a file that had been missing came: {subject}"),
        ),
        Kind::FolderBacklog => open(
            format!("too much lay in {subject}"),
            format!("what lay in {subject} is worked off"),
        ),
        Kind::Schedule => format!("a calendar time of rule {subject} came"),
        Kind::JobSucceeds => match event.recovers {
            true => format!("the job {subject} ended well, for the first time since a failure"),
            false => format!("the job {subject} ended well"),
        },
        Kind::JobFails => match fact("/job/summary") {
            Some(summary) => format!("the job {subject} failed: {summary}"),
            None => format!("the job {subject} failed"),
        },
        Kind::JobMissing => open(
            format!("the job {subject} had not reported"),
            format!("the job {subject} that had been missing reported"),
        ),
        Kind::JobRunsLong => open(
            format!("the job {subject} still ran after the time it should need"),
            format!("the job {subject} that ran too long ended"),
        ),
        Kind::Event => format!("somebody reported: {subject}"),
        Kind::MailHandedIn => format!("a mail was handed in by {subject}"),
        Kind::Trouble => {
            let what = match fact("/trouble/kind") {
                Some("mail" | "rule") | None => subject.clone(),
                Some(kind) => format!("{kind} {subject}"),
            };
            let text = fact("/trouble/text").unwrap_or_default();
            open(
                format!("there was trouble with {what}: {text}"),
                format!("the trouble with {what} was over"),
            )
        }
    }
}

fn fact<'a>(event: &'a Event, pointer: &str) -> Option<&'a str> {
    let (first, rest) = pointer.trim_start_matches('/').split_once('/')?;
    event
        .happening
        .facts
        .get(first)?
        .pointer(&format!("/{rest}"))?
        .as_str()
}

/// Who noticed, and how soon.
pub fn noticed(event: &Event) -> String {
    let happening = &event.happening;
    let mut text = match happening.kind {
        Kind::FileArrives | Kind::FileRemoved => match &happening.file {
            Some(file) => format!("Noticed in the watched folder {}", file.root.display()),
            None => "Noticed in a watched folder".to_owned(),
        },
        Kind::FileMissing | Kind::FolderBacklog => "Noticed by a complete look at the folder".to_owned(),
        Kind::Schedule => "By the clock".to_owned(),
        Kind::JobMissing | Kind::JobRunsLong => "By the clock".to_owned(),
        Kind::JobSucceeds | Kind::JobFails => match &happening.origin {
            Some(origin) => format!(
                "It was the work of rule {} for event {}",
                origin.rule, origin.event
            ),
            None => "Reported by `tidings exec`".to_owned(),
        },
        Kind::Event => "It was reported to tidings".to_owned(),
        Kind::MailHandedIn => match happening.source.as_str() {
            "sendmail" => "By `tidings sendmail`".to_owned(),
            _ => "By the submission listener".to_owned(),
        },
        Kind::Trouble => "Noticed by tidings itself".to_owned(),
    };
    let late = event.recorded.duration_since(happening.time);
    if late > LATE {
        text.push_str(&format!(", and recorded {} after it happened", long(late)));
    }
    if happening
        .facts
        .get("schedule")
        .and_then(|facts| facts.get("missed"))
        == Some(&Value::Bool(true))
    {
        text.push_str(": nothing ran when it was due");
    }
    text.push('.');
    text
}

/// What happened, when, and what led to it.
pub fn happening(told: &Told, times: &Times) -> Lines {
    let event = &told.detail.event;
    let mut lines = Lines::default();
    lines.say(
        0,
        format!(
            "Event {}: {}, {}.",
            event.id,
            happened(event),
            times.at(event.happening.time)
        ),
    );
    lines.say(0, noticed(event));
    for cause in &told.causes {
        lines.say(
            0,
            format!(
                "That came of event {}: {}, {}.",
                cause.id,
                happened(cause),
                times.at(cause.happening.time)
            ),
        );
    }
    lines
}

/// What each rule made of it.
pub fn rules(told: &Told, sight: &Sight) -> Lines {
    let mut lines = Lines::default();
    let detail = &told.detail;
    if detail.event.happening.kind == Kind::MailHandedIn {
        lines.say(0, "Rules are not asked about it: it leaves as it was handed in.");
    } else if detail.dispatched.is_none() {
        lines.say(0, match sight.running {
            true => "The rules have not been asked yet; that takes a moment. If it stays so, look at `tidings status`.",
            false => "The rules have not been asked yet, for tidings is not running: start `tidings run`.",
        });
    } else if detail.verdicts.is_empty() {
        lines.say(0, "None of the rules there were then is about this.");
    }
    for verdict in &detail.verdicts {
        let place = match sight.places.get(&verdict.rule) {
            Some(place) => format!(" [{place}]"),
            None => String::new(),
        };
        let said = events::said(&verdict.outcome, &verdict.detail);
        lines.say(0, format!("rule {}: {said}{place}", verdict.rule));
    }
    for (gathering, count) in &told.gathered {
        let due = match gathering.due {
            Some(due) => format!("until {}", sight.times.at(due)),
            None => "until something else happens".to_owned(),
        };
        lines.say(
            0,
            format!(
                "rule {} keeps it now, with {} in all, {due}",
                gathering.rule,
                show::count(*count as u64, "event")
            ),
        );
    }
    lines
}

/// An entry in a line: `mail 12: accepted 3 hours ago, to ap@example.org: New file: a.pdf`.
pub fn entry(entry: &Entry, times: &Times) -> String {
    let mut text = format!(
        "entry {}: {} {}, {}",
        entry.id,
        entry.state.as_str(),
        times.how_far(entry.changed),
        outbox::what(entry)
    );
    if entry.state == State::Deferred {
        text.push_str(&format!("; tried again {}", times.how_far(entry.due)));
    }
    if let Some(reason) = &entry.reason {
        if reason.text != entry.state.as_str() {
            text.push_str(&format!(" - {}", reason.text));
        }
        if let Some(reply) = &reason.reply {
            text.push_str(&format!(" [{reply}]"));
        }
    }
    text
}

/// What it became.
pub fn became(told: &Told, sight: &Sight) -> Lines {
    let mut lines = Lines::default();
    for each in &told.detail.entries {
        lines.say(0, entry(each, &sight.times));
    }
    if let [one] = told.detail.entries.as_slice() {
        lines.say(0, format!("All about it: `tidings explain mail {}`.", one.id));
    } else if let Some(first) = told.detail.entries.first() {
        lines.say(0, format!("All about one: `tidings explain mail {}`.", first.id));
    }
    lines
}

/// Whether, and why, it led to mails, in one sentence.
fn headline(told: &Told, times: &Times) -> String {
    let event = &told.detail.event;
    let entries = &told.detail.entries;
    let mails = entries
        .iter()
        .filter(|entry| entry.kind == crate::entry::Kind::Mail)
        .count() as u64;
    let fired = told
        .detail
        .verdicts
        .iter()
        .any(|verdict| verdict.outcome == "fired");
    let then = match (told.detail.dispatched, mails, fired) {
        (None, ..) => "the rules have not been asked yet".to_owned(),
        (Some(_), 0, _) if !told.gathered.is_empty() => "what there is to tell is gathered still".to_owned(),
        (Some(_), 0, true) if entries.is_empty() => {
            "a rule fired, and what it led to is forgotten by now".to_owned()
        }
        (Some(_), 0, _) if !entries.is_empty() => "it led to work, and to no mail".to_owned(),
        (Some(_), 0, _) => "it led to no mail".to_owned(),
        (Some(_), count, _) => format!("it led to {}", show::count(count, "mail")),
    };
    format!(
        "Event {}: {} {}; {then}.",
        event.id,
        happened(event),
        times.how_far(event.happening.time)
    )
}

/// All about an event.
pub fn story(told: &Told, sight: &Sight) -> Story {
    let mut story = Story::new(headline(told, &sight.times));
    story.part("What happened", happening(told, &sight.times));
    story.part("What the rules made of it", rules(told, sight));
    story.part("What it became", became(told, sight));
    let mut facts = Lines::default();
    for (group, values) in &told.detail.event.happening.facts {
        leaves(group, values, &mut facts);
    }
    story.part("Its facts", facts);
    for (key, value) in to_json(told).as_object().cloned().unwrap_or_default() {
        story.with(&key, value);
    }
    story
}

/// `file.size = 17`, and what else a condition could have asked for.
fn leaves(path: &str, value: &Value, lines: &mut Lines) {
    const LONGEST: usize = 300;
    match value {
        Value::Object(parts) => {
            for (name, value) in parts {
                leaves(&format!("{path}.{name}"), value, lines);
            }
        }
        Value::String(text) => lines.say(0, format!("{path} = {}", show::cut(text, LONGEST))),
        other => lines.say(0, format!("{path} = {}", show::cut(&other.to_string(), LONGEST))),
    }
}

/// For machines.
pub fn to_json(told: &Told) -> Value {
    let mut value = events::detail_json(&told.detail);
    value["causes"] = told.causes.iter().map(events::as_json).collect();
    value["gathered"] = told
        .gathered
        .iter()
        .map(|(gathering, count)| {
            json!({
                "rule": gathering.rule, "key": gathering.key, "events": count,
                "due": gathering.due.map(|due: Timestamp| due.to_string()),
            })
        })
        .collect();
    value
}
