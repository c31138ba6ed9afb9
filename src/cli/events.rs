//! `tidings events`: what happened, and what each rule made of it.

use super::{Exit, Global, out, outbox, show, tell};
use crate::event::{Event, EventId};
use crate::store::{EventDetail, EventFilter, Store};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Options of `tidings events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The events, newest first
    List {
        /// Only those of this type (`file_arrives`, `job_fails`, ..)
        #[arg(long = "type", value_parser = kind)]
        kind: Option<crate::event::Kind>,
        /// Only those about this file, job or rule
        #[arg(long)]
        subject: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// All about one event: its facts, what each rule decided, what became of it
    Show {
        /// Its number
        id: i64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

fn kind(word: &str) -> Result<crate::event::Kind, String> {
    crate::event::Kind::parse(word)
        .ok_or_else(|| "the types are file_arrives, schedule, job_succeeds, job_fails, trouble".to_owned())
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    let (_, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    match args.command {
        Command::List {
            kind,
            subject,
            limit,
            json,
        } => {
            let filter = EventFilter {
                kind,
                subject,
                limit,
                ..EventFilter::default()
            };
            list(&store, filter, json).await
        }
        Command::Show { id, json } => one(&store, EventId(id), json).await,
    }
}

async fn list(store: &Store, filter: EventFilter, as_json_too: bool) -> Exit {
    let found = match store.events(filter).await {
        Ok(found) => found,
        Err(error) => return super::store_failed(&error),
    };
    if as_json_too {
        for event in &found {
            out(as_json(event));
        }
        return Exit::Done;
    }
    if found.is_empty() {
        tell("nothing there");
        return Exit::Done;
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|event| {
            vec![
                event.id.to_string(),
                show::when(event.happening.time, now),
                event.happening.kind.as_str().to_owned(),
                show::clean(&event.happening.subject),
            ]
        })
        .collect();
    out(show::table(&["ID", "WHEN", "TYPE", "WHAT"], &rows));
    Exit::Done
}

/// An event as JSON.
pub fn as_json(event: &Event) -> Value {
    json!({
        "id": event.id, "type": event.happening.kind.as_str(), "key": event.happening.key,
        "subject": event.happening.subject, "time": event.happening.time.to_string(),
        "recorded": event.recorded.to_string(), "facts": event.happening.facts,
        "origin": event.happening.origin, "recovers": event.recovers,
    })
}

/// An event as JSON, with what each rule made of it and what became of that.
pub fn detail_json(detail: &EventDetail) -> Value {
    let mut value = as_json(&detail.event);
    value["dispatched"] = json!(detail.dispatched.map(|time| time.to_string()));
    value["rules"] = detail
        .verdicts
        .iter()
        .map(|verdict| json!({ "rule": verdict.rule, "outcome": verdict.outcome, "detail": verdict.detail }))
        .collect();
    value["entries"] = detail.entries.iter().map(outbox::as_json).collect();
    value
}

async fn one(store: &Store, id: EventId, as_json_too: bool) -> Exit {
    match store.event(id).await {
        Ok(Some(detail)) if as_json_too => {
            out(format_args!("{:#}", detail_json(&detail)));
            Exit::Done
        }
        Ok(Some(detail)) => {
            out(described(&detail, Timestamp::now()));
            Exit::Done
        }
        Ok(None) => {
            tell(format_args!("error: there is no event {id}"));
            Exit::BadInput
        }
        Err(error) => super::store_failed(&error),
    }
}

/// What happened, what each rule made of it, what became of that: for the service desk.
pub fn described(detail: &EventDetail, now: Timestamp) -> String {
    let event = &detail.event;
    let mut lines = vec![
        format!(
            "Event {}  {}  {}",
            event.id,
            event.happening.kind.as_str(),
            show::clean(&event.happening.subject)
        ),
        format!(
            "  happened  {} ({})",
            show::local(event.happening.time),
            show::when(event.happening.time, now)
        ),
        format!("  recorded  {}", show::local(event.recorded)),
    ];
    if let Some(origin) = &event.happening.origin {
        lines.push(format!(
            "  because   rule {} worked on event {}",
            show::clean(&origin.rule),
            origin.event
        ));
    }
    if detail.dispatched.is_none() {
        lines.push("  rules     not asked yet: no daemon runs, or it is about to".to_owned());
    } else if detail.verdicts.is_empty() {
        lines.push("  rules     none of the rules there were then is about this".to_owned());
    }
    for verdict in &detail.verdicts {
        let detail = show::clean(&verdict.detail);
        let said = match verdict.outcome.as_str() {
            "fired" if detail.is_empty() => "fired".to_owned(),
            "fired" => format!("fired ({detail})"),
            "condition_false" => format!("did not fire: its condition said no ({detail})"),
            "failed" => format!("failed: {detail}"),
            other => format!("{other} ({detail})"),
        };
        lines.push(format!("  rule {}: {said}", show::clean(&verdict.rule)));
    }
    for entry in &detail.entries {
        let why = entry.reason.as_ref().map(|reason| {
            let server = reason
                .reply
                .as_ref()
                .map(|reply| format!(" [{}]", show::clean(reply)));
            format!(" - {}{}", show::clean(&reason.text), server.unwrap_or_default())
        });
        lines.push(format!(
            "  entry {}: {} {}{}",
            entry.id,
            entry.state.as_str(),
            outbox::what(entry),
            why.unwrap_or_default()
        ));
    }
    lines.join("\n")
}
