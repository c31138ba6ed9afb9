//! `tidings check`: every problem of a setup at once.

use super::{Exit, Global, out, show as words, tell};
use crate::config::diagnostic::{self, Problem};
use crate::rule::load::{self, Setup};
use crate::trial;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::Path;

/// Options of `tidings check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print problems as JSON
    #[arg(long)]
    json: bool,
}

/// Checks the setup: 0 when it can run, 78 when it cannot.
pub async fn run(global: &Global, args: Args) -> Exit {
    let dir = global.setup();
    // Reading a hostile setup takes a moment; the runtime has other things to do.
    let Ok(result) = tokio::task::spawn_blocking(move || whole(&dir)).await else {
        return Exit::Software;
    };
    let problems = match &result {
        Ok(setup) => &setup.warnings,
        Err(problems) => problems,
    };
    if args.json {
        let problems: Vec<_> = problems.iter().map(Problem::to_json).collect();
        out(format_args!(
            "{:#}",
            json!({ "ok": result.is_ok(), "problems": problems })
        ));
    } else {
        show(problems);
        match &result {
            Ok(setup) => out(summary(setup)),
            Err(problems) => tell(verdict(problems)),
        }
    }
    match result {
        Ok(_) => Exit::Done,
        Err(_) => Exit::Config,
    }
}

/// The setup, and the tests of its rules.
fn whole(dir: &Path) -> Result<Setup, Vec<Problem>> {
    let mut setup = load::setup(dir)?;
    let mut problems = std::mem::take(&mut setup.warnings);
    trial::load::load(&setup.settings.dir.clone(), &setup, &mut problems);
    diagnostic::sort(&mut problems);
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    setup.warnings = problems;
    Ok(setup)
}

/// Shows problems to a person, an empty line behind each.
pub fn show(problems: &[Problem]) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for problem in problems {
        tell(format_args!("{}\n", problem.render(colour)));
    }
}

/// How many of what.
pub fn verdict(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    match warnings {
        0 => words::count(errors as u64, "problem"),
        _ => format!(
            "{}, {}",
            words::count(errors as u64, "problem"),
            words::count(warnings as u64, "warning")
        ),
    }
}

fn summary(setup: &Setup) -> String {
    let mut text = format!(
        "all is well: {}, {}, {}, {}",
        words::count(setup.rules.len() as u64, "rule"),
        words::count(setup.settings.accounts.len() as u64, "account"),
        words::count(setup.templates.names().len() as u64, "template"),
        words::count(setup.watches.len() as u64, "watched folder"),
    );
    if !setup.warnings.is_empty() {
        text.push_str(&format!(
            "; {}",
            words::count(setup.warnings.len() as u64, "warning")
        ));
    }
    text
}
