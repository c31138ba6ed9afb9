//! `tidings pause`, `tidings resume`: a rule that shall be silent for a while, and what becomes of that which
//! happened meanwhile.

use super::{Exit, Global, out, question, show, tell};
use crate::config::quantity;
use crate::dispatch::pause::{self, How, Pause};
use crate::rule::load;
use crate::store::{Store, StoreError};
use crate::suggest;
use globset::Glob;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Options of `tidings pause`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rules, by name or pattern ("edi-*"); none: list what is paused
    rule: Vec<String>,
    /// Go on by itself after this time (30m, 2h, 1d); what waited is sent then
    #[arg(long = "for", value_name = "TIME", value_parser = time, requires = "rule")]
    time: Option<SignedDuration>,
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT", requires = "rule")]
    reason: Option<String>,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Options of `tidings resume`.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Paused rules, by name or pattern
    #[arg(required = true)]
    rule: Vec<String>,
    /// What happened meanwhile goes its way now
    #[arg(long, conflicts_with = "drop")]
    send: bool,
    /// What happened meanwhile is not told
    #[arg(long)]
    drop: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<SignedDuration, String> {
    let time = quantity::time(text).map_err(str::to_owned)?;
    if time.is_zero() {
        return Err("no time at all is no pause".to_owned());
    }
    SignedDuration::try_from(time).map_err(|error| error.to_string())
}

/// A paused rule, and how many events wait.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The pause.
    pub pause: Pause,
    /// How many events.
    pub events: u64,
}

impl Waiting {
    /// As JSON.
    pub fn as_json(&self) -> Value {
        json!({
            "rule": self.pause.rule,
            "since": self.pause.since.to_string(),
            "until": self.pause.until.map(|until| until.to_string()),
            "reason": self.pause.reason,
            "by": self.pause.by,
            "waiting": self.events,
        })
    }

    /// In one line.
    pub fn described(&self, now: Timestamp) -> String {
        let pause = &self.pause;
        let mut line = format!(
            "{} since {} by {}",
            show::clean(&pause.rule),
            show::when(pause.since, now),
            show::clean(&pause.by)
        );
        if let Some(until) = pause.until {
            line = format!(
                "{line}, until {} ({})",
                show::local(until),
                show::when(until, now)
            );
        }
        if let Some(reason) = &pause.reason {
            line = format!("{line}: {}", show::clean(reason));
        }
        format!("{line}; {} waiting", show::count(self.events, "event"))
    }
}

/// The rules that are paused, by name.
pub async fn all(store: &Store, now: Timestamp) -> Result<Vec<Waiting>, StoreError> {
    let mut found = Vec::new();
    for pause in pause::paused(store, now).await? {
        let events = pause::waiting(store, &pause.rule).await?;
        found.push(Waiting { pause, events });
    }
    Ok(found)
}

/// Does `tidings pause`.
pub async fn run(global: &Global, args: Args) -> Exit {
    let (_, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let now = Timestamp::now();
    let paused = match all(&store, now).await {
        Ok(paused) => paused,
        Err(error) => return super::store_failed(&error),
    };
    if args.rule.is_empty() {
        if !args.json && paused.is_empty() {
            tell("no rule is paused");
        }
        listed(&paused, args.json, now);
        return Exit::Done;
    }
    let dir = global.setup();
    let rules: Option<BTreeSet<String>> = match tokio::task::spawn_blocking(move || load::setup(&dir)).await {
        Ok(Ok(setup)) => Some(setup.rules.into_iter().map(|rule| rule.name).collect()),
        // What runs may still be the set before; nobody should have to mend a setup to silence a rule.
        Ok(Err(_)) | Err(_) => None,
    };
    let names = match (&rules, plain(&args.rule)) {
        (Some(rules), _) => match chosen(&args.rule, rules, "there is no rule") {
            Ok(names) => names,
            Err(exit) => return exit,
        },
        (None, true) => {
            tell("warning: the setup has problems (tidings check), so the names are taken as they are");
            args.rule.iter().cloned().collect()
        }
        (None, false) => {
            tell(
                "error: the setup has problems (tidings check), so patterns cannot be looked up; name each rule",
            );
            return Exit::Config;
        }
    };
    let until = args
        .time
        .map(|time| now.saturating_add(time).unwrap_or(Timestamp::MAX));
    let by = person();
    let pauses: Vec<Pause> = names
        .iter()
        .map(|name| {
            // Who pauses what is paused changes why and until when, not since when.
            let since = paused
                .iter()
                .find(|known| known.pause.rule == *name)
                .map_or(now, |known| known.pause.since);
            Pause::new(name, since, until, args.reason.clone(), &by)
        })
        .collect();
    if let Err(error) = pause::pause(&store, pauses).await {
        return super::store_failed(&error);
    }
    match all(&store, now).await {
        Ok(paused) => {
            let ours: Vec<Waiting> = paused
                .into_iter()
                .filter(|known| names.contains(&known.pause.rule))
                .collect();
            listed(&ours, args.json, now);
            Exit::Done
        }
        Err(error) => super::store_failed(&error),
    }
}

fn listed(paused: &[Waiting], as_json: bool, now: Timestamp) {
    for each in paused {
        if as_json {
            out(each.as_json());
        } else {
            out(each.described(now));
        }
    }
}

/// Does `tidings resume`.
pub async fn resume(global: &Global, args: ResumeArgs) -> Exit {
    let (settings, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let paused = match all(&store, Timestamp::now()).await {
        Ok(paused) => paused,
        Err(error) => return super::store_failed(&error),
    };
    let names: BTreeSet<String> = paused.iter().map(|known| known.pause.rule.clone()).collect();
    if names.is_empty() {
        tell("error: no rule is paused");
        return Exit::BadInput;
    }
    let names = match chosen(&args.rule, &names, "no rule is paused that is called") {
        Ok(names) => names,
        Err(exit) => return exit,
    };
    let ours: Vec<Waiting> = paused
        .into_iter()
        .filter(|known| names.contains(&known.pause.rule))
        .collect();
    let waiting: u64 = ours.iter().map(|known| known.events).sum();
    let how = match (args.send, args.drop) {
        (_, true) => How::Drop,
        (true, _) => How::Send,
        _ if waiting == 0 => How::Send,
        _ => match asked(waiting) {
            Ok(how) => how,
            Err(exit) => return exit,
        },
    };
    let pauses = ours.iter().map(|known| known.pause.clone()).collect();
    if let Err(error) = pause::resume(&store, pauses, how, &person()).await {
        return super::store_failed(&error);
    }
    let word = match how {
        How::Send => "sent",
        How::Drop => "dropped",
    };
    for known in &ours {
        if args.json {
            out(json!({ "rule": known.pause.rule, "waiting": known.events, "are": word }));
        } else if known.events == 0 {
            out(format_args!("{} goes on", show::clean(&known.pause.rule)));
        } else {
            out(format_args!(
                "{} goes on; {} {word}",
                show::clean(&known.pause.rule),
                show::count(known.events, "event")
            ));
        }
    }
    if waiting > 0 && crate::store::lock::Lock::holder(&settings.state).is_none() {
        tell("tidings is not running; it does this when it next runs");
    }
    Exit::Done
}

/// Sent or dropped: a choice that is not ours.
fn asked(waiting: u64) -> Result<How, Exit> {
    let what = show::count(waiting, "event");
    if !question::somebody() {
        tell(format_args!(
            "error: {what} happened meanwhile; say what becomes of them:\n  \
             --send  each goes its way now, as its rule says\n  \
             --drop  they are not told"
        ));
        return Err(Exit::Usage);
    }
    match question::choose(
        &format!("{what} happened meanwhile. Send what follows from them, or drop it?"),
        &["send", "drop", "cancel"],
    ) {
        Some("send") => Ok(How::Send),
        Some("drop") => Ok(How::Drop),
        _ => {
            tell("nothing is changed");
            Err(Exit::Done)
        }
    }
}

/// Whether all are names, none a pattern.
fn plain(rules: &[String]) -> bool {
    rules
        .iter()
        .all(|rule| !rule.contains(['*', '?', '[', ']', '{', '}']))
}

/// The names that names and patterns mean; each must mean something.
fn chosen(patterns: &[String], names: &BTreeSet<String>, nothing: &str) -> Result<BTreeSet<String>, Exit> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let glob = match Glob::new(pattern) {
            Ok(glob) => glob.compile_matcher(),
            Err(error) => {
                tell(format_args!(
                    "error: `{}` is not a pattern: {}",
                    show::clean(pattern),
                    error.kind()
                ));
                return Err(Exit::Usage);
            }
        };
        let before = found.len();
        let mut any = false;
        for name in names.iter().filter(|name| glob.is_match(name)) {
            any = true;
            found.insert(name.clone());
        }
        if !any && found.len() == before {
            tell(format_args!("error: {nothing} `{}`", show::clean(pattern)));
            tell(suggest::hint(pattern, names.iter().map(String::as_str)));
            return Err(Exit::BadInput);
        }
    }
    Ok(found)
}

/// Who sits here, for those who look later.
fn person() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .map_or_else(
            || format!("user {}", rustix::process::getuid().as_raw()),
            |name| crate::mail::header::one_line(&name, 100),
        )
}
