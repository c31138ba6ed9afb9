//! The command line: one file a command family. Data goes to stdout, all else to stderr; exit codes
//! follow sysexits ([`Exit`]).

pub mod auth;
pub mod check;
pub mod demo;
pub mod docs;
pub mod doctor;
pub mod emit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod face;
pub mod init;
pub mod outbox;
pub mod pause;
mod place;
pub mod preview;
pub mod question;
pub mod run;
pub mod schema;
pub mod send;
pub mod sendmail;
pub mod show;
pub mod status;
pub mod test;

use crate::advice::catalog;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::rule::load;
use crate::store::{Store, StoreError};
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// When a file arrives or a job ends, the right people get the mail, from the right mailbox.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, about, long_about = None, propagate_version = true)]
pub struct Cli {
    /// Options every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The setup folder [default: the current folder]
    #[arg(long, short = 'C', value_name = "DIR", env = "TIDINGS_CONFIG", global = true)]
    pub config: Option<PathBuf>,
}

impl Global {
    /// The setup folder.
    pub fn setup(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from("."))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    /// All of it on this machine: a sandbox mail and sign-in server, sample rules, a folder to drop files in
    Demo(demo::Args),
    /// Make a commented setup to start from
    Init(init::Args),
    /// The daemon, or the scheduled worker
    Run(run::Args),
    /// Tell the daemon to read the setup again
    Reload(run::ReloadArgs),
    /// Settings, rules and templates: every problem, with file, line, column, hint
    Check(check::Args),
    /// Play the tests of rules: what happens, and what must follow, a day in a moment
    Test(test::Args),
    /// What would fire and what would be sent; why a mail was or was not sent
    Explain(explain::Args),
    /// The mails of a rule as they would leave, with sample facts
    Preview(preview::Args),
    /// Send a test message through one account, step by step
    Send(send::Args),
    /// Walk the way of a mail step by step: what fails first, what it means, who can mend it and how
    Doctor(doctor::Args),
    /// The sendmail command line: mails of scripts leave through the outbox
    Sendmail(sendmail::Args),
    /// Sign in accounts, look after their grants
    Auth(auth::Args),
    /// What is watched and how, what waits, what needs a person
    Status(status::Args),
    /// What is to be sent or done: list, show, retry, cancel
    Outbox(outbox::Args),
    /// Let rules be silent for a while; what happens meanwhile is kept. Without a rule: list them
    Pause(pause::Args),
    /// Let paused rules go on; what happened meanwhile is sent or dropped
    Resume(pause::ResumeArgs),
    /// What happened, and what each rule made of it
    Events(events::Args),
    /// Run a command as a job and report how it ended; its exit code is ours
    Exec(exec::Args),
    /// Report that something happened, for rules with `event` to hear
    Emit(emit::Args),
    /// Print the JSON Schema of settings or rules, for editors
    Schema(schema::Args),
    /// Print a completion script for a shell
    Completions(docs::CompletionsArgs),
    /// Print the manual page
    Man(docs::ManArgs),
}

/// Exit codes (sysexits.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Exit {
    /// 0
    Done,
    /// 64: the command line is wrong
    Usage,
    /// 65: what was given is wrong
    BadInput,
    /// 69: something needed is not there
    Unavailable,
    /// 70: a fault of ours
    Software,
    /// 73: a file cannot be made
    CannotCreate,
    /// 74: reading or writing failed
    Io,
    /// 75: try again later; mails still wait, or somebody else runs
    TryLater,
    /// 77: a credential needs a person
    Credential,
    /// 78: the settings are wrong
    Config,
    /// Another program's own code, handed on
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Usage => 64,
            Exit::BadInput => 65,
            Exit::Unavailable => 69,
            Exit::Software => 70,
            Exit::CannotCreate => 73,
            Exit::Io => 74,
            Exit::TryLater => 75,
            Exit::Credential => 77,
            Exit::Config => 78,
            Exit::Code(code) => code,
        })
    }
}

/// Prints data to stdout. A closed pipe (`| head`) is no error.
pub fn out(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Tells a person something, on stderr.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The settings alone. A setup whose rules have problems does not stand in the way.
pub async fn settings(global: &Global) -> Result<Settings, Exit> {
    let dir = global.setup();
    match tokio::task::spawn_blocking(move || load::settings(&dir)).await {
        Ok(Ok(settings)) => {
            catalog::adopt(settings.advice.clone());
            Ok(settings)
        }
        Ok(Err(problems)) => Err(run::failed(&crate::app::AppError::Setup(problems))),
        Err(error) => {
            tell(format_args!("error: {error}"));
            Err(Exit::Software)
        }
    }
}

/// Settings and store, for commands that read or change what is kept.
pub async fn open(global: &Global) -> Result<(Settings, Store), Exit> {
    let settings = settings(global).await?;
    match Store::open(&settings.outbox.store, Clock::system()).await {
        Ok(store) => Ok((settings, store)),
        Err(error) => Err(store_failed(&error)),
    }
}

/// Says what is wrong with the store.
pub fn store_failed(error: &StoreError) -> Exit {
    tell(format_args!("error: {error}"));
    Exit::Unavailable
}

/// Runs the command line of this process.
pub async fn run(cli: Cli) -> Exit {
    let global = &cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Init(args) => init::run(global, args).await,
        Command::Run(args) => run::run(global, args).await,
        Command::Reload(args) => run::reload(global, args).await,
        Command::Check(args) => check::run(global, args).await,
        Command::Test(args) => test::run(global, args).await,
        Command::Explain(args) => explain::run(global, args).await,
        Command::Preview(args) => preview::run(global, args).await,
        Command::Send(args) => send::run(global, args).await,
        Command::Doctor(args) => doctor::run(global, args).await,
        Command::Sendmail(args) => sendmail::run(global, args).await,
        Command::Auth(args) => auth::run(global, args).await,
        Command::Status(args) => status::run(global, args).await,
        Command::Outbox(args) => outbox::run(global, args).await,
        Command::Pause(args) => pause::run(global, args).await,
        Command::Resume(args) => pause::resume(global, args).await,
        Command::Events(args) => events::run(global, args).await,
        Command::Exec(args) => exec::run(global, args).await,
        Command::Emit(args) => emit::run(global, args).await,
        Command::Schema(args) => schema::run(global, args).await,
        Command::Completions(args) => docs::completions(&args),
        Command::Man(args) => docs::man(&args),
    }
}
