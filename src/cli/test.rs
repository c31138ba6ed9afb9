//! `tidings test`: the tests of rules, played through in moments.

use super::{Exit, Global, check, out, show as words, tell};
use crate::config::diagnostic::{self, Problem};
use crate::rule::load::{self, Away, Setup};
use crate::trial::report::{Outcome, junit};
use crate::trial::{Trial, judge, load as tests, world};
use globset::Glob;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;

/// Options of `tidings test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only tests of these names or files; patterns may be given: "late-*"
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print the outcomes as JSON
    #[arg(long)]
    json: bool,
    /// Write the outcomes to a file as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Show what happened in every test, not only in those that fail
    #[arg(long, short = 't')]
    timeline: bool,
}

/// Runs the tests: 0 when all is as it must be, 65 when not, 78 when setup or tests have problems.
pub async fn run(global: &Global, args: Args) -> Exit {
    let dir = global.setup();
    let loaded = tokio::task::spawn_blocking(move || {
        let setup = load::load(&dir, Away::Elsewhere)?;
        let mut problems = Vec::new();
        let trials = tests::load(&setup.settings.dir, &setup, &mut problems);
        diagnostic::sort(&mut problems);
        if problems.iter().any(Problem::is_error) {
            return Err(problems);
        }
        Ok((setup, trials))
    });
    let (setup, trials) = match loaded.await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(problems)) => return has_problems(&args, &problems),
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    let chosen = match chosen(&args.names, trials) {
        Ok(chosen) => chosen,
        Err(hint) => {
            tell(hint);
            return Exit::Usage;
        }
    };
    let Some(outcomes) = play(Arc::new(setup), chosen, &args).await else {
        return Exit::Software;
    };
    if let Some(path) = &args.junit
        && let Err(error) = std::fs::write(path, junit(&outcomes))
    {
        tell(format_args!("cannot write {}: {error}", path.display()));
        return Exit::CannotCreate;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_ok()).count();
    if args.json {
        let tests: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
        out(format_args!(
            "{:#}",
            json!({ "ok": failed == 0, "tests": tests, "problems": [] })
        ));
    } else {
        summary(outcomes.len(), failed);
    }
    if failed == 0 { Exit::Done } else { Exit::BadInput }
}

fn has_problems(args: &Args, problems: &[Problem]) -> Exit {
    if args.json {
        let problems: Vec<_> = problems.iter().map(Problem::to_json).collect();
        out(format_args!(
            "{:#}",
            json!({ "ok": false, "tests": [], "problems": problems })
        ));
    } else {
        check::show(problems);
        tell(check::verdict(problems));
    }
    Exit::Config
}

fn summary(all: usize, failed: usize) {
    if all == 0 {
        out("there are no tests: write them beside the rules, in files rules/*.test.yaml");
    } else if failed == 0 {
        out(format_args!(
            "\nall is well: {}",
            words::count(all as u64, "test")
        ));
    } else {
        out(format_args!(
            "\n{failed} of {} failed",
            words::count(all as u64, "test")
        ));
    }
}

/// The tests that are asked for; a hint where a name is none's.
fn chosen(names: &[String], trials: Vec<Trial>) -> Result<Vec<Trial>, String> {
    if names.is_empty() {
        return Ok(trials);
    }
    let of = |name: &str, trial: &Trial| {
        let file = trial.file.to_string_lossy();
        let short = file.strip_prefix("rules/").unwrap_or(&file);
        let is = |pattern: &str| {
            Glob::new(pattern).is_ok_and(|glob| {
                let glob = glob.compile_matcher();
                glob.is_match(&trial.name) || glob.is_match(&*file) || glob.is_match(short)
            })
        };
        trial.name == name || file == name || short == name || is(name)
    };
    for name in names {
        if trials.iter().all(|trial| !of(name, trial)) {
            let known: Vec<&str> = trials.iter().map(|trial| trial.name.as_str()).collect();
            let hint = match crate::suggest::nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the tests: {}", known.join(", ")),
            };
            return Err(format!(
                "there is no test `{}`\n\nhint: {hint}",
                words::clean(name)
            ));
        }
    }
    Ok(trials
        .into_iter()
        .filter(|trial| names.iter().any(|name| of(name, trial)))
        .collect())
}

/// Plays them, as many at once as there are processors, and shows each in the order of the files.
/// Nothing comes back where one ended by a fault of ours.
async fn play(setup: Arc<Setup>, trials: Vec<Trial>, args: &Args) -> Option<Vec<Outcome>> {
    let places = std::thread::available_parallelism().map_or(2, usize::from);
    let places = Arc::new(Semaphore::new(places));
    let running: Vec<_> = trials
        .into_iter()
        .map(|trial| {
            let (setup, places) = (Arc::clone(&setup), Arc::clone(&places));
            tokio::spawn(async move {
                let _place = places.acquire_owned().await;
                one(&trial, &setup).await
            })
        })
        .collect();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for task in running {
        let outcome = match task.await {
            Ok(outcome) => outcome,
            Err(error) => {
                tell(format_args!("error: a test ended by a fault of ours: {error}"));
                return None;
            }
        };
        if !args.json {
            if outcomes.last().is_none_or(|last| last.file != outcome.file) {
                out(words::clean(&outcome.file.display().to_string()));
            }
            out(format_args!("  {}", outcome.head()));
            if !outcome.is_ok() {
                out(outcome.failed());
            } else if args.timeline {
                out(outcome.timeline());
            }
        }
        outcomes.push(outcome);
    }
    Some(outcomes)
}

/// Plays one test.
pub async fn one(trial: &Trial, setup: &Setup) -> Outcome {
    let began = Instant::now();
    let (mut ledger, played) = world::play(trial, setup).await;
    ledger.timeline.sort_by_key(|line| line.at);
    let failures = match &played {
        Ok(()) => judge::judge(trial, &ledger, &setup.settings),
        Err(_) => Vec::new(),
    };
    Outcome {
        name: trial.name.clone(),
        description: trial.description.clone(),
        file: trial.file.clone(),
        line: trial.line,
        start: trial.start,
        until: trial.until,
        took: began.elapsed(),
        mails: ledger.mails.len(),
        error: played.err().map(|error| error.to_string()),
        failures,
        timeline: ledger.timeline,
        zone: setup.settings.defaults.timezone.clone(),
    }
}
