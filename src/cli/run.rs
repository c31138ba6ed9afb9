//! `tidings run`: the daemon, or the scheduled worker.

use super::{Exit, Global, check, out, show, tell};
use crate::app::{App, AppError, Left, Options, notify};
use crate::store::Store;
use crate::store::lock::{Lock, LockError};
use serde_json::Value;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

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
        what: if args.once { "run --once" } else { "run" },
    };
    let app = match App::build(options).await {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let ended = if args.once {
        once(app).await
    } else {
        daemon(app).await
    };
    ended.unwrap_or_else(|error| failed(&error))
}

async fn once(app: App) -> Result<Exit, AppError> {
    let stop = CancellationToken::new();
    notify::stop_on_signals(stop.clone()).map_err(AppError::Signals)?;
    let left = app.once(&stop).await?;
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

async fn daemon(app: App) -> Result<Exit, AppError> {
    let stop = CancellationToken::new();
    notify::stop_on_signals(stop.clone()).map_err(AppError::Signals)?;
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
        AppError::Lock(LockError::Busy(_)) => Exit::TryLater,
        AppError::Sender(_) => Exit::Config,
        AppError::Lock(_) | AppError::Store(_) | AppError::Signals(_) => Exit::Unavailable,
        AppError::Task(_) => Exit::Software,
        AppError::Keeper(_) => Exit::Credential,
    }
}

/// Options of `tidings reload`.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {}

/// Tells the daemon to read the setup again, and says how that went.
pub async fn reload(global: &Global, _args: ReloadArgs) -> Exit {
    let (settings, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let Some(pid) = Lock::holder(&settings.state).map(|holder| holder.pid) else {
        tell("error: no daemon runs on this setup\n\nhint: start it with `tidings run`");
        return Exit::Unavailable;
    };
    let before = store.marks("reload").await.unwrap_or_default();
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return Exit::Software;
    };
    if let Err(error) = rustix::process::kill_process(process, rustix::process::Signal::HUP) {
        tell(format_args!("error: cannot signal process {pid}: {error}"));
        return Exit::Unavailable;
    }
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = store.marks("reload").await.unwrap_or_default();
        let Some((_, note)) = now.iter().find(|note| !before.contains(note)) else {
            continue;
        };
        if note.get("ok").and_then(Value::as_bool) == Some(true) {
            out("reloaded");
            return Exit::Done;
        }
        for problem in note
            .get("problems")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            tell(problem.as_str().unwrap_or_default());
        }
        tell("not reloaded; the old setup stays");
        return Exit::Config;
    }
    tell(format_args!(
        "error: process {pid} did not answer within 30 seconds; see its log"
    ));
    Exit::Unavailable
}
