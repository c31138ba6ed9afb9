//! `tidings preview`: the mails of a rule as they would leave, with sample facts.

use super::face::{Face as _, Terminal};
use super::{Exit, Global, out, show, tell};
use crate::action::email::{self, Composing, MailSpec};
use crate::clock::Clock;
use crate::entry::Body;
use crate::event::{Event, EventId, FileRef};
use crate::rule::demand::Learned;
use crate::rule::facts::{self, Surroundings};
use crate::rule::guess;
use crate::rule::index::Branch;
use crate::rule::load::{self, Setup};
use crate::rule::{Rule, Trigger};
use crate::store::Store;
use crate::template::{RenderOptions, Text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Options of `tidings preview`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The rule
    rule: String,
    /// Real facts instead of samples: the number of a recorded event, or a file of JSON (facts, or what
    /// `tidings events show --json` prints)
    #[arg(long, alias = "facts", value_name = "ID|FILE")]
    event: Option<String>,
    /// Only the mails of this branch: mail, on_success, on_failure, on_recovery, ..
    #[arg(long)]
    branch: Option<String>,
    /// Show each mail's page in a browser; prints where it was written
    #[arg(long)]
    open: bool,
    /// Write each mail's page as NAME.html into this folder
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Print the whole message as it would go over the wire
    #[arg(long)]
    message: bool,
    /// As JSON, one object a line: addresses, subject, text and page
    #[arg(long, conflicts_with = "message")]
    json: bool,
}

/// What to compose the mails with instead of samples.
#[derive(Debug)]
enum Given {
    /// A recorded event.
    Event(Box<Event>),
    /// Facts somebody wrote down; samples say what is not in them.
    Facts(Value),
}

/// Does it. Sends nothing, keeps nothing.
pub async fn run(global: &Global, args: Args) -> Exit {
    let dir = global.setup();
    let setup = match tokio::task::spawn_blocking(move || load::load(&dir, load::Away::BadLuck)).await {
        Ok(Ok(setup)) => setup,
        Ok(Err(problems)) => return super::run::failed(&crate::app::AppError::Setup(problems)),
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    let Some(rule) = setup.rules.iter().find(|rule| rule.name == args.rule).cloned() else {
        let names = setup.rules.iter().map(|rule| rule.name.as_str());
        let why = super::explain::unknown_rule(&args.rule, names);
        tell(format_args!("error: {}", show::clean(&why)));
        return Exit::BadInput;
    };
    let given = match &args.event {
        Some(given) => match read(global, given).await {
            Ok(given) => Some(given),
            Err(exit) => return exit,
        },
        None => None,
    };
    let scratch = match tempdir("preview") {
        Ok(scratch) => Scratch(scratch),
        Err(error) => {
            tell(format_args!("error: cannot make a temporary folder: {error}"));
            return Exit::CannotCreate;
        }
    };
    let store = match Store::open(&scratch.0.join("preview.db"), Clock::system()).await {
        Ok(store) => store,
        Err(error) => return super::store_failed(&error),
    };
    let shown =
        tokio::task::spawn_blocking(move || previews(&setup, &rule, given.as_ref(), &store, &args)).await;
    drop(scratch);
    match shown {
        Ok(exit) => exit,
        Err(error) => {
            tell(format_args!("error: {error}"));
            Exit::Software
        }
    }
}

/// A recorded event by its number, or facts from a file.
async fn read(global: &Global, given: &str) -> Result<Given, Exit> {
    let refuse = |why: String| {
        tell(format_args!("error: {}", show::clean(&why)));
        Exit::BadInput
    };
    if let Ok(id) = given.parse() {
        let (_, store) = super::open(global).await?;
        return match store.event(EventId(id)).await {
            Ok(Some(detail)) => Ok(Given::Event(Box::new(detail.event))),
            Ok(None) => Err(refuse(format!(
                "there is no event {id}; `tidings events list` shows those there are"
            ))),
            Err(error) => Err(super::store_failed(&error)),
        };
    }
    let text = match std::fs::read_to_string(given) {
        Ok(text) => text,
        Err(error) => return Err(refuse(format!("cannot read {given}: {error}"))),
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(mut all)) => Ok(Given::Facts(match all.remove("facts") {
            Some(facts) => facts,
            None => Value::Object(all),
        })),
        Ok(_) => Err(refuse(format!(
            "{given} holds no facts: a JSON object is expected"
        ))),
        Err(error) => Err(refuse(format!("{given} is not JSON: {error}"))),
    }
}

/// A folder that goes away with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A fresh folder that only we may look into.
fn tempdir(what: &str) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    for number in 0.. {
        let name = format!("tidings-{what}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => {}
            made => return made.map(|()| path),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

/// One place in a rule where mails stand.
struct Place<'a> {
    /// A name to show.
    name: String,
    /// The outcome of work it belongs to.
    branch: Option<Branch>,
    /// What it says of a case that is open: number of the reminder and of the rung.
    case: (u32, usize),
    /// It tells that a case is over.
    over: bool,
    mails: &'a [MailSpec],
}

/// Where a rule's mails stand.
fn places(rule: &Rule) -> Vec<Place<'_>> {
    let place = |name: &str, branch, mails| Place {
        name: name.to_owned(),
        branch,
        case: (0, 0),
        over: false,
        mails,
    };
    let mut all = vec![place("mail", None, rule.mails.as_slice())];
    if rule.ladder.remind.is_some() {
        all.push(Place {
            case: (1, 0),
            ..place("remind", None, rule.mails.as_slice())
        });
    }
    for (number, rung) in (1..).zip(&rule.ladder.escalate) {
        all.push(Place {
            case: (0, number),
            ..place(&format!("escalate-{number}"), None, rung.mails.as_slice())
        });
    }
    for branch in [Branch::Success, Branch::Failure, Branch::Recovery] {
        // Without work, what is over is a case, and the facts are those of the trigger.
        let over = branch == Branch::Recovery && rule.work.is_empty();
        all.push(Place {
            over,
            ..place(
                branch.as_str(),
                (!over).then_some(branch),
                branch.of(rule).mails.as_slice(),
            )
        });
    }
    all
}

/// One mail to be shown.
struct Preview<'a> {
    name: String,
    /// When it would leave: `a file arrives`.
    when: String,
    spec: &'a MailSpec,
    facts: Value,
    /// The file of a recorded event.
    file: Option<&'a FileRef>,
}

/// All mails of a rule, for each branch and each way to get there.
fn wanted<'a>(
    setup: &Setup,
    rule: &'a Rule,
    given: Option<&'a Given>,
    branch: Option<&str>,
) -> Vec<Preview<'a>> {
    let mut all = Vec::new();
    for place in places(rule) {
        let outcome = place.branch;
        if branch.is_some_and(|branch| branch != place.name) {
            continue;
        }
        let ways: Vec<(String, Value, Option<&FileRef>)> = match given {
            Some(Given::Event(event)) => {
                let surroundings = Surroundings {
                    host: crate::app::host(),
                    now: jiff::Timestamp::now().to_zoned(setup.settings.defaults.timezone.clone()),
                };
                let mut facts = facts::facts(event, rule, &surroundings);
                // Where the file is not there any more, the mail shows what it lacks.
                let _ = Learned::default().tell(
                    &setup.settings.ground,
                    &event.happening,
                    &rule.asks.texts,
                    &mut facts,
                );
                let when = format!("event {}: {}", event.id, event.happening.subject);
                vec![(when, facts, event.happening.file.as_ref())]
            }
            other => samples(rule, outcome, place.over)
                .into_iter()
                .map(|(when, mut sample)| {
                    own(&mut sample, rule, outcome);
                    if sample.get("case").is_some() {
                        sample["case"]["reminder"] = json!(place.case.0);
                        sample["case"]["escalation"] = json!(place.case.1);
                    }
                    if let (Value::Object(sample), Some(Given::Facts(Value::Object(given)))) =
                        (&mut sample, other)
                    {
                        sample.extend(given.clone());
                    }
                    (when.to_owned(), sample, None)
                })
                .collect(),
        };
        // With facts of one's own the ways differ in what is not given only.
        let ways = ways
            .into_iter()
            .take(if given.is_some() { 1 } else { usize::MAX });
        for (way, (when, facts, file)) in ways.enumerate() {
            for (number, spec) in place.mails.iter().enumerate() {
                let way = match way {
                    0 => String::new(),
                    more => format!("-{}", more + 1),
                };
                let mut facts = facts.clone();
                if !matches!(given, Some(Given::Event(_))) {
                    guess::fill(&mut facts, spec, &setup.templates);
                }
                all.push(Preview {
                    name: format!("{}-{}-{}{way}", rule.name, place.name, number + 1),
                    when: when.clone(),
                    spec,
                    facts,
                    file,
                });
            }
        }
    }
    all
}

fn previews(setup: &Setup, rule: &Rule, given: Option<&Given>, store: &Store, args: &Args) -> Exit {
    let branch = args.branch.as_deref();
    if let Some(branch) = branch
        && places(rule).iter().all(|place| place.name != branch)
    {
        let known: Vec<_> = places(rule).into_iter().map(|place| place.name).collect();
        tell(format_args!(
            "error: there is no branch `{}`; there are {}",
            show::clean(branch),
            known.join(", ")
        ));
        return Exit::BadInput;
    }
    let mut exit = Exit::Done;
    let all = wanted(setup, rule, given, branch);
    for each in &all {
        if !preview(setup, rule, each, store, args) {
            exit = Exit::BadInput;
        }
    }
    if all.is_empty() {
        tell(match branch {
            Some(branch) => format!("rule `{}` sends no mail in `{}`", rule.name, show::clean(branch)),
            None => format!("rule `{}` sends no mail", rule.name),
        });
    }
    exit
}

/// The facts of each way to get to a mail, and what that way is. Of the ways a job can end, those that start the
/// rule.
fn samples(rule: &Rule, branch: Option<Branch>, over: bool) -> Vec<(&'static str, Value)> {
    // That it is over is neither grouped nor throttled.
    let told = branch != Some(Branch::Recovery);
    let telling = &rule.telling;
    let vocabulary = facts::vocabulary(rule, branch).with_telling(
        told && telling.group.is_some(),
        told && telling.throttle.is_some(),
    );
    let ends = |ok: bool, signal: bool| {
        branch.is_some()
            || rule.triggers.iter().any(|trigger| match trigger {
                Trigger::JobFinishes(_) => !signal,
                Trigger::JobSucceeds(_) | Trigger::JobRecovers(_) => ok,
                // What is over then is that it fails.
                Trigger::JobFails(_) if over => ok,
                Trigger::JobFails(_) => !ok && !signal,
                _ => false,
            })
    };
    let fits = |facts: &Value| {
        let job = facts.get("job").filter(|job| job.get("ok").is_some());
        let trouble = facts.get("trouble");
        job.is_none_or(|job| ends(job["ok"] == true, !job["signal"].is_null()))
            && trouble.is_none_or(|trouble| trouble["ended"].is_string() == over)
    };
    let mut samples: Vec<(&'static str, Value)> = Vec::new();
    for sample in vocabulary.cases().iter().filter(|sample| fits(&sample.facts)) {
        // An outcome of work reads the same whatever started the work.
        if branch.is_none() || samples.iter().all(|(when, _)| *when != sample.when) {
            samples.push((sample.when, sample.facts.clone()));
        }
    }
    if samples.is_empty() {
        // Whatever the rule's triggers are, there is something to show.
        samples = vocabulary
            .cases()
            .iter()
            .take(1)
            .map(|sample| (sample.when, sample.facts.clone()))
            .collect();
    }
    let recovers = |each: &Trigger| {
        matches!(each, Trigger::JobRecovers(_)) || over && matches!(each, Trigger::JobFails(_))
    };
    if branch.is_none() && rule.triggers.iter().all(recovers) {
        for (_, sample) in &mut samples {
            sample["job"]["recovered"] = json!(true);
        }
    }
    samples
}

/// What is known beforehand takes the place of the sample's: the rule, this machine, and in an outcome the
/// name of the job, which is the rule's.
fn own(sample: &mut Value, rule: &Rule, branch: Option<Branch>) {
    sample["rule"] = json!({
        "name": rule.name,
        "description": rule.description.as_deref().unwrap_or_default(),
    });
    sample["host"] = json!(crate::app::host());
    let own_work = branch.is_some() && sample.get("expected").is_none() && sample.get("job").is_some();
    if own_work {
        sample["job"]["name"] = json!(rule.name);
    }
}

/// Shows one mail; false where there is none to be shown.
fn preview(setup: &Setup, rule: &Rule, each: &Preview<'_>, store: &Store, args: &Args) -> bool {
    let Preview { name, facts, .. } = each;
    let host = facts
        .get("host")
        .and_then(Value::as_str)
        .unwrap_or("host")
        .to_owned();
    let with = Composing {
        settings: &setup.settings,
        templates: &setup.templates,
        spool: store.spool(),
        rule: &rule.name,
        event: None,
        facts,
        file: each.file,
        job_log: facts.pointer("/job/log").and_then(Value::as_str).map(Path::new),
        now: jiff::Timestamp::now(),
        host: &host,
    };
    // The file of a recorded event is attached if it is there still. A sample's is not: what would be attached is
    // said instead.
    let mut entry = match each.file {
        Some(_) => email::prepare(each.spec, name, &with),
        None => email::prepare(&bare(each.spec), name, &with),
    };
    let mut left_out = match each.file {
        Some(_) => Vec::new(),
        None => attached(each.spec, facts),
    };
    if let (Ok(held), Some(_), false) = (&entry, each.file, each.spec.attach.is_empty())
        && held.held.is_some()
    {
        let bare = email::prepare(&bare(each.spec), name, &with);
        if bare.as_ref().is_ok_and(|bare| bare.held.is_none()) {
            let why = held
                .held
                .as_ref()
                .map(|reason| reason.text.clone())
                .unwrap_or_default();
            left_out = attached(each.spec, facts);
            left_out.push(format!("(not now: {why})"));
            entry = bare;
        }
    }
    if !args.json {
        out(format_args!("== {name} ({})", show::clean(&each.when)));
    }
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => {
            tell(format_args!(
                "error: the mail cannot be written to the spool: {error}"
            ));
            return false;
        }
    };
    if let Some(reason) = &entry.held {
        if args.json {
            out(json!({ "name": name, "when": each.when, "held": reason }));
        } else {
            out(super::outbox::reason_lines(reason, "  "));
        }
        return false;
    }
    if args.message {
        return print(&entry.body, store);
    }
    let account = setup.settings.accounts.get(&each.spec.account);
    let rendered = setup.templates.render(
        &each.spec.template,
        facts,
        RenderOptions {
            signature: account.and_then(|account| account.signature.as_deref()),
            subject: entry.summary["subject"].as_str(),
            zone: Some(&setup.settings.defaults.timezone),
            ..Default::default()
        },
    );
    if args.json {
        let (text, html) = match &rendered {
            Ok(rendered) => (Some(&rendered.text), rendered.html.as_ref()),
            Err(_) => (None, None),
        };
        out(json!({
            "name": name, "when": each.when, "mail": entry.summary, "attach": left_out, "text": text, "html": html,
        }));
    } else {
        heading(&entry.summary, &left_out);
    }
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(error) => {
            tell(format_args!("error: {error}"));
            return false;
        }
    };
    if !args.json {
        out("");
        for line in rendered.text.trim_end().lines() {
            out(show::clean(line));
        }
        out("");
    }
    pages(name, rendered.html.as_deref(), args)
}

/// Without its attachments.
fn bare(spec: &MailSpec) -> MailSpec {
    MailSpec {
        attach: Vec::new(),
        ..spec.clone()
    }
}

/// What would be attached, as far as the facts say.
fn attached(spec: &MailSpec, facts: &Value) -> Vec<String> {
    let render = |text: &Text| text.render(facts).unwrap_or_else(|_| text.source().to_owned());
    spec.attach.iter().map(render).collect()
}

/// The message, byte for byte.
fn print(body: &Body, store: &Store) -> bool {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let copied = match body {
        Body::Inline(bytes) => stdout.write_all(bytes),
        Body::Spooled { name, .. } => std::fs::File::open(store.spool().path(name))
            .and_then(|mut file| std::io::copy(&mut file, &mut stdout).map(drop)),
        Body::None => Ok(()),
    };
    match copied.and_then(|()| writeln!(stdout)) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            tell(format_args!("error: cannot print the message: {error}"));
            false
        }
        _ => true,
    }
}

/// Writes the page where it was asked for, and opens it.
fn pages(name: &str, html: Option<&str>, args: &Args) -> bool {
    if !args.open && args.html.is_none() {
        return true;
    }
    let Some(html) = html else {
        tell(format_args!(
            "{}: this mail has no page, only text",
            show::clean(name)
        ));
        return true;
    };
    let folder = match &args.html {
        Some(folder) => std::fs::create_dir_all(folder).map(|()| folder.clone()),
        None => tempdir("page"),
    };
    let written = folder.and_then(|folder| {
        // A rule's name may hold anything.
        let path = folder.join(format!("{}.html", name.replace(['/', '\0'], "_")));
        std::fs::write(&path, html).map(|()| path)
    });
    let path = match written {
        Ok(path) => path,
        Err(error) => {
            tell(format_args!(
                "error: cannot write the page of {}: {error}",
                show::clean(name)
            ));
            return false;
        }
    };
    tell(format_args!("written: {}", path.display()));
    if args.open {
        Terminal.browse(&path.display().to_string());
    }
    true
}

/// Addresses, subject and attachments of a mail.
fn heading(summary: &Value, left_out: &[String]) {
    for key in ["account", "from", "to", "cc", "bcc", "subject", "template"] {
        let value = match summary.get(key) {
            Some(Value::String(text)) => show::clean(text),
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(show::clean)
                .collect::<Vec<_>>()
                .join(", "),
            _ => String::new(),
        };
        if !value.is_empty() {
            out(format_args!("{key:<8} {value}"));
        }
    }
    let really = summary["attachments"].as_array().into_iter().flatten();
    for file in really {
        let size = show::bytes(file["size"].as_u64().unwrap_or_default());
        let name = file["name"].as_str().unwrap_or_default();
        out(format_args!("attach   {} ({size})", show::clean(name)));
    }
    for attachment in left_out {
        out(format_args!("attach   {}", show::clean(attachment)));
    }
}
