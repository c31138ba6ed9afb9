//! `run:`: a command, never a shell, in a process group of its own.
//!
//! It gets a small environment, the facts as `TIDINGS_*` and the event as JSON on stdin. Its result is
//! known when it exits; what it started and left behind may hold its output open for [`DRAIN`], no
//! longer. At the time limit everything in the group is ended: TERM, five seconds, KILL. When we stop
//! it is ended the same way with ten seconds, and the report says so. Dropped in the middle, the group
//! is killed. Memory is bounded whatever it prints (see [`output`]).

use crate::action::output::{self, Capture};
use crate::action::process::{self, Cause, Group};
use crate::action::{Run, Work};
use crate::clock::Clock;
use crate::entry::EntryId;
use crate::event::{FileRef, shown};
use crate::ground::Ground;
use crate::source::job::JobReport;
use jiff::SignedDuration;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// How long output is awaited after the exit, when a grandchild still holds it.
pub const DRAIN: Duration = Duration::from_secs(2);
/// Variables a command gets from ours.
const INHERITED: [&str; 7] = ["PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "TMPDIR"];
/// Facts larger than this, or all together than the second, stay out of the environment (the kernel
/// takes 128 kB a variable); they are on stdin.
const LARGEST_FACT: usize = 16 * 1024;
const ALL_FACTS: usize = 256 * 1024;

/// What performing needs besides the work itself.
#[derive(Clone, Debug)]
pub struct Performing {
    /// The setup folder, absolute: a relative program with a slash starts here.
    pub setup: PathBuf,
    /// Folder of the log files of jobs; made (0700) when missing.
    pub logs: PathBuf,
    /// Folder for temporary files of ours, handed to jobs as `TMPDIR`; `None` leaves it to the system.
    pub temp: Option<PathBuf>,
    /// The entry performed.
    pub entry: Option<EntryId>,
    /// Cancelled when we stop: a running job is ended, with a grace.
    pub stop: CancellationToken,
    /// What time it is.
    pub clock: Clock,
    /// Where files really lie.
    pub ground: Ground,
    /// Who runs commands.
    pub commands: Commands,
}

/// Who runs commands.
#[derive(Clone, Debug, Default)]
pub enum Commands {
    /// This machine.
    #[default]
    Real,
    /// Nobody: a test of rules says how each ends.
    Scripted(Arc<dyn Script>),
}

/// How commands end that nobody runs.
pub trait Script: Send + Sync + std::fmt::Debug {
    /// How this attempt at `run` ends, asked when it begins.
    fn end(&self, job: &str, run: &Run, file: Option<&FileRef>) -> Scripted;
}

/// How a command ends that nobody runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scripted {
    /// Its exit code; `None` with a signal.
    pub exit: Option<i32>,
    /// The signal that ends it.
    pub signal: Option<String>,
    /// What it says.
    pub output: String,
    /// How long it takes. Beyond its time limit, that ends it.
    pub takes: Duration,
}

/// Runs a command up to `1 + retries` times, until it ends well. `file` is where the event's file is
/// now, `facts` what is said of the event.
pub async fn perform(
    run: &Run,
    work: &Work,
    facts: &Map<String, Value>,
    file: Option<&FileRef>,
    context: &Performing,
) -> JobReport {
    let mut wait = run.retry_wait;
    let mut attempt = 1;
    loop {
        let mut report = match &context.commands {
            Commands::Real => once(run, work, facts, file, context, attempt).await,
            Commands::Scripted(script) => {
                let end = script.end(&work.job, run, file);
                scripted(end, run, work, context, attempt).await
            }
        };
        if report.ok || attempt > run.retries {
            return report;
        }
        if !context.stop.is_cancelled() {
            tokio::select! {
                () = context.stop.cancelled() => {}
                () = context.clock.sleep(wait) => {}
            }
        }
        if context.stop.is_cancelled() {
            report
                .summary
                .push_str("; it is not tried again, because tidings was stopped");
            return report;
        }
        wait = wait.saturating_mul(2);
        attempt += 1;
    }
}

/// An attempt that nobody makes: it takes its time and ends as it is told.
async fn scripted(end: Scripted, run: &Run, work: &Work, context: &Performing, attempt: u32) -> JobReport {
    let started = context.clock.now();
    let takes = end.takes.min(run.timeout);
    let timed_out = end.takes > run.timeout;
    if !takes.is_zero() {
        tokio::select! {
            () = context.clock.sleep(takes) => {}
            () = context.stop.cancelled() => {}
        }
    }
    let name = context
        .entry
        .map_or_else(|| "job".to_owned(), |entry| entry.to_string());
    let logs = context.ground.at(&context.logs).into_owned();
    let log = output::create_log(&logs, &name).await.ok();
    let mut capture = Capture::new(log, run.log_limit);
    capture.push(end.output.as_bytes()).await;
    let output = capture.finish(false).await;
    JobReport {
        name: work.job.clone(),
        ok: !timed_out && end.signal.is_none() && end.exit == Some(0),
        exit_code: end.exit.filter(|_| !timed_out),
        signal: if timed_out {
            Some("SIGTERM".to_owned())
        } else {
            end.signal.clone()
        },
        duration: takes.as_secs_f64(),
        attempt,
        timed_out,
        summary: match (timed_out, &end.signal) {
            (true, _) => over_limit(run.timeout),
            (false, Some(signal)) => format!("was ended by {signal}"),
            (false, None) => format!("ended with exit code {}", end.exit.unwrap_or_default()),
        },
        output_tail: output.tail,
        output_incomplete: output.cut,
        log: output
            .log
            .and_then(|path| Some(context.logs.join(path.file_name()?)))
            .map(|path| shown(path.as_os_str())),
        started: started.to_string(),
        ended: context.clock.now().to_string(),
        command: shown_command(&run.command),
        entry: context.entry,
        ..JobReport::default()
    }
}

async fn once(
    run: &Run,
    work: &Work,
    facts: &Map<String, Value>,
    file: Option<&FileRef>,
    context: &Performing,
    attempt: u32,
) -> JobReport {
    let begun = tokio::time::Instant::now();
    let mut report = JobReport {
        name: work.job.clone(),
        attempt,
        started: context.clock.now().to_string(),
        command: shown_command(&run.command),
        entry: context.entry,
        ..JobReport::default()
    };
    let arguments = arguments(run, work.file.as_ref(), file);
    let program = program(
        arguments.first().map_or(OsStr::new(""), |program| program),
        &context.setup,
    );
    let mut command = Command::new(&program);
    command
        .args(arguments.iter().skip(1))
        .current_dir(&run.folder)
        .env_clear()
        .envs(environment(run, work, facts, file, context, attempt));
    let ended = Box::pin(supervised(command, run, facts, context)).await;
    report.duration = begun.elapsed().as_secs_f64();
    report.ended = context.clock.now().to_string();
    match ended {
        Err(error) => report.summary = not_started(&error, &program, &run.folder),
        Ok(ended) => {
            report.ok = ended.status.success() && ended.cause == Cause::Itself;
            report.exit_code = ended.status.code();
            report.signal = ended.status.signal().map(process::signal_name);
            report.timed_out = ended.cause == Cause::TimeLimit;
            report.summary = match ended.cause {
                Cause::Itself => how(ended.status),
                Cause::TimeLimit => over_limit(run.timeout),
                Cause::Stopped => "was ended because tidings was stopped".to_owned(),
            };
            report.output_tail = ended.output.tail;
            report.output_incomplete = ended.output.cut || ended.open;
            report.log = ended.output.log.map(|path| shown(path.as_os_str()));
        }
    }
    report
}

struct Ended {
    status: ExitStatus,
    cause: Cause,
    output: output::Captured,
    /// Somebody still held the output when we stopped listening.
    open: bool,
}

async fn supervised(
    mut command: Command,
    run: &Run,
    facts: &Map<String, Value>,
    context: &Performing,
) -> io::Result<Ended> {
    // One pipe for both, so that the order in which things were said is kept.
    let (reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut child = command.spawn()?;
    // Our copies of the writing end live in the command.
    drop(command);
    let mut group = Group::of(&child);
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
    let name = context
        .entry
        .map_or_else(|| "job".to_owned(), |entry| entry.to_string());
    let log = match output::create_log(&context.logs, &name).await {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::warn!(folder = %context.logs.display(), %error, "cannot make the log of a job");
            None
        }
    };
    let mut capture = Capture::new(log, run.log_limit);

    let stdin = child.stdin.take();
    let mut event = serde_json::to_vec(facts).unwrap_or_default();
    event.push(b'\n');
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // Whether it reads is its own affair.
            let _ = stdin.write_all(&event).await;
        }
    };
    let mut feed = std::pin::pin!(feed);
    let mut fed = false;
    let mut open = true;
    let (status, cause) = {
        let listen = async {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n) = reader.read(&mut buffer).await {
                if n == 0 {
                    break;
                }
                capture.push(&buffer[..n]).await;
            }
        };
        let mut listen = std::pin::pin!(listen);
        let ending = {
            let mut ending = std::pin::pin!(process::supervise(
                &mut child,
                &mut group,
                Some(run.timeout),
                &context.stop
            ));
            loop {
                tokio::select! {
                    ending = &mut ending => break ending,
                    () = &mut feed, if !fed => fed = true,
                    () = &mut listen, if open => open = false,
                }
            }
        }?;
        if open && tokio::time::timeout(DRAIN, listen).await.is_ok() {
            open = false;
        }
        ending
    };
    Ok(Ended {
        status,
        cause,
        output: capture.finish(open).await,
        open,
    })
}

/// Program and arguments. An argument that is exactly what a fact shows of a file's name gets the
/// name's own bytes, and one that is the file's path gets where the file is now.
fn arguments(run: &Run, original: Option<&FileRef>, now: Option<&FileRef>) -> Vec<OsString> {
    let mut names: Vec<(String, OsString)> = Vec::new();
    for file in [original, now].into_iter().flatten() {
        let path = file.path();
        let current = now.map_or_else(|| path.clone(), FileRef::path);
        names.push((shown(path.as_os_str()), current.into_os_string()));
        let parts = [
            path.file_name(),
            path.file_stem(),
            path.parent().map(Path::as_os_str),
            Some(file.relative.as_os_str()),
        ];
        names.extend(
            parts
                .into_iter()
                .flatten()
                .filter(|part| part.to_str().is_none())
                .map(|part| (shown(part), part.to_owned())),
        );
    }
    run.command
        .iter()
        .map(|text| {
            names
                .iter()
                .find(|(shown, _)| shown == text)
                .map_or_else(|| OsString::from(text), |(_, bytes)| bytes.clone())
        })
        .collect()
}

/// A bare name is looked up in PATH, a relative path starts at the setup folder.
fn program(word: &OsStr, setup: &Path) -> PathBuf {
    let path = Path::new(word);
    if path.is_relative() && word.as_bytes().contains(&b'/') {
        setup.join(path.strip_prefix("./").unwrap_or(path))
    } else {
        path.to_owned()
    }
}

fn environment(
    run: &Run,
    work: &Work,
    facts: &Map<String, Value>,
    file: Option<&FileRef>,
    context: &Performing,
    attempt: u32,
) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> = BTreeMap::new();
    all.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            all.insert(name.into(), value);
        }
    }
    if let Some(temp) = &context.temp {
        all.insert("TMPDIR".into(), temp.into());
    }
    let mut room = ALL_FACTS;
    for (name, value) in facts {
        flatten(&format!("TIDINGS_{}", variable(name)), value, &mut all, &mut room);
    }
    if let Some(file) = file {
        let path = file.path();
        let parts = [
            ("PATH", Some(path.as_os_str())),
            ("NAME", path.file_name()),
            ("STEM", path.file_stem()),
            ("EXTENSION", path.extension()),
            ("FOLDER", path.parent().map(Path::as_os_str)),
            ("RELATIVE", Some(file.relative.as_os_str())),
            ("ROOT", Some(file.root.as_os_str())),
        ];
        for (name, part) in parts {
            all.insert(
                format!("TIDINGS_FILE_{name}").into(),
                part.unwrap_or_default().to_owned(),
            );
        }
    }
    if let Some(event) = work.event {
        all.insert("TIDINGS_EVENT_ID".into(), event.to_string().into());
    }
    all.insert("TIDINGS_JOB".into(), without_nul(&work.job));
    all.insert("TIDINGS_RULE".into(), without_nul(&work.job));
    all.insert("TIDINGS_ATTEMPT".into(), attempt.to_string().into());
    all.insert("TIDINGS_CONFIG".into(), context.setup.clone().into_os_string());
    for (name, value) in &run.env {
        all.insert(name.into(), without_nul(value));
    }
    all
}

/// `file.folder_name` as `TIDINGS_FILE_FOLDER_NAME`; only texts, numbers, yes and no.
fn flatten(name: &str, value: &Value, all: &mut BTreeMap<OsString, OsString>, room: &mut usize) {
    let text = match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}_{}", variable(field)), value, all, room);
            }
            return;
        }
        Value::String(text) => without_nul(text),
        Value::Number(number) => number.to_string().into(),
        Value::Bool(yes) => yes.to_string().into(),
        Value::Null | Value::Array(_) => return,
    };
    let size = name.len() + text.len();
    if text.len() <= LARGEST_FACT && size <= *room {
        *room -= size;
        all.insert(name.into(), text);
    }
}

fn variable(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

fn without_nul(text: &str) -> OsString {
    OsString::from_vec(text.bytes().filter(|byte| *byte != 0).collect())
}

/// How a command ended, as a sentence's end: `ended with exit code 3`.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by {}", process::signal_name(signal)),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Why a command could not be started, in the system's words, and what to do.
pub fn not_started(error: &io::Error, program: &Path, folder: &Path) -> String {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or(&words);
    let name = output::plain(&shown(program.as_os_str()));
    let there = program.is_absolute() && program.exists();
    let hint = match error.kind() {
        _ if !folder.is_dir() => format!(
            "its working folder {} is not there",
            output::plain(&shown(folder.as_os_str()))
        ),
        io::ErrorKind::NotFound if there => {
            format!("{name} is there, but not the interpreter that its first line (#!) names")
        }
        io::ErrorKind::NotFound if program.is_absolute() => format!("there is no file {name}"),
        io::ErrorKind::NotFound => format!("no folder of PATH has a program {name}"),
        io::ErrorKind::PermissionDenied if program.is_dir() => format!("{name} is a folder"),
        io::ErrorKind::PermissionDenied => format!("if it is not executable: chmod +x {name}"),
        io::ErrorKind::ArgumentListTooLong => "its arguments are longer than the system takes".to_owned(),
        io::ErrorKind::InvalidInput => "an argument or a variable has a NUL byte in it".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("{name} is no program; does a script lack its first line, such as #!/bin/sh?")
        }
        _ => format!("the program is {name}"),
    };
    format!("could not be started: {words}; {hint}")
}

/// A command for people: words quoted where a shell would need it, control characters visible.
pub fn shown_command<T: AsRef<str>>(command: &[T]) -> String {
    command
        .iter()
        .map(|word| {
            let word = word.as_ref();
            let safe = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
            if !word.is_empty() && word.chars().all(safe) {
                word.to_owned()
            } else {
                format!(
                    "'{}'",
                    output::plain(word).replace('\n', "\\n").replace('\'', "'\\''")
                )
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// What the time limit did, as a sentence's end.
pub fn over_limit(limit: Duration) -> String {
    let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
    format!("ran longer than its limit of {limit:#} and was ended")
}
