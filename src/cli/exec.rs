//! `tidings exec`: a command that somebody else starts, run as a job.
//!
//! The command gets our stdin, environment and working folder; what it prints passes through byte for
//! byte as it comes, and a copy of the end is kept. How it ended goes into the journal, also when no
//! daemon runs. Its exit code is ours whatever becomes of the report: a store that cannot be written
//! leaves the report as a file for the next run (`source::job::leave`), with a warning on stderr.

use super::place::{Places, places};
use super::{Exit, Global, tell};
use crate::action::output::{self, Capture};
use crate::action::process::{self, Cause, Group};
use crate::action::run::{self, DRAIN};
use crate::clock::Clock;
use crate::config::quantity;
use crate::source::job::{self, JobReport};
use crate::source::running::{Mark, Process};
use crate::store::{Batch, Store, StoreError};
use rustix::process::Signal;
use serde_json::Map;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Exit code when the time limit ended the command, as of timeout(1).
const TIMED_OUT: u8 = 124;
/// Exit codes of a command that is there and cannot be run, and of one that is not there (POSIX, sh).
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Cap of the log file kept of its output.
const LOG_LIMIT: u64 = 10_000_000;
/// Largest pipe an ordinary process may make on Linux, bytes.
const PIPE: usize = 1 << 20;
/// Long enough to learn whether something lies in a pipe.
const AT_ONCE: Duration = Duration::from_millis(50);
/// How long the store may take before the report is left as a file.
const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// Options of `tidings exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End the command, and all it started, after this time (30s, 10m, 1h30m); the exit code is 124 then
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    timeout: Option<Duration>,
    /// Keep its output for the report, but do not pass it through
    #[arg(long, short)]
    quiet: bool,
    /// Name of the job, as rules know it
    name: String,
    /// The command and its arguments; no shell
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    let clock = Clock::system();
    let setup = std::path::absolute(global.setup()).unwrap_or_else(|_| global.setup());
    let places = places(&setup);
    let started = clock.now();
    let words: Vec<String> = args
        .command
        .iter()
        .map(|word| crate::event::shown(word))
        .collect();
    let command = run::shown_command(&words);
    let key = format!("job:exec:{}:{started}:{}", args.name, std::process::id());
    // Beside the command: a store that is slow keeps no job from starting.
    let begun_told = places.as_ref().ok().map(|places| {
        let mark = Mark {
            name: args.name.clone(),
            started: started.to_string(),
            command: command.clone(),
            process: Process::own(),
        };
        tokio::spawn(tell_start(places.store.clone(), key.clone(), mark, clock.clone()))
    });
    let begun = tokio::time::Instant::now();
    let logs = places.as_ref().ok().map(|places| places.state.join("jobs"));
    let ended = Box::pin(perform(&args, &setup, logs.as_deref())).await;

    let mut report = JobReport {
        name: args.name.clone(),
        attempt: 1,
        started: started.to_string(),
        ended: clock.now().to_string(),
        duration: begun.elapsed().as_secs_f64(),
        command,
        ..JobReport::default()
    };
    let exit = match ended {
        Err(error) => {
            let folder = std::env::current_dir().unwrap_or_default();
            report.summary = run::not_started(&error, Path::new(&args.command[0]), &folder);
            tell(format_args!("tidings exec: {}", report.summary));
            if error.kind() == io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            }
        }
        Ok(ended) => {
            report.timed_out = ended.cause == Cause::TimeLimit;
            report.ok = ended.status.success() && !report.timed_out;
            report.exit_code = ended.status.code();
            report.signal = ended.status.signal().map(process::signal_name);
            report.summary = match args.timeout {
                Some(limit) if report.timed_out => run::over_limit(limit),
                _ => run::how(ended.status),
            };
            report.output_incomplete = ended.output.cut || ended.open;
            report.log = ended.output.log.map(|path| crate::event::shown(path.as_os_str()));
            report.output_tail = ended.output.tail;
            let code = ended
                .status
                .code()
                .or_else(|| ended.status.signal().map(|signal| 128 + signal));
            if report.timed_out {
                TIMED_OUT
            } else {
                code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
            }
        }
    };
    match places {
        Ok(places) => tell_journal(&places, &report, key, begun_told).await,
        Err(error) => tell(format_args!(
            "tidings exec: the outcome of {} is not recorded: {error}\nhint: name the setup folder with --config DIR or \
             TIDINGS_CONFIG",
            args.name
        )),
    }
    Exit::Code(exit)
}

/// Opens the store and leaves the mark that the job runs.
async fn tell_start(path: PathBuf, key: String, mark: Mark, clock: Clock) -> Result<Store, StoreError> {
    let store = Store::open(&path, clock).await?;
    if let (Some(key), Ok(mark)) = (job::mark_of(&key), serde_json::to_value(mark))
        && let Err(error) = store.set_marks(vec![(key, mark)]).await
    {
        // Its end is what counts.
        tracing::debug!(%error, "the start of the job is not noted");
    }
    Ok(store)
}

/// Records the report, or leaves it as a file. The mark goes in the same transaction.
async fn tell_journal(
    places: &Places,
    report: &JobReport,
    key: String,
    begun_told: Option<JoinHandle<Result<Store, StoreError>>>,
) {
    let event = job::outcome(report, None, &Map::new(), None, key.clone());
    let mark = job::mark_of(&key);
    let recorded = tokio::time::timeout(STORE_PATIENCE, async {
        // The same handle: what it was told first is written first.
        let opened = match begun_told {
            Some(told) => told.await.ok(),
            None => None,
        };
        let store = match opened {
            Some(Ok(store)) => store,
            // A long job may outlive what stood in the way.
            _ => Store::open(&places.store, Clock::system()).await?,
        };
        let batch = Batch {
            events: vec![event],
            unmarked: mark.into_iter().collect(),
            ..Batch::default()
        };
        store.record(batch).await
    })
    .await;
    let error = match recorded {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the store did not answer for {} s", STORE_PATIENCE.as_secs()),
    };
    let (state, left, again) = (places.state.clone(), report.clone(), key);
    let kept = tokio::task::spawn_blocking(move || job::leave(&state, &left, &again))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    match kept {
        Ok(path) => tell(format_args!(
            "tidings exec: the outcome of {} waits in {} until `tidings run` records it: {error}",
            report.name,
            path.display()
        )),
        Err(second) => tell(format_args!(
            "tidings exec: the outcome of {} is NOT recorded: {error}; and no file could be left for later: {second}",
            report.name
        )),
    }
}

struct Ended {
    status: std::process::ExitStatus,
    cause: Cause,
    output: output::Captured,
    open: bool,
}

async fn perform(args: &Args, setup: &Path, logs: Option<&Path>) -> io::Result<Ended> {
    let mut command = Command::new(&args.command[0]);
    command
        .args(&args.command[1..])
        .env("TIDINGS_JOB", &args.name)
        .env("TIDINGS_CONFIG", setup)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // In a group of its own a command could not read our terminal: the kernel would stop it.
    let shares_terminal = io::stdin().is_terminal();
    if !shares_terminal {
        command.process_group(0);
    }
    // Before it starts, so that no signal finds us unprepared.
    let mut signals = Signals::new(shares_terminal)?;
    let mut child = command.spawn()?;
    let mut group = if shares_terminal {
        Group::alone(&child)
    } else {
        Group::of(&child)
    };
    let log = match logs {
        Some(folder) => output::create_log(folder, &log_name(&args.name)).await.ok(),
        None => None,
    };
    let capture = Arc::new(Mutex::new(Capture::new(log, LOG_LIMIT)));
    let ended = CancellationToken::new();
    let mut streams = tokio::task::JoinSet::new();
    if let Some(out) = child.stdout.take() {
        let to = ours(io::stdout(), args.quiet);
        streams.spawn(pass(out, to, Arc::clone(&capture), ended.clone()));
    }
    if let Some(err) = child.stderr.take() {
        let to = ours(io::stderr(), args.quiet);
        streams.spawn(pass(err, to, Arc::clone(&capture), ended.clone()));
    }
    let never = CancellationToken::new();
    let remote = group.remote();
    let (status, cause) = {
        let mut ending = std::pin::pin!(process::supervise(&mut child, &mut group, args.timeout, &never));
        loop {
            tokio::select! {
                ending = &mut ending => break ending?,
                signal = signals.next() => remote.signal(signal),
            }
        }
    };
    ended.cancel();
    let open = streams.join_all().await.contains(&true);
    let output = match Arc::try_unwrap(capture) {
        Ok(capture) => capture.into_inner().finish(open).await,
        Err(_) => output::Captured::default(),
    };
    Ok(Ended {
        status,
        cause,
        output,
        open,
    })
}

/// Our own stream as a file that is written on threads of its own; `None` when nothing shall pass.
fn ours(stream: impl AsFd, quiet: bool) -> Option<File> {
    let owned = stream.as_fd().try_clone_to_owned().ok()?;
    (!quiet).then(|| File::from_std(owned.into()))
}

/// Copies a stream as it comes, to its end, or for [`DRAIN`] after the command ended; says whether
/// somebody still held it then. Writing is not limited: what was said reaches a slow reader whole.
/// When nobody reads ours any more we let go of theirs, so that the command learns of it as if we
/// were not there.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: Option<File>,
    capture: Arc<Mutex<Capture>>,
    ended: CancellationToken,
) -> bool {
    let mut late = std::pin::pin!(async {
        ended.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    });
    let mut is_late = false;
    // Past the drain only what lies in the pipe already is still taken.
    let mut room = PIPE;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = if is_late {
            match tokio::time::timeout(AT_ONCE, from.read(&mut buffer)).await {
                Ok(read) if room > 0 => read,
                _ => return true,
            }
        } else {
            tokio::select! {
                biased;
                () = &mut late => {
                    is_late = true;
                    continue;
                }
                read = from.read(&mut buffer) => read,
            }
        };
        let n = match read {
            Ok(0) | Err(_) => return false,
            Ok(n) => n,
        };
        if is_late {
            room = room.saturating_sub(n);
        }
        capture.lock().await.push(&buffer[..n]).await;
        if let Some(to) = &mut to {
            let written = match to.write_all(&buffer[..n]).await {
                Ok(()) => to.flush().await,
                Err(error) => Err(error),
            };
            if written.is_err() {
                return false;
            }
        }
    }
}

fn log_name(job: &str) -> String {
    let safe: String = job
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    format!("exec-{safe}-{}", std::process::id())
}

/// The signals we hand on. Those of the keyboard reach a command that shares our terminal by
/// themselves; twice would be once too often.
struct Signals {
    all: Vec<(tokio::signal::unix::Signal, Signal)>,
    shares_terminal: bool,
}

impl Signals {
    fn new(shares_terminal: bool) -> io::Result<Signals> {
        let all = [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
        ];
        Ok(Signals {
            all: all
                .into_iter()
                .map(|(kind, raw)| Ok((signal(kind)?, raw)))
                .collect::<io::Result<_>>()?,
            shares_terminal,
        })
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, raw) in &mut self.all {
                while let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                    if !(self.shares_terminal && matches!(*raw, Signal::INT | Signal::QUIT)) {
                        return std::task::Poll::Ready(*raw);
                    }
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
