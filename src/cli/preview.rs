//! `tidings preview`: the mails of a rule as they would leave, with sample facts.

use super::{Exit, Global, out, show, tell};
use crate::action::email::{self, Composing, MailSpec};
use crate::clock::Clock;
use crate::entry::Body;
use crate::rule::index::Branch;
use crate::rule::load::{self, Setup};
use crate::rule::{Rule, Trigger};
use crate::rule::{facts, guess};
use crate::store::Store;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `tidings preview`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The rule
    rule: String,
    /// Facts to use instead of samples: a file of JSON, as `tidings events show --json` prints under `facts`
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
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

/// Does it. Sends nothing, keeps nothing.
pub async fn run(global: &Global, args: Args) -> Exit {
    let dir = global.setup();
    let setup = match tokio::task::spawn_blocking(move || load::setup(&dir)).await {
        Ok(Ok(setup)) => setup,
        Ok(Err(problems)) => return super::run::failed(&crate::app::AppError::Setup(problems)),
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    let Some(rule) = setup.rules.iter().find(|rule| rule.name == args.rule).cloned() else {
        let names: Vec<_> = setup.rules.iter().map(|rule| rule.name.as_str()).collect();
        tell(format_args!(
            "error: there is no rule `{}`; the rules are {}",
            args.rule,
            names.join(", ")
        ));
        return Exit::BadInput;
    };
    let given = match args.facts.as_ref().map(|path| read_facts(path)).transpose() {
        Ok(given) => given,
        Err(why) => {
            tell(format_args!("error: {why}"));
            return Exit::BadInput;
        }
    };
    let scratch = match tempdir() {
        Ok(scratch) => scratch,
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

fn read_facts(path: &std::path::Path) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is not JSON: {error}", path.display()))
}

/// A folder that goes away with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> std::io::Result<Scratch> {
    let path = std::env::temp_dir().join(format!("tidings-preview-{}", std::process::id()));
    std::fs::create_dir(&path)?;
    Ok(Scratch(path))
}

/// Where a rule's mails stand: a name to show, the branch, the mails.
fn places(rule: &Rule) -> Vec<(&'static str, Option<Branch>, &[MailSpec])> {
    vec![
        ("mail", None, rule.mails.as_slice()),
        (
            "on_success",
            Some(Branch::Success),
            rule.on_success.mails.as_slice(),
        ),
        (
            "on_failure",
            Some(Branch::Failure),
            rule.on_failure.mails.as_slice(),
        ),
        (
            "on_recovery",
            Some(Branch::Recovery),
            rule.on_recovery.mails.as_slice(),
        ),
    ]
}

fn previews(setup: &Setup, rule: &Rule, given: Option<&Value>, store: &Store, args: &Args) -> Exit {
    let mut exit = Exit::Done;
    let mut any = false;
    for (place, branch, mails) in places(rule) {
        for (number, spec) in mails.iter().enumerate() {
            any = true;
            let mut sample = sample(rule, branch);
            own(&mut sample, rule, branch);
            guess::fill(&mut sample, spec, &setup.templates);
            if let (Value::Object(sample), Some(Value::Object(given))) = (&mut sample, given) {
                sample.extend(given.clone());
            }
            let mut spec = spec.clone();
            let left_out: Vec<String> = spec.attach.iter().map(|text| text.source().to_owned()).collect();
            // The sample's file is not there; what would be attached is said instead.
            spec.attach.clear();
            let name = format!("{}-{place}-{}", rule.name, number + 1);
            if !preview(setup, rule, &spec, &sample, &left_out, store, args, &name) {
                exit = Exit::BadInput;
            }
        }
    }
    if !any {
        tell(format_args!("rule `{}` sends no mail", rule.name));
    }
    exit
}

/// The most telling facts; where only a good end of a job starts the rule, those of a good end.
fn sample(rule: &Rule, branch: Option<Branch>) -> Value {
    let good = |trigger: &Trigger| matches!(trigger, Trigger::JobSucceeds(_) | Trigger::JobRecovers(_));
    let only_good = branch.is_none() && rule.triggers.iter().all(good);
    let mut sample = facts::vocabulary(rule, branch)
        .samples()
        .into_iter()
        .find(|sample| !only_good || sample["job"]["ok"] == true)
        .unwrap_or_default();
    if only_good {
        sample["job"]["recovered"] = json!(
            rule.triggers
                .iter()
                .any(|trigger| matches!(trigger, Trigger::JobRecovers(_)))
        );
    }
    sample
}

/// What is known beforehand takes the place of the sample's: the rule, this machine, and in an outcome the
/// name of the job, which is the rule's.
fn own(sample: &mut Value, rule: &Rule, branch: Option<Branch>) {
    sample["rule"] = json!({
        "name": rule.name,
        "description": rule.description.as_deref().unwrap_or_default(),
    });
    sample["host"] = json!(crate::app::host());
    if branch.is_some() {
        sample["job"]["name"] = json!(rule.name);
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call, and each is a thing of its own"
)]
fn preview(
    setup: &Setup,
    rule: &Rule,
    spec: &MailSpec,
    sample: &Value,
    left_out: &[String],
    store: &Store,
    args: &Args,
    name: &str,
) -> bool {
    let host = sample
        .get("host")
        .and_then(Value::as_str)
        .unwrap_or("host")
        .to_owned();
    let entry = email::prepare(
        spec,
        name,
        &Composing {
            settings: &setup.settings,
            templates: &setup.templates,
            spool: store.spool(),
            rule: &rule.name,
            event: None,
            facts: sample,
            file: None,
            job_log: None,
            now: jiff::Timestamp::now(),
            host: &host,
        },
    );
    if !args.json {
        out(format_args!("== {name}"));
    }
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => {
            out(format_args!("  cannot be written to the spool: {error}"));
            return false;
        }
    };
    if let (Some(reason), true) = (&entry.held, args.json) {
        out(json!({ "name": name, "held": reason }));
        return false;
    }
    if let Some(reason) = &entry.held {
        out(super::outbox::reason_lines(reason, "  "));
        return false;
    }
    let Body::Inline(bytes) = &entry.body else {
        out("  (a message too large to show)");
        return true;
    };
    if args.message {
        out(String::from_utf8_lossy(bytes));
        return true;
    }
    let account = setup.settings.accounts.get(&spec.account);
    let signature = account.and_then(|account| account.signature.as_deref());
    let rendered = setup.templates.render(
        &spec.template,
        sample,
        crate::template::RenderOptions {
            signature,
            subject: entry.summary["subject"].as_str(),
            ..Default::default()
        },
    );
    if args.json {
        let (text, html) = match &rendered {
            Ok(rendered) => (Some(&rendered.text), rendered.html.as_ref()),
            Err(_) => (None, None),
        };
        out(json!({ "name": name, "mail": entry.summary, "attach": left_out, "text": text, "html": html }));
    } else {
        heading(&entry.summary, left_out);
    }
    match rendered {
        Ok(rendered) => {
            if !args.json {
                out(format_args!("\n{}", rendered.text.trim_end()));
            }
            if let (Some(folder), Some(html)) = (&args.html, &rendered.html) {
                let path = folder.join(format!("{name}.html"));
                let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, html));
                if let Err(error) = written {
                    tell(format_args!("error: cannot write {}: {error}", path.display()));
                    return false;
                }
                tell(format_args!("written: {}", path.display()));
            }
            true
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            false
        }
    }
}

/// Addresses, subject and attachments of a mail.
fn heading(summary: &Value, left_out: &[String]) {
    for key in ["account", "from", "to", "cc", "bcc", "subject"] {
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
    for attachment in left_out {
        out(format_args!("attach   {}", show::clean(attachment)));
    }
}
