//! `tidings explain`: what would fire and what would be sent, and why a mail was or was not sent.

use super::{Exit, Global, events, out, outbox, show, tell};
use crate::action::StepSpec;
use crate::action::email::{self, Composing, MailSpec};
use crate::action::run::shown_command;
use crate::entry::EntryId;
use crate::event::{Event, EventId, FileRef, Kind, NewEvent};
use crate::rule::demand::Learned;
use crate::rule::facts::{self, Surroundings};
use crate::rule::index::{Branch, Rules, Why};
use crate::rule::load::{self, Setup};
use crate::rule::{Outcome, Rule, Trigger};
use crate::source::job::{self, JobReport};
use crate::source::{Wanted, Watch};
use crate::store::{EventFilter, Store, StoreError};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Options of `tidings explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    about: About,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
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
        return mail(&store, EntryId(id), args.json)
            .await
            .unwrap_or_else(|error| super::store_failed(&error));
    }
    if let About::Event { id } = about {
        return event(&store, EventId(id), args.json)
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
        About::File { path } => file(&setup, &store, &path, args.json).await,
        About::Job {
            name,
            exit,
            after_failure,
        } => {
            job_ended(&setup, &store, &name, exit, after_failure, args.json);
            Ok(Exit::Done)
        }
        About::Mail { .. } | About::Event { .. } => Ok(Exit::Done),
    };
    told.unwrap_or_else(|error| super::store_failed(&error))
}

async fn mail(store: &Store, id: EntryId, as_json: bool) -> Result<Exit, StoreError> {
    let now = Timestamp::now();
    let Some(detail) = store.entry(id).await? else {
        tell(format_args!("error: there is no entry {id}"));
        return Ok(Exit::BadInput);
    };
    let event = match detail.entry.event {
        Some(event) => store.event(event).await?,
        None => None,
    };
    if as_json {
        let event = event.as_ref().map(events::detail_json);
        out(format_args!(
            "{:#}",
            json!({ "event": event, "entry": outbox::detail_json(&detail) })
        ));
        return Ok(Exit::Done);
    }
    if let Some(event) = event {
        out(events::described(&event, now));
        out("");
    }
    out(outbox::described(&detail, now));
    Ok(Exit::Done)
}

async fn event(store: &Store, id: EventId, as_json: bool) -> Result<Exit, StoreError> {
    match store.event(id).await? {
        Some(detail) if as_json => {
            out(format_args!("{:#}", events::detail_json(&detail)));
            Ok(Exit::Done)
        }
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

async fn file(setup: &Setup, store: &Store, path: &Path, as_json: bool) -> Result<Exit, StoreError> {
    let now = Timestamp::now();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let subject = crate::event::shown(path.as_os_str());
    let filter = EventFilter {
        subject: Some(subject.clone()),
        limit: 3,
        ..EventFilter::default()
    };
    let mut came = Vec::new();
    for event in store.events(filter).await? {
        came.extend(store.event(event.id).await?);
    }
    let metadata = std::fs::symlink_metadata(&path).ok();
    let regular = metadata.as_ref().is_none_or(std::fs::Metadata::is_file);
    let (size, mtime_ns) = match &metadata {
        Some(metadata) => (
            metadata.len(),
            metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        ),
        None => (1000, i64::try_from(now.as_nanosecond()).unwrap_or(0)),
    };
    let answers = if regular {
        arrival(setup, store, &path, size, mtime_ns)
    } else {
        Vec::new()
    };
    if as_json {
        let answer = json!({
            "path": subject, "there": metadata.is_some(), "regular": regular, "size": size,
            "came": came.iter().map(events::detail_json).collect::<Vec<_>>(),
            "rules": answers.iter().map(Answer::to_json).collect::<Vec<_>>(),
        });
        out(format_args!("{answer:#}"));
        return Ok(Exit::Done);
    }
    let shown = show::clean(&subject);
    if came.is_empty() {
        out(format_args!("The journal knows of no arrival of {shown}."));
    } else {
        out(format_args!("What became of {shown} (newest first):"));
        for detail in &came {
            out(show::indent(&events::described(detail, now), "  "));
        }
    }
    out(match &metadata {
        Some(_) if !regular => {
            "\nWhat lies there is not a regular file (a folder, a link, a pipe): it is never an arrival."
                .to_owned()
        }
        Some(_) => format!("\nIf it arrived now, as it lies there ({}):", show::bytes(size)),
        None => "\nIf such a file arrived now (nothing lies there; taking 1 kB):".to_owned(),
    });
    for answer in &answers {
        out(answer.described());
    }
    if answers.is_empty() && regular {
        out("  no rule watches that folder; the watched folders are:");
        for watch in &setup.watches {
            out(format_args!("    {}", watch.root.display()));
        }
    }
    Ok(Exit::Done)
}

/// What each rule that watches there makes of such a file.
fn arrival(setup: &Setup, store: &Store, path: &Path, size: u64, mtime_ns: i64) -> Vec<Answer> {
    let mut answers = Vec::new();
    for rule in &setup.rules {
        for trigger in &rule.triggers {
            let Some((watch, wanted)) = trigger.arrival() else {
                continue;
            };
            let Some(watch) = setup.watches.iter().find(|known| known.id == watch) else {
                continue;
            };
            let Ok(relative) = path.strip_prefix(&watch.root) else {
                continue;
            };
            let reference = FileRef {
                root: watch.root.clone(),
                relative: relative.to_owned(),
                size,
                mtime_ns,
            };
            if let (Trigger::FilesTogether { .. }, None) = (trigger, unwanted(wanted, &reference)) {
                let why = "it waits for the files that belong together with this one (`together`)";
                answers.push(Answer::no(rule, why.to_owned()));
                continue;
            }
            let changed = matches!(trigger, Trigger::FileChanges { .. });
            let mut answer = one_rule(setup, store, rule, watch, wanted, reference, changed);
            if answer.fires && changed {
                answer.why = format!("if it was known, and has another content now; {}", answer.why);
            }
            answers.push(answer);
        }
    }
    answers
}

fn one_rule(
    setup: &Setup,
    store: &Store,
    rule: &Rule,
    watch: &Watch,
    wanted: &Wanted,
    file: FileRef,
    changed: bool,
) -> Answer {
    if let Some(why) = unwanted(wanted, &file) {
        return Answer::no(rule, why);
    }
    let mut told = file.facts();
    told["changed"] = json!(changed);
    let happening = NewEvent {
        key: "explain".to_owned(),
        kind: Kind::FileArrives,
        source: watch.id.clone(),
        subject: crate::event::shown(file.path().as_os_str()),
        time: Timestamp::now(),
        facts: Map::from_iter([("file".to_owned(), told)]),
        file: Some(file),
        origin: None,
        case: None,
    };
    decide(setup, store, rule, &supposed(happening, false), None)
}

/// What one rule would make of an event.
struct Answer {
    rule: String,
    place: String,
    fires: bool,
    /// Why it fires or not; may be empty where it fires without a condition.
    why: String,
    /// What it would do, a line each.
    then: Vec<String>,
}

impl Answer {
    fn of(rule: &Rule, fires: bool, why: String) -> Answer {
        Answer {
            rule: rule.name.clone(),
            place: rule.place.clone(),
            fires,
            why,
            then: Vec::new(),
        }
    }

    fn no(rule: &Rule, why: String) -> Answer {
        Answer::of(rule, false, why)
    }

    fn described(&self) -> String {
        let word = if self.fires { "yes" } else { "no" };
        let why = show::clean(&self.why);
        let why = match (self.fires, why.is_empty()) {
            (_, true) => String::new(),
            (true, false) => format!(" ({why})"),
            (false, false) => format!(", {why}"),
        };
        let mut lines = vec![format!(
            "  rule {} ({}): {word}{why}",
            show::clean(&self.rule),
            self.place
        )];
        lines.extend(self.then.iter().map(|line| format!("    {}", show::clean(line))));
        lines.join("\n")
    }

    fn to_json(&self) -> Value {
        json!({ "rule": self.rule, "place": self.place, "fires": self.fires, "why": self.why, "then": self.then })
    }
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

fn job_ended(setup: &Setup, store: &Store, name: &str, exit: i32, after_failure: bool, as_json: bool) {
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
    let rules = Rules::new(setup.rules.clone());
    let answers: Vec<Answer> = rules
        .find(&event)
        .into_iter()
        .map(|found| {
            let branch = match found.why {
                Why::Outcome(branch) => Some(branch),
                Why::Trigger(_) => None,
            };
            decide(setup, store, &found.rule, &event, branch)
        })
        .collect();
    if as_json {
        let rules: Vec<Value> = answers.iter().map(Answer::to_json).collect();
        out(format_args!(
            "{:#}",
            json!({ "job": name, "exit_code": exit, "rules": rules })
        ));
        return;
    }
    out(format_args!(
        "If job {} ended with exit code {exit}:",
        show::clean(name)
    ));
    for answer in &answers {
        out(answer.described());
    }
    if answers.is_empty() {
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
}

/// What a rule makes of an event that might happen.
fn decide(setup: &Setup, store: &Store, rule: &Rule, event: &Event, branch: Option<Branch>) -> Answer {
    let zone = setup.settings.defaults.timezone.clone();
    let surroundings = Surroundings {
        host: crate::app::host(),
        now: Timestamp::now().to_zoned(zone),
    };
    let mut facts = facts::facts(event, rule, &surroundings);
    let mut learned = Learned::default();
    for wish in [&rule.asks.condition, &rule.asks.texts] {
        if let Err(why) = learned.tell(&event.happening, wish, &mut facts) {
            return Answer::no(rule, format!("its facts are not known: {why}"));
        }
    }
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
                return Answer::no(rule, format!("its condition says no ({})", decision.why));
            }
            Some(Err(error)) => {
                return Answer::no(rule, format!("its condition fails: {error}"));
            }
        },
    };
    let mut answer = Answer::of(rule, true, why);
    let (steps, mails): (&[StepSpec], &[MailSpec]) = match outcome {
        Some(outcome) => (&outcome.work, &outcome.mails),
        None => (&rule.work, &rule.mails),
    };
    for step in steps {
        answer.then.push(format!("then {}", step_line(step, &facts)));
    }
    for mail in mails {
        answer.then.push(format!("mail {}", mail_line(mail, &with)));
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
                answer.then.push(format!("if it {name}: {to}"));
            }
        }
    }
    answer
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
