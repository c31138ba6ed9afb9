//! `tidings status`: what is watched and how, what waits, what needs a person.

use super::{Exit, Global, out, show};
use crate::app::alive;
use crate::clock::Clock;
use crate::entry::{Kind, State};
use crate::rule::load;
use crate::source::file::status::{MARKS, mark};
use crate::source::running::{self, Running};
use crate::store::lock::Lock;
use crate::store::{Case, Store, StoreError};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Options of `tidings status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

struct Status {
    running: Option<(u32, String, Timestamp)>,
    watches: Vec<Value>,
    /// Marks of the watches in the setup as it is on disk, if it is sound.
    configured: Option<Vec<String>>,
    schedules: Vec<(String, Option<Timestamp>)>,
    counts: BTreeMap<(Kind, State), u64>,
    pending: bool,
    cases: Vec<Case>,
    paused: Vec<super::pause::Waiting>,
    setup: Result<(usize, usize), usize>,
    reload: Option<Value>,
    jobs: Vec<Running>,
    alive: Option<Value>,
}

/// Does it. Changes nothing: where there is no state yet it makes none, so that somebody who looks first,
/// as another user, does not stand in the way of the daemon.
pub async fn run(global: &Global, args: Args) -> Exit {
    let settings = match super::settings(global).await {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let mut status = beside(global, &settings.state).await;
    if settings.outbox.store.exists() {
        let gathered = match Store::open(&settings.outbox.store, Clock::system()).await {
            Ok(store) => gather(&mut status, &store).await,
            Err(error) => Err(error),
        };
        if let Err(error) = gathered {
            return super::store_failed(&error);
        }
    }
    if settings.alive.is_none() {
        // What is left of a former setting says nothing.
        status.alive = None;
    }
    if args.json {
        out(format_args!("{:#}", as_json(&status)));
    } else {
        out(described(&status, Timestamp::now()));
    }
    Exit::Done
}

/// What can be said without the store.
async fn beside(global: &Global, state: &std::path::Path) -> Status {
    let dir = global.setup();
    let setup = tokio::task::spawn_blocking(move || load::load(&dir, load::Away::BadLuck)).await;
    let mut status = Status {
        running: Lock::holder(state).map(|held| (held.pid, held.what, held.since)),
        watches: Vec::new(),
        configured: None,
        schedules: Vec::new(),
        counts: BTreeMap::new(),
        pending: false,
        cases: Vec::new(),
        paused: Vec::new(),
        setup: Err(1),
        reload: None,
        jobs: Vec::new(),
        alive: None,
    };
    match setup {
        Ok(Ok(setup)) => {
            let now = Timestamp::now();
            status.schedules = crate::app::schedules_of(&setup.rules)
                .into_iter()
                .map(|(rule, schedule)| (rule, schedule.next(now)))
                .collect();
            status.configured = Some(setup.watches.iter().map(|watch| mark(&watch.id)).collect());
            status.setup = Ok((setup.rules.len(), setup.settings.accounts.len()));
        }
        Ok(Err(problems)) => status.setup = Err(problems.len()),
        Err(_) => {}
    }
    status
}

async fn gather(status: &mut Status, store: &Store) -> Result<(), StoreError> {
    // While something runs it knows what it watches; else what a former setup watched is of no interest.
    let configured = status.configured.as_ref().filter(|_| status.running.is_none());
    status.watches = store
        .marks(MARKS)
        .await?
        .into_iter()
        .filter(|(key, _)| configured.is_none_or(|configured| configured.contains(key)))
        .map(|(_, mark)| mark)
        .collect();
    status.counts = store.counts().await?;
    status.pending = !store.pending_events(1).await?.is_empty();
    status.cases = store.open_cases().await?;
    status.paused = super::pause::all(store, Timestamp::now()).await?;
    status.jobs = running::list(store).await?;
    status.alive = store.marks(alive::MARK).await?.pop().map(|(_, mark)| mark);
    status.reload = store.marks("reload").await?.pop().map(|(_, mark)| mark);
    Ok(())
}

fn as_json(status: &Status) -> Value {
    json!({
        "running": status.running.as_ref().map(|(pid, what, since)| {
            json!({ "pid": pid, "what": what, "since": since.to_string() })
        }),
        "setup": match status.setup {
            Ok((rules, accounts)) => json!({ "ok": true, "rules": rules, "accounts": accounts }),
            Err(problems) => json!({ "ok": false, "problems": problems }),
        },
        "watches": status.watches,
        "schedules": status.schedules.iter().map(|(rule, next)| {
            json!({ "rule": rule, "next": next.map(|time| time.to_string()) })
        }).collect::<Vec<_>>(),
        "outbox": status.counts.iter().map(|((kind, state), count)| {
            json!({ "kind": kind.as_str(), "state": state.as_str(), "count": count })
        }).collect::<Vec<_>>(),
        "jobs": status.jobs.iter().map(|job| json!({
            "name": job.name, "since": job.started.to_string(), "entry": job.entry,
            "host": job.process.as_ref().map(|process| &process.host),
            "pid": job.process.as_ref().map(|process| process.pid),
        })).collect::<Vec<_>>(),
        "alive": status.alive,
        "events_pending": status.pending,
        "paused": status.paused.iter().map(super::pause::Waiting::as_json).collect::<Vec<_>>(),
        "troubles": status.cases.iter().map(|case| json!({
            "key": case.key, "kind": case.kind, "subject": case.subject, "reason": case.reason,
            "since": case.opened.to_string(),
        })).collect::<Vec<_>>(),
        "last_reload": status.reload,
    })
}

/// Troubles shown in full to a person; a template that fails may hold thousands of mails.
const TROUBLES: usize = 20;

fn described(status: &Status, now: Timestamp) -> String {
    let mut lines = Vec::new();
    lines.push(match &status.running {
        Some((pid, what, since)) => {
            format!(
                "running: {} (process {pid}, since {})",
                show::clean(what),
                show::when(*since, now)
            )
        }
        None => "not running".to_owned(),
    });
    lines.push(match status.setup {
        Ok((rules, accounts)) => format!(
            "setup: {}, {}",
            show::count(rules as u64, "rule"),
            show::count(accounts as u64, "account")
        ),
        Err(problems) => format!(
            "setup: {} (tidings check); {}",
            show::count(problems as u64, "problem"),
            match status.running {
                Some(_) => "what runs is the set before",
                None => "nothing can run until that is mended",
            }
        ),
    });
    if let Some(reload) = &status.reload
        && reload.get("ok") == Some(&Value::Bool(false))
    {
        let at = reload.get("at").and_then(Value::as_str).unwrap_or_default();
        lines.push(format!("last reload: refused at {at} (tidings check)"));
    }
    if !status.watches.is_empty() {
        // What a look left behind is no proof that anybody looks now.
        let heading = if status.running.is_some() {
            "watches:"
        } else {
            "watches, as they were last seen:"
        };
        lines.push(heading.to_owned());
        lines.extend(status.watches.iter().map(super::run::watch_line));
    }
    if !status.schedules.is_empty() {
        lines.push("schedules:".to_owned());
        for (rule, next) in &status.schedules {
            let next = next.map_or("never again".to_owned(), |time| {
                format!("next {} ({})", show::local(time), show::when(time, now))
            });
            lines.push(format!("  {}: {next}", show::clean(rule)));
        }
    }
    if !status.paused.is_empty() {
        lines.push("paused:".to_owned());
        let paused = status.paused.iter();
        lines.extend(paused.map(|each| format!("  {}", each.described(now))));
    }
    if !status.jobs.is_empty() {
        lines.push("jobs that run:".to_owned());
        for job in &status.jobs {
            let who = match (&job.entry, &job.process) {
                (Some(entry), _) => format!("entry {entry}"),
                (None, Some(process)) => {
                    format!(
                        "tidings exec, process {} on {}",
                        process.pid,
                        show::clean(&process.host)
                    )
                }
                (None, None) => String::new(),
            };
            let since = show::when(job.started, now);
            lines.push(format!("  {} (since {since}, {who})", show::clean(&job.name)));
        }
    }
    if let Some(alive) = &status.alive {
        let at = alive["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.map_or(String::new(), |at| format!(" ({})", show::when(at, now)));
        lines.push(match alive["text"].as_str() {
            None => format!("dead-man's switch: called{at}"),
            Some(why) => format!("dead-man's switch: {}{at}", show::clean(why)),
        });
    }
    let counted: Vec<String> = status
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|((kind, state), count)| format!("{count} {} {}", kind.as_str(), state.as_str()))
        .collect();
    lines.push(format!(
        "outbox: {}",
        if counted.is_empty() {
            "empty".to_owned()
        } else {
            counted.join(", ")
        }
    ));
    if status.pending {
        lines.push("events wait to be dispatched".to_owned());
    }
    if status.cases.is_empty() {
        lines.push("troubles: none".to_owned());
    } else {
        lines.push("troubles:".to_owned());
        for case in status.cases.iter().take(TROUBLES) {
            let subject = show::clean(&case.subject);
            lines.push(match case.kind.as_str() {
                // Entries name themselves: `mail 12 of rule invoices`.
                "mail" | "rule" => format!("  {subject} (since {})", show::when(case.opened, now)),
                kind => format!("  {kind} {subject} (since {})", show::when(case.opened, now)),
            });
            lines.push(super::outbox::reason_lines(&case.reason, "    "));
        }
        if let Some(more) = status.cases.len().checked_sub(TROUBLES).filter(|more| *more > 0) {
            lines.push(format!(
                "  and {more} more (tidings outbox list --state held, tidings status --json)"
            ));
        }
    }
    lines.join("\n")
}
