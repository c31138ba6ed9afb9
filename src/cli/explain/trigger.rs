//! A rule in words: what it waits for and what it does. Pure.

use super::telling;
use crate::action::StepSpec;
use crate::action::email::MailSpec;
use crate::action::recipients::RecipientSpec;
use crate::rule::facts::word::TriggerWord;
use crate::rule::{Outcome, Rule, Trigger};
use crate::source::Watch;
use globset::GlobMatcher;

/// What a trigger waits for, to follow "when".
pub fn waits(trigger: &Trigger, watches: &[Watch]) -> String {
    let job = |job: &GlobMatcher, does: &str| format!("the job {} {does}", job.glob().glob());
    match trigger {
        Trigger::FileArrives { watch, wanted }
        | Trigger::FileChanges { watch, wanted }
        | Trigger::FileRemoved { watch, wanted }
        | Trigger::FilesTogether { watch, wanted, .. } => {
            let root = watches.iter().find(|known| known.id == *watch).map_or_else(
                || "its folder".to_owned(),
                |known| known.root.display().to_string(),
            );
            let pattern = wanted.matching.glob().glob();
            match trigger {
                Trigger::FileChanges { .. } => format!("a known file `{pattern}` changes in {root}"),
                Trigger::FileRemoved { .. } => format!("a file `{pattern}` goes away from {root}"),
                Trigger::FilesTogether { .. } => {
                    format!("files `{pattern}` that belong together are complete in {root}")
                }
                _ => format!("a file `{pattern}` arrives in {root}"),
            }
        }
        Trigger::Schedule(schedule) => format!("the calendar says so: {}", schedule.describe()),
        Trigger::JobSucceeds(name) => job(name, "ends well"),
        Trigger::JobFails(name) => job(name, "fails"),
        Trigger::JobFinishes(name) => job(name, "ends, well or badly"),
        Trigger::JobRecovers(name) => job(name, "ends well for the first time since a failure"),
        other => further(other),
    }
}

fn further(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Trouble(kinds) => match kinds.as_slice() {
            [] => "there is any trouble".to_owned(),
            kinds => format!("there is trouble with {}", any_of(kinds)),
        },
        Trigger::Absence(expectation) => telling::absent(expectation),
        Trigger::Event { types, source } => {
            let types: Vec<&str> = types.iter().map(|each| each.glob().glob()).collect();
            let source = source
                .as_ref()
                .map(|source| format!(" from `{}`", source.glob().glob()));
            format!(
                "somebody emits `{}`{}",
                types.join("`, `"),
                source.unwrap_or_default()
            )
        }
        other => format!("there is news of `{}`", TriggerWord::from(other).brings()),
    }
}

/// `an account, a mail or a watch`.
fn any_of(kinds: &[String]) -> String {
    let named: Vec<String> = kinds
        .iter()
        .map(|kind| match kind.as_str() {
            "account" => "an account".to_owned(),
            kind => format!("a {kind}"),
        })
        .collect();
    match named.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => String::new(),
    }
}

/// What it does, and when: `at once` or a branch's name, and a line each.
pub fn does(rule: &Rule) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    all.extend(rule.work.iter().map(|work| ("then", step(work))));
    all.extend(rule.mails.iter().map(|spec| ("then", mail(spec))));
    for (name, outcome) in [
        ("on_success", &rule.on_success),
        ("on_failure", &rule.on_failure),
        ("on_recovery", &rule.on_recovery),
    ] {
        let Outcome { work, mails, .. } = outcome;
        all.extend(mails.iter().map(|spec| (name, mail(spec))));
        all.extend(work.iter().map(|work| (name, step(work))));
    }
    all
}

fn step(step: &StepSpec) -> String {
    match step {
        StepSpec::Run(run) => {
            let command: Vec<&str> = run.command.iter().map(|text| text.source()).collect();
            format!("run {}", command.join(" "))
        }
        StepSpec::Move(to) => format!("move the file to {}", to.source()),
        StepSpec::Copy(to) => format!("copy the file to {}", to.source()),
        StepSpec::Delete => "delete the file".to_owned(),
    }
}

fn mail(spec: &MailSpec) -> String {
    let to: Vec<String> = [&spec.to, &spec.cc, &spec.bcc]
        .into_iter()
        .flatten()
        .map(|recipient| match recipient {
            RecipientSpec::Fixed(mailbox) => mailbox.to_string(),
            RecipientSpec::Template(text) => text.source().to_owned(),
        })
        .collect();
    format!(
        "mail {} from {} by account {}, template {}",
        to.join(", "),
        spec.from,
        spec.account,
        spec.template
    )
}
