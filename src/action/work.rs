//! Work as a whole: prepared once from a rule's words, performed later, its steps in order, the first
//! failure decides.

use crate::action::file::{self, FileDone};
use crate::action::run::Performing;
use crate::action::{FileStep, Run, RunSpec, Step, StepSpec, Work, run};
use crate::entry::Entry;
use crate::event::{FileRef, NewEvent, Origin, members, shown};
use crate::source::job::{self, JobReport};
use crate::template::{RenderError, Text};
use serde_json::{Map, Value};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// How some work ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// How it ended; also for work without a command.
    pub report: JobReport,
    /// Where the event's file is now; `None` when it was deleted, or there was none.
    pub file: Option<FileRef>,
    /// Where the files of a set are now; empty for a single file.
    pub files: Vec<FileRef>,
    /// Places we took the file away from, by moving or deleting it: an arrival there is new.
    pub gone: Vec<FileRef>,
}

/// Renders what a rule says into steps that need nothing more.
///
/// Where a rule names a place by the file's folder or name, a name that is not UTF-8 keeps its bytes.
/// A relative place starts at the setup folder. A `..` that only a fact brought is refused: who names
/// files does not choose folders.
pub fn prepare(
    specs: &[StepSpec],
    facts: &Value,
    file: Option<&FileRef>,
    setup: &Path,
) -> Result<Vec<Step>, RenderError> {
    specs
        .iter()
        .map(|spec| {
            Ok(match spec {
                StepSpec::Run(run) => Step::Run(command(run, facts)?),
                StepSpec::Move(to) => Step::File(FileStep::Move(place(to, facts, file, setup)?)),
                StepSpec::Copy(to) => Step::File(FileStep::Copy(place(to, facts, file, setup)?)),
                StepSpec::Delete => Step::File(FileStep::Delete),
            })
        })
        .collect()
}

fn command(spec: &RunSpec, facts: &Value) -> Result<Run, RenderError> {
    let render = |text: &Text| {
        let rendered = text.render(facts)?;
        if rendered.contains('\0') {
            return Err(refused(format!(
                "`{}` renders to a text with a NUL byte in it",
                text.source()
            )));
        }
        Ok(rendered)
    };
    Ok(Run {
        command: spec.command.iter().map(render).collect::<Result<_, _>>()?,
        timeout: spec.timeout,
        retries: spec.retries,
        retry_wait: spec.retry_wait,
        folder: spec.folder.clone(),
        env: spec
            .env
            .iter()
            .map(|(name, text)| Ok((name.clone(), render(text)?)))
            .collect::<Result<_, RenderError>>()?,
        log_limit: spec.log_limit,
    })
}

fn refused(message: String) -> RenderError {
    RenderError {
        template: String::new(),
        line: 0,
        column: 0,
        message,
    }
}

fn place(text: &Text, facts: &Value, file: Option<&FileRef>, setup: &Path) -> Result<PathBuf, RenderError> {
    let rendered = text.render(facts)?;
    let source = text.source();
    if rendered.is_empty() || rendered.contains('\0') {
        return Err(refused(format!("`{source}` renders to no path: {rendered:?}")));
    }
    let ups = |path: &str| path.split('/').filter(|part| *part == "..").count();
    if ups(&rendered) > ups(source) {
        return Err(refused(format!(
            "`{source}` renders to {rendered:?}, and only the rule itself may say `..`"
        )));
    }
    let bytes = match file {
        Some(file) => raw(&rendered, file),
        None => OsString::from(rendered),
    };
    // Joined byte by byte: a path type would drop the `/` at the end, which says that it is a folder.
    Ok(if bytes.as_bytes().starts_with(b"/") {
        PathBuf::from(bytes)
    } else {
        let mut path = setup.as_os_str().to_owned();
        path.push("/");
        path.push(bytes);
        PathBuf::from(path)
    })
}

/// A rendered place with the file's own bytes where it begins with the file's folder or ends with its
/// name.
fn raw(rendered: &str, file: &FileRef) -> OsString {
    let path = file.path();
    let mut bytes = rendered.as_bytes().to_vec();
    let odd = |part: &OsStr| part.to_str().is_none();
    if let Some(name) = path.file_name().filter(|name| odd(name))
        && let Some(before) = rendered.strip_suffix(&shown(name))
    {
        bytes = [before.as_bytes(), name.as_bytes()].concat();
    }
    let folders = [path.parent(), Some(file.root.as_path())];
    for folder in folders
        .into_iter()
        .flatten()
        .map(Path::as_os_str)
        .filter(|folder| odd(folder))
    {
        if let Some(after) = bytes.strip_prefix(shown(folder).as_bytes()) {
            return OsString::from_vec([folder.as_bytes(), after].concat());
        }
    }
    OsString::from_vec(bytes)
}

/// Does the steps in order, until one fails. Never fails itself: what went wrong is in the report.
///
/// The caller has passed the store's gate. Done again after a crash, a file step finds what it did
/// before; a command runs again.
pub async fn perform(work: &Work, context: &Performing) -> Done {
    let begun = tokio::time::Instant::now();
    let started = context.clock.now().to_string();
    let mut file = work.file.clone();
    // The files that belong to it, in a set.
    let mut others = members(&Value::Object(work.facts.clone()), file.as_ref()).split_off(file.iter().len());
    let mut gone = Vec::new();
    let mut report: Option<JobReport> = None;
    let mut said: Vec<String> = Vec::new();
    let mut failed = false;
    for step in &work.steps {
        match step {
            Step::Run(command) => {
                let facts = facts(work, file.as_ref());
                let ended = run::perform(command, work, &facts, file.as_ref(), context).await;
                failed = !ended.ok;
                said.push(ended.summary.clone());
                report = Some(ended);
            }
            Step::File(step) => match file_step(step.clone(), file.clone(), context).await {
                Ok(done) => {
                    file = done.file;
                    gone.extend(done.gone);
                    said.push(done.summary);
                    for other in &mut others {
                        match file_step(step.clone(), Some(other.clone()), context).await {
                            Ok(done) => {
                                *other = done.file.unwrap_or_else(|| other.clone());
                                gone.extend(done.gone);
                                said.push(done.summary);
                            }
                            Err(words) => {
                                failed = true;
                                said.push(words);
                                break;
                            }
                        }
                    }
                }
                Err(words) => {
                    failed = true;
                    said.push(words);
                }
            },
        }
        if failed {
            break;
        }
    }
    let mut report = report.unwrap_or_else(|| JobReport {
        name: work.job.clone(),
        attempt: 1,
        started,
        duration: begun.elapsed().as_secs_f64(),
        command: describe(&work.steps),
        entry: context.entry,
        ..JobReport::default()
    });
    report.ok = !failed;
    report.ended = context.clock.now().to_string();
    report.summary = if said.is_empty() {
        "had nothing to do".to_owned()
    } else {
        said.join("; ")
    };
    let files = match (&file, others.is_empty()) {
        (Some(first), false) => std::iter::once(first.clone()).chain(others).collect(),
        _ => Vec::new(),
    };
    Done {
        report,
        file,
        files,
        gone,
    }
}

async fn file_step(step: FileStep, file: Option<FileRef>, context: &Performing) -> Result<FileDone, String> {
    let Some(file) = file else {
        return Err(format!("there is no file to {}", verb(&step)));
    };
    let ground = context.ground.clone();
    tokio::task::spawn_blocking(move || file::perform(&step, &file, &ground))
        .await
        .map_err(|error| format!("a fault of ours ended it: {error}"))?
        .map_err(|error| error.to_string())
}

fn verb(step: &FileStep) -> &'static str {
    match step {
        FileStep::Move(_) => "move",
        FileStep::Copy(_) => "copy",
        FileStep::Delete => "delete",
    }
}

/// Work in a few words: the command, or `move to /srv/done/`.
pub fn describe(steps: &[Step]) -> String {
    let words: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Run(run) => run::shown_command(&run.command),
            Step::File(FileStep::Move(to)) => format!("move to {}", shown(to.as_os_str())),
            Step::File(FileStep::Copy(to)) => format!("copy to {}", shown(to.as_os_str())),
            Step::File(FileStep::Delete) => "delete".to_owned(),
        })
        .collect();
    words.join("; ")
}

/// The facts of the event, with the file where it is now.
fn facts(work: &Work, file: Option<&FileRef>) -> Map<String, Value> {
    let mut facts = work.facts.clone();
    if let Some(file) = file {
        file.refresh(&mut facts);
    }
    if let (Some(id), Value::Object(event)) = (
        work.event,
        facts.entry("event").or_insert_with(|| Value::Object(Map::new())),
    ) {
        event.entry("id").or_insert(Value::from(id.0));
    }
    facts
}

/// The outcome of work that was in hand when we were killed: it may have run, wholly or in part, and
/// nobody saw its end. `effect` is the entry's; one that cannot be read makes no event.
pub fn lost(entry: &Entry, effect: &[u8]) -> Vec<NewEvent> {
    let Ok(work) = serde_json::from_slice::<Work>(effect) else {
        return Vec::new();
    };
    if !work.reports {
        return Vec::new();
    }
    let report = JobReport {
        name: work.job.clone(),
        attempt: 1,
        lost: true,
        summary: "tidings was ended while it ran; how it ended is not known".to_owned(),
        started: entry.changed.to_string(),
        ended: entry.changed.to_string(),
        command: describe(&work.steps),
        entry: Some(entry.id),
        ..JobReport::default()
    };
    vec![outcome(&work, &report, work.file.clone(), entry.attempts)]
}

/// Facts of a set whose files were moved.
pub fn moved(facts: &mut Map<String, Value>, files: &[FileRef]) {
    if !files.is_empty() {
        let files = files.iter().map(FileRef::set_facts).collect();
        facts.insert("files".to_owned(), files);
    }
}

/// The event of some work's end; `attempt` is the entry's count of attempts begun.
pub fn outcome(work: &Work, report: &JobReport, file: Option<FileRef>, attempt: u32) -> NewEvent {
    let key = match report.entry {
        Some(entry) => job::entry_key(entry, attempt),
        None => format!("job:{}:{}", report.name, report.ended),
    };
    let origin = work.event.map(|event| Origin {
        rule: work.job.clone(),
        event,
    });
    job::outcome(report, origin, &work.facts, file, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn to(text: &str, facts: &Value, file: Option<&FileRef>) -> Result<Vec<u8>, RenderError> {
        let spec = StepSpec::Move(Text::compile(text).unwrap());
        let steps = prepare(&[spec], facts, file, Path::new("/setup"))?;
        match &steps[..] {
            [Step::File(FileStep::Move(path))] => Ok(path.as_os_str().as_bytes().to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_place_starts_at_the_setup_folder_and_keeps_its_last_slash() {
        let none = json!({});
        assert_eq!(to("drop/done/", &none, None).unwrap(), b"/setup/drop/done/");
        assert_eq!(to("../done/x.csv", &none, None).unwrap(), b"/setup/../done/x.csv");
        assert_eq!(to("/srv/done/", &none, None).unwrap(), b"/srv/done/");
    }

    #[test]
    fn a_file_name_cannot_climb_out_of_the_place() {
        let facts = json!({"file": {"stem": ".."}});
        let error = to("done/{{file.stem}}/", &facts, None).unwrap_err();
        assert!(error.message.contains("only the rule itself may say"), "{error}");
        assert!(to("", &facts, None).is_err());
        assert!(to("{{file.stem}}", &json!({"file": {"stem": "a\0b"}}), None).is_err());
    }

    #[test]
    fn a_place_named_by_odd_bytes_keeps_them() {
        let file = FileRef {
            root: OsString::from_vec(b"/dr\xf6p".to_vec()).into(),
            relative: OsString::from_vec(b"caf\xe9.csv".to_vec()).into(),
            size: 0,
            mtime_ns: 0,
        };
        let facts = json!({"file": file.facts()});
        let place = |text| to(text, &facts, Some(&file)).unwrap();
        assert_eq!(place("{{file.folder}}/done/"), b"/dr\xf6p/done/");
        assert_eq!(place("/kept/old {{file.name}}"), b"/kept/old caf\xe9.csv");
        assert_eq!(place("{{file.root}}/{{file.name}}"), b"/dr\xf6p/caf\xe9.csv");
    }
}
