//! The command line: one file a command family. Data goes to stdout, all else to stderr; exit codes
//! follow sysexits ([`Exit`]).

pub mod auth;
pub mod check;
pub mod exec;
pub mod init;
pub mod schema;

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
    /// Settings, rules and templates: every problem, with file, line, column, hint
    Check(check::Args),
    /// Make a commented setup to start from
    Init(init::Args),
    /// Print the JSON Schema of settings or rules, for editors
    Schema(schema::Args),
    /// Sign in accounts, look after their grants
    Auth(auth::Args),
    /// Run a command as a job and report how it ended; its exit code is ours
    Exec(exec::Args),
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

/// Runs the command line of this process.
pub async fn run(cli: Cli) -> Exit {
    match cli.command {
        Command::Check(args) => check::run(&cli.global, args).await,
        Command::Init(args) => init::run(&cli.global, args).await,
        Command::Schema(args) => schema::run(&cli.global, args).await,
        Command::Auth(args) => auth::run(&cli.global, args).await,
        Command::Exec(args) => exec::run(&cli.global, args).await,
    }
}
