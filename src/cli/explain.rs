//! `tidings explain`: what would fire and what would be sent, and why a mail was or was not sent.

use super::{Exit, Global, events, out, outbox, show, tell};
use crate::action::StepSpec;
use crate::action::email::{self, Composing, MailSpec};
use crate::action::run::shown_command;
use crate::entry::EntryId;
use crate::event::{Event, EventId, FileRef, Kind, NewEvent};
use crate::rule::facts::{self, Surroundings};
use crate::rule::index::{Branch, Rules, Why};
use crate::rule::load::{self, Setup};
use crate::rule::{Outcome, Rule, Trigger};
use crate::source::job::{self, JobReport};
use crate::source::{Wanted, Watch};
use crate::store::{EventFilter, Store, StoreError};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Options of `tidings explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    about: About,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// A file: what became of it if it came, and what each rule makes of it
    File {
        /// Its path; it need not be there
        path: PathBuf,
    },
    /// A job: what would follow if it ended so
    Job {
        /// Its name
        name: String,
        /// Its exit code
        #[arg(long, default_value_t = 1)]
        exit: i32,
        /// As if the run before had failed
        #[arg(long)]
        after_failure: bool,
    },
    /// A mail, or some work: from the event to the server's last word
    Mail {
        /// The entry's number
        id: i64,
    },
    /// An event: which rules saw it and what they made of it
    Event {
        /// Its number
        id: i64,
    },
}

/// Does it. Changes nothing.
pub async fn run(global: &Global, args: Args) -> Exit {
    let (_, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let dir = global.setup();
    let about = args.about;
    if let About::Mail { id } = about {
        return mail(&store, EntryId(id))
            .await
            .unwrap_or_else(|error| super::store_failed(&error));
    }
    if let About::Event { id } = about {
        return event(&store, EventId(id))
            .await
            .unwrap_or_else(|error| super::store_failed(&error));
    }
    let setup = match tokio::task::spawn_blocking(move || load::setup(&dir)).await {
        Ok(Ok(setup)) => setup,
        Ok(Err(problems)) => return super::run::failed(&crate::app::AppError::Setup(problems)),
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    let told = match about {
        About::File { path } => file(&setup, &store, &path).await,
        About::Job {
            name,
            exit,
            after_failure,
        } => {
            job_ended(&setup, &store, &name, exit, after_failure);
            Ok(Exit::Done)
        }
        About::Mail { .. } | About::Event { .. } => Ok(Exit::Done),
    };
    told.unwrap_or_else(|error| super::store_failed(&error))
}

async fn mail(store: &Store, id: EntryId) -> Result<Exit, StoreError> {
    let now = Timestamp::now();
    let Some(detail) = store.entry(id).await? else {
        tell(format_args!("error: there is no entry {id}"));
        return Ok(Exit::BadInput);
    };
    if let Some(event) = detail.entry.event
        && let Some(detail) = store.event(event).await?
    {
        out(events::described(&detail, now));
        out("");
    }
    out(outbox::described(&detail, now));
    Ok(Exit::Done)
}

async fn event(store: &Store, id: EventId) -> Result<Exit, StoreError> {
    match store.event(id).await? {
        Some(detail) => {
            out(events::described(&detail, Timestamp::now()));
            Ok(Exit::Done)
        }
        None => {
            tell(format_args!("error: there is no event {id}"));
            Ok(Exit::BadInput)
        }
    }
}

async fn file(setup: &Setup, store: &Store, path: &Path) -> Result<Exit, StoreError> {
    let now = Timestamp::now();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let subject = crate::event::shown(path.as_os_str());
    let came = store
        .events(EventFilter {
            subject: Some(subject.clone()),
            limit: 3,
            ..EventFilter::default()
        })
        .await?;
    if came.is_empty() {
        out(format_args!(
            "The journal knows of no arrival of {}.",
            show::clean(&subject)
        ));
    } else {
        out(format_args!(
            "What became of {} (newest first):",
            show::clean(&subject)
        ));
        for event in &came {
            if let Some(detail) = store.event(event.id).await? {
                out(show::indent(&events::described(&detail, now), "  "));
            }
        }
    }
    let metadata = std::fs::symlink_metadata(&path);
    match &metadata {
        Ok(metadata) if metadata.is_file() => {
            out(format_args!(
                "\nIf it arrived now, as it lies there ({}):",
                show::bytes(metadata.len())
            ));
        }
        Ok(_) => {
            out(
                "\nWhat lies there is not a regular file (a folder, a link, a pipe): it is never an arrival.",
            );
            return Ok(Exit::Done);
        }
        Err(_) => out("\nIf such a file arrived now (nothing lies there; taking 1 kB):"),
    }
    let (size, mtime_ns) = match metadata {
        Ok(metadata) => (
            metadata.len(),
            metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        ),
        Err(_) => (1000, i64::try_from(now.as_nanosecond()).unwrap_or(0)),
    };
    let mut seen_by_any = false;
    for rule in &setup.rules {
        for trigger in &rule.triggers {
            let Trigger::FileArrives { watch, wanted } = trigger else {
                continue;
            };
            let Some(watch) = setup.watches.iter().find(|known| known.id == *watch) else {
                continue;
            };
            let Ok(relative) = path.strip_prefix(&watch.root) else {
                continue;
            };
            seen_by_any = true;
            let reference = FileRef {
                root: watch.root.clone(),
                relative: relative.to_owned(),
                size,
                mtime_ns,
            };
            one_rule(setup, store, rule, watch, wanted, reference);
        }
    }
    if !seen_by_any {
        out("  no rule watches that folder; the watched folders are:");
        for watch in &setup.watches {
            out(format_args!("    {}", watch.root.display()));
        }
    }
    Ok(Exit::Done)
}

fn one_rule(setup: &Setup, store: &Store, rule: &Rule, watch: &Watch, wanted: &Wanted, file: FileRef) {
    let head = format!("  rule {} ({})", show::clean(&rule.name), rule.place);
    if let Some(why) = unwanted(wanted, &file) {
        out(format_args!("{head}: no, {why}"));
        return;
    }
    let happening = NewEvent {
        key: "explain".to_owned(),
        kind: Kind::FileArrives,
        source: watch.id.clone(),
        subject: crate::event::shown(file.path().as_os_str()),
        time: Timestamp::now(),
        facts: Map::from_iter([("file".to_owned(), file.facts())]),
        file: Some(file),
        origin: None,
    };
    decide(setup, store, rule, &supposed(happening, false), None, &head);
}

/// Why a file is not what a rule looks for.
fn unwanted(wanted: &Wanted, file: &FileRef) -> Option<String> {
    let relative = &file.relative;
    let name = relative.file_name().map(Path::new)?;
    if !wanted.recursive && relative.components().count() > 1 {
        return Some("it lies in a sub-folder, and the rule looks in the folder itself only".to_owned());
    }
    if !wanted.matching.is_match(relative) {
        return Some(format!("its path does not match `{}`", wanted.matching.glob()));
    }
    if wanted.ignore.is_match(relative) || wanted.ignore.is_match(name) {
        return Some("one of its `ignore` patterns leaves it out".to_owned());
    }
    if file.size < wanted.min_size {
        return Some(format!("{} is less than its min_size", show::bytes(file.size)));
    }
    if wanted.max_size.is_some_and(|max| file.size > max) {
        return Some(format!("{} is more than its max_size", show::bytes(file.size)));
    }
    None
}

fn supposed(happening: NewEvent, recovers: bool) -> Event {
    Event {
        id: EventId(0),
        happening,
        recorded: Timestamp::now(),
        recovers,
    }
}

fn job_ended(setup: &Setup, store: &Store, name: &str, exit: i32, after_failure: bool) {
    let now = Timestamp::now().to_string();
    let report = JobReport {
        name: name.to_owned(),
        ok: exit == 0,
        exit_code: Some(exit),
        attempt: 1,
        duration: 1.0,
        summary: format!("ended with exit code {exit}"),
        started: now.clone(),
        ended: now,
        ..JobReport::default()
    };
    let origin = setup
        .rules
        .iter()
        .find(|rule| rule.name == name && !rule.work.is_empty())
        .map(|rule| crate::event::Origin {
            rule: rule.name.clone(),
            event: EventId(0),
        });
    let happening = job::outcome(&report, origin, &Map::new(), None, "explain".to_owned());
    let event = supposed(happening, exit == 0 && after_failure);
    out(format_args!(
        "If job {} ended with exit code {exit}:",
        show::clean(name)
    ));
    let rules = Rules::new(setup.rules.clone());
    let found = rules.find(&event);
    if found.is_empty() {
        let own = setup
            .rules
            .iter()
            .find(|rule| rule.name == name && !rule.work.is_empty());
        match own {
            Some(rule) => out(format_args!(
                "  rule {} runs it ({}) and says nothing of such an end; no other rule is about it",
                show::clean(&rule.name),
                rule.place
            )),
            None => out("  no rule is about it"),
        }
    }
    for found in found {
        let head = format!("  rule {} ({})", show::clean(&found.rule.name), found.rule.place);
        let branch = match found.why {
            Why::Outcome(branch) => Some(branch),
            Why::Trigger(_) => None,
        };
        decide(setup, store, &found.rule, &event, branch, &head);
    }
}

/// What a rule makes of an event that might happen.
fn decide(setup: &Setup, store: &Store, rule: &Rule, event: &Event, branch: Option<Branch>, head: &str) {
    let zone = setup.settings.defaults.timezone.clone();
    let surroundings = Surroundings {
        host: crate::app::host(),
        now: Timestamp::now().to_zoned(zone),
    };
    let facts = facts::facts(event, rule, &surroundings);
    let with = Composing {
        settings: &setup.settings,
        templates: &setup.templates,
        spool: store.spool(),
        rule: &rule.name,
        event: None,
        facts: &facts,
        file: event.happening.file.as_ref(),
        job_log: None,
        now: Timestamp::now(),
        host: &surroundings.host,
    };
    let (outcome, why): (Option<&Outcome>, String) = match branch {
        Some(Branch::Success) => (Some(&rule.on_success), "on_success".to_owned()),
        Some(Branch::Failure) => (Some(&rule.on_failure), "on_failure".to_owned()),
        Some(Branch::Recovery) => (Some(&rule.on_recovery), "on_recovery".to_owned()),
        None => match rule.condition.as_ref().map(|condition| condition.check(&facts)) {
            None => (None, String::new()),
            Some(Ok(decision)) if decision.holds => (None, decision.why),
            Some(Ok(decision)) => {
                out(format_args!(
                    "{head}: no, its condition says no ({})",
                    show::clean(&decision.why)
                ));
                return;
            }
            Some(Err(error)) => {
                out(format_args!("{head}: its condition fails: {error}"));
                return;
            }
        },
    };
    let because = if why.is_empty() {
        String::new()
    } else {
        format!(" ({})", show::clean(&why))
    };
    out(format_args!("{head}: yes{because}"));
    let (steps, mails): (&[StepSpec], &[MailSpec]) = match outcome {
        Some(outcome) => (&outcome.work, &outcome.mails),
        None => (&rule.work, &rule.mails),
    };
    for step in steps {
        out(format_args!("    then {}", show::clean(&step_line(step, &facts))));
    }
    for mail in mails {
        out(format_args!("    mail {}", show::clean(&mail_line(mail, &with))));
    }
    if outcome.is_none() && !rule.work.is_empty() {
        for (name, branch) in [
            ("succeeds", &rule.on_success),
            ("fails", &rule.on_failure),
            ("recovers", &rule.on_recovery),
        ] {
            for mail in &branch.mails {
                let to = match recipients(mail, &with) {
                    Ok(to) => format!("mail to {to}"),
                    Err(why) => format!("a mail that would be held: {why}"),
                };
                out(format_args!("    if it {name}: {}", show::clean(&to)));
            }
        }
    }
}

fn step_line(step: &StepSpec, facts: &Value) -> String {
    let text = |text: &crate::template::Text| text.render(facts).unwrap_or_else(|error| format!("({error})"));
    match step {
        StepSpec::Run(run) => format!(
            "run {}",
            shown_command(&run.command.iter().map(text).collect::<Vec<_>>())
        ),
        StepSpec::Move(to) => format!("move it to {}", text(to)),
        StepSpec::Copy(to) => format!("copy it to {}", text(to)),
        StepSpec::Delete => "delete it".to_owned(),
    }
}

/// Who would get a mail, or why it would be held.
fn recipients(mail: &MailSpec, with: &Composing<'_>) -> Result<String, String> {
    match email::addressed(mail, with) {
        Ok(all) => Ok(all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        Err(reason) => Err(reason.text),
    }
}

fn mail_line(mail: &MailSpec, with: &Composing<'_>) -> String {
    let facts = with.facts;
    let to = match recipients(mail, with) {
        Ok(to) => to,
        Err(why) => return format!("that would be held: {why}"),
    };
    let attached: Vec<_> = mail
        .attach
        .iter()
        .map(|text| text.render(facts).unwrap_or_else(|error| format!("({error})")))
        .collect();
    let attached = if attached.is_empty() {
        String::new()
    } else {
        format!(", with {}", attached.join(", "))
    };
    format!(
        "to {to} from {} by account {}, template {}{attached}",
        mail.from, mail.account, mail.template
    )
}
