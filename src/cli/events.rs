//! `tidings events`: what happened, and what each rule made of it.

use super::{Exit, Global, out, outbox, show, tell};
use crate::event::{Event, EventId};
use crate::store::{EventDetail, EventFilter, Store, StoreError};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Options of `tidings events`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The events, newest first
    List(List),
    /// All about one event: its facts, what each rule decided, what became of it
    Show {
        /// Its number
        id: i64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those of this type (`file_arrives`, `job_fails`, ..)
    #[arg(long = "type", visible_alias = "kind", value_parser = kind)]
    kind: Option<crate::event::Kind>,
    /// Only those this rule was asked about
    #[arg(long)]
    rule: Option<String>,
    /// Only those about this file, job or rule; a part of its name will do
    #[arg(long)]
    subject: Option<String>,
    /// Only those that opened or closed this case (`account:office`, `mail:17`)
    #[arg(long)]
    case: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// What each rule made of them, and what became of that
    #[arg(long, short)]
    verbose: bool,
    /// Go on: print each event as it is recorded, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

fn kind(word: &str) -> Result<crate::event::Kind, String> {
    crate::event::Kind::parse(word).ok_or_else(|| {
        let known: Vec<_> = crate::event::Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("the types are {}", known.join(", "))
    })
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    let (_, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let done = match args.command {
        None if args.list.follow => follow(&store, &args.list).await,
        None => list(&store, &args.list).await,
        Some(Command::List(list)) if list.follow => follow(&store, &list).await,
        Some(Command::List(args)) => list(&store, &args).await,
        Some(Command::Show { id, json }) => one(&store, EventId(id), json).await,
    };
    done.unwrap_or_else(|error| super::store_failed(&error))
}

impl List {
    fn filter(&self) -> EventFilter {
        EventFilter {
            kind: self.kind,
            subject: self.subject.clone(),
            case: self.case.clone(),
            rule: self.rule.clone(),
            limit: self.limit,
            ..EventFilter::default()
        }
    }
}

async fn list(store: &Store, args: &List) -> Result<Exit, StoreError> {
    let found = store.events(args.filter()).await?;
    if found.is_empty() && !args.json {
        tell("nothing there");
        return Ok(Exit::Done);
    }
    if args.verbose {
        for event in &found {
            print(store, event.id, args).await?;
        }
    } else if args.json {
        for event in &found {
            out(as_json(event));
        }
    } else {
        let now = Timestamp::now();
        let rows: Vec<Vec<String>> = found.iter().map(|event| row(event, now)).collect();
        out(show::table(&["ID", "WHEN", "TYPE", "WHAT"], &rows));
    }
    Ok(Exit::Done)
}

/// One event with its verdicts and entries.
async fn print(store: &Store, id: EventId, args: &List) -> Result<(), StoreError> {
    match store.event(id).await? {
        Some(detail) if args.json => out(detail_json(&detail)),
        Some(detail) => out(format_args!("{}\n", described(&detail, Timestamp::now()))),
        None => {}
    }
    Ok(())
}

fn row(event: &Event, now: Timestamp) -> Vec<String> {
    let subject = show::clean(&event.happening.subject);
    vec![
        event.id.to_string(),
        show::when(event.happening.time, now),
        event.happening.kind.as_str().to_owned(),
        match &event.happening.case {
            Some(case) => format!("{subject} ({} {})", case.does.as_str(), show::clean(&case.key)),
            None => subject,
        },
    ]
}

/// Time between two looks at the journal.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// An event is printed once the rules have been asked; one that nobody dispatches is not waited for longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Prints what is recorded from now on, oldest first, each once the rules have been asked about it.
async fn follow(store: &Store, args: &List) -> Result<Exit, StoreError> {
    let last = EventFilter {
        limit: 1,
        ..EventFilter::default()
    };
    let mut seen = store.events(last).await?.first().map_or(0, |event| event.id.0);
    tell(format_args!("following what comes after event {seen}"));
    loop {
        let news = EventFilter {
            after: Some(EventId(seen)),
            limit: 100,
            // Which rules are asked is known a moment later.
            rule: None,
            ..args.filter()
        };
        for event in store.events(news).await? {
            let detail = asked(store, event.id).await?;
            seen = event.id.0;
            let Some(detail) = detail else { continue };
            let concerns = |rule: &String| detail.verdicts.iter().any(|verdict| verdict.rule == *rule);
            if !args.rule.as_ref().is_none_or(concerns) {
                continue;
            }
            match (args.json, args.verbose) {
                (true, true) => out(detail_json(&detail)),
                (true, false) => out(as_json(&detail.event)),
                (false, true) => out(format_args!("{}\n", described(&detail, Timestamp::now()))),
                (false, false) => {
                    let time = show::local(detail.event.happening.time);
                    let row = row(&detail.event, Timestamp::now());
                    out(format_args!("{}  {time}  {}  {}", row[0], row[2], row[3]));
                }
            }
        }
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                let _ = interrupted;
                return Ok(Exit::Done);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The event as it is once the rules have been asked, or after a while.
async fn asked(store: &Store, id: EventId) -> Result<Option<EventDetail>, StoreError> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let detail = store.event(id).await?;
        let waits = detail.as_ref().is_some_and(|detail| detail.dispatched.is_none());
        if !waits || tokio::time::Instant::now() >= until {
            return Ok(detail);
        }
        tokio::time::sleep(LOOK / 5).await;
    }
}

/// An event as JSON.
pub fn as_json(event: &Event) -> Value {
    json!({
        "id": event.id, "type": event.happening.kind.as_str(), "key": event.happening.key,
        "subject": event.happening.subject, "time": event.happening.time.to_string(),
        "recorded": event.recorded.to_string(), "facts": event.happening.facts,
        "case": event.happening.case.as_ref().map(|case| {
            json!({ "key": case.key, "does": case.does.as_str(), "text": case.text })
        }),
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

async fn one(store: &Store, id: EventId, as_json_too: bool) -> Result<Exit, StoreError> {
    match store.event(id).await? {
        Some(detail) if as_json_too => {
            out(format_args!("{:#}", detail_json(&detail)));
            Ok(Exit::Done)
        }
        Some(detail) => {
            out(described(&detail, Timestamp::now()));
            Ok(Exit::Done)
        }
        None => {
            tell(format_args!("error: there is no event {id}"));
            Ok(Exit::BadInput)
        }
    }
}

/// What a rule made of an event, to follow its name: `did not fire: its condition said no (..)`.
pub fn said(outcome: &str, detail: &str) -> String {
    let because = |text: String| match detail {
        "" => text,
        detail => format!("{text} ({detail})"),
    };
    match (outcome, detail) {
        ("failed", detail) if !detail.is_empty() => format!("failed: {detail}"),
        ("condition_false", _) => because("did not fire: its condition said no".to_owned()),
        ("grouped", _) => because("gathers it, to tell it together with others".to_owned()),
        ("throttled", _) => because("did not tell it at once: it has told enough for a while".to_owned()),
        ("quiet", _) => because("keeps it until its quiet hours are over".to_owned()),
        ("fuse", _) => {
            because("keeps it back: its fuse went out, too much was told in a short time".to_owned())
        }
        ("paused", _) => because("did not tell it: it is paused".to_owned()),
        ("not_told", _) => because("told nobody".to_owned()),
        (word, _) => because(word.replace('_', " ")),
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
        let said = show::clean(&said(&verdict.outcome, &verdict.detail));
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
