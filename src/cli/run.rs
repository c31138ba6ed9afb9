//! `tidings run`: the daemon, or the scheduled worker.

use super::{Exit, Global, check, out, show, tell};
use crate::app::notify::Stop;
use crate::app::{App, AppError, DAEMON, Left, Options, WORKER};
use crate::clock::Clock;
use crate::store::Store;
use crate::store::lock::{Lock, LockError};
use jiff::Timestamp;
use serde_json::Value;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// Options of `tidings run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look once at all folders and schedules, do what is due, and exit
    #[arg(long)]
    pub once: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "TIDINGS_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Record every session with a server in this file, secrets masked
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs go to stderr; `TIDINGS_LOG` chooses what (`info`, `debug`, `tidings::transport=trace`).
pub fn start_logging(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call, in a test, keeps the first.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Runs the daemon until it is stopped, or one round of the worker.
pub async fn run(global: &Global, args: Args) -> Exit {
    start_logging(args.log_format);
    let options = Options {
        setup: global.setup(),
        transcript: args.transcript,
        what: if args.once { WORKER } else { DAEMON },
    };
    let stop = Stop::default();
    let ended = async {
        let app = App::build(options).await?;
        stop.on_signals().map_err(AppError::Signals)?;
        if args.once {
            once(app, stop).await
        } else {
            daemon(app, stop).await
        }
    };
    ended.await.unwrap_or_else(|error| failed(&error))
}

async fn once(app: App, stop: Stop) -> Result<Exit, AppError> {
    let left = app.once(stop).await?;
    tell(summary(&left));
    Ok(exit_of(&left))
}

/// What a round of the worker says at its end.
fn summary(left: &Left) -> String {
    let mut parts = match left.done {
        0 => vec!["nothing was due".to_owned()],
        done => vec![format!("{done} done")],
    };
    if left.stopped {
        parts.push("stopped before all was done".to_owned());
    }
    if left.waiting > 0 {
        parts.push(format!("{} waiting (tidings outbox list)", left.waiting));
    }
    if !left.accounts.is_empty() {
        parts.push(format!(
            "needs a person: {} (tidings auth status)",
            left.accounts.join(", ")
        ));
    }
    if !left.blind.is_empty() {
        parts.push(format!("could not look at {}", left.blind.join(", ")));
    }
    parts.join("; ")
}

/// The exit code of a round, the most pressing first.
fn exit_of(left: &Left) -> Exit {
    if !left.accounts.is_empty() {
        Exit::Credential
    } else if !left.blind.is_empty() {
        Exit::Unavailable
    } else if left.waiting > 0 || left.stopped {
        Exit::TryLater
    } else {
        Exit::Done
    }
}

async fn daemon(app: App, stop: Stop) -> Result<Exit, AppError> {
    let (started, ready) = oneshot::channel();
    let store = app.store().clone();
    let settings = app.settings().dir.clone();
    tokio::spawn(async move {
        if ready.await.is_ok() {
            tell(format_args!(
                "tidings {} runs the setup {}",
                env!("CARGO_PKG_VERSION"),
                settings.display()
            ));
            for line in watches(&store).await {
                tell(line);
            }
        }
    });
    app.run(stop, started).await?;
    tell("stopped");
    Ok(Exit::Done)
}

/// A line for each watched folder.
async fn watches(store: &Store) -> Vec<String> {
    let marks = store.marks("watch:").await.unwrap_or_default();
    marks.iter().map(|(_, mark)| watch_line(mark)).collect()
}

/// `/srv/drop (native; 12 folders, 340 files known)`.
pub fn watch_line(mark: &Value) -> String {
    let text = |name: &str| show::clean(mark.get(name).and_then(Value::as_str).unwrap_or(""));
    let number = |name: &str| mark.get(name).and_then(Value::as_u64).unwrap_or(0);
    let why = match text("why") {
        why if why.is_empty() => String::new(),
        why => format!(": {why}"),
    };
    format!(
        "  {} ({}{why}; {}, {} known)",
        text("root"),
        text("mode"),
        show::count(number("folders"), "folder"),
        show::count(number("known"), "file")
    )
}

/// Says why it cannot run, and with which code it ends.
pub fn failed(error: &AppError) -> Exit {
    if let AppError::Setup(problems) = error {
        check::show(problems);
        tell(check::verdict(problems));
        return Exit::Config;
    }
    tell(format_args!("error: {error}"));
    match error {
        AppError::Setup(_) => Exit::Config,
        AppError::Lock(LockError::Busy(_)) | AppError::Hurried => Exit::TryLater,
        AppError::Sender(_) => Exit::Config,
        AppError::Lock(_) | AppError::Store(_) | AppError::Signals(_) | AppError::Submission(_) => {
            Exit::Unavailable
        }
        AppError::Task(_) => Exit::Software,
        AppError::Keeper(_) => Exit::Credential,
    }
}

/// Options of `tidings reload`.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {}

/// Longest wait for the answer: folders that came in are looked at first.
const ANSWER: Duration = Duration::from_secs(100);

/// Tells the daemon to read the setup again, and says how that went.
pub async fn reload(global: &Global, _args: ReloadArgs) -> Exit {
    let settings = match super::settings(global).await {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let daemon = || Lock::holder(&settings.state).filter(|holder| holder.what != WORKER);
    let Some(pid) = daemon().map(|holder| holder.pid) else {
        tell("error: no daemon runs on this setup\n\nhint: start it with `tidings run`");
        return Exit::Unavailable;
    };
    let store = match Store::open(&settings.outbox.store, Clock::system()).await {
        Ok(store) => store,
        Err(error) => return super::store_failed(&error),
    };
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return Exit::Software;
    };
    let asked = Timestamp::now();
    if let Err(error) = rustix::process::kill_process(process, rustix::process::Signal::HUP) {
        tell(format_args!("error: cannot signal process {pid}: {error}"));
        return Exit::Unavailable;
    }
    while Timestamp::now().duration_since(asked).unsigned_abs() < ANSWER {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let marks = store.marks("reload").await.unwrap_or_default();
        // An answer to somebody who asked before is about the files as they were before.
        let answer = marks.iter().map(|(_, note)| note).find(|note| {
            let began = note.get("began").and_then(Value::as_str);
            began
                .and_then(|began| began.parse::<Timestamp>().ok())
                .is_some_and(|began| began >= asked)
        });
        if let Some(note) = answer {
            return answered(note);
        }
        if rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
            tell(format_args!(
                "error: process {pid} ended before it answered; see its log"
            ));
            return Exit::Unavailable;
        }
    }
    tell(format_args!(
        "error: process {pid} did not answer within {} seconds; see its log",
        ANSWER.as_secs()
    ));
    Exit::Unavailable
}

fn answered(note: &Value) -> Exit {
    if note.get("ok").and_then(Value::as_bool) == Some(true) {
        out("reloaded");
        return Exit::Done;
    }
    let problems = note.get("problems").and_then(Value::as_array);
    for problem in problems.into_iter().flatten() {
        tell(problem.as_str().unwrap_or_default());
    }
    tell("not reloaded; the old setup stays");
    Exit::Config
}
