//! `tidings explain file`: what became of a file, here or gone; or why nothing did, and what would if it came now.

use super::event::{self, Told};
use super::found::{Below, Found, There};
use super::story::{Lines, Story, Times};
use super::suppose::{Answer, decide, supposed};
use super::{Sight, silence};
use crate::cli::{events, show};
use crate::entry::{Kind as Effect, State};
use crate::event::{Event, EventId, FileRef, Kind, NewEvent, shown};
use crate::rule::load::Setup;
use crate::rule::{Rule, Trigger};
use crate::source::file::record;
use crate::source::file::status;
use crate::source::{Settle, Wanted, Watch};
use crate::store::{EventFilter, Store, StoreError};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Events of a file that are told in full.
const CAME: usize = 5;

/// Reads all there is about a file.
pub async fn read(setup: &Setup, store: &Store, given: &Path) -> Result<Found, StoreError> {
    let paths = ways(given);
    let there = look(&paths[0]);
    let (size, mtime_ns) = match there {
        There::File(size, mtime_ns) => (size, mtime_ns),
        _ => (1000, i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)),
    };
    let mut below = Vec::new();
    let mut answers = Vec::new();
    for watch in &setup.watches {
        let Some(relative) = relative(&watch.root, &paths) else {
            continue;
        };
        let file = FileRef {
            root: watch.root.clone(),
            relative: relative.clone(),
            size,
            mtime_ns,
        };
        let mut unwanted = Vec::new();
        for (rule, wanted) in lookers(setup, watch) {
            let why = why_not(wanted, &file, matches!(there, There::File(..)));
            unwanted.push((rule.name.clone(), why.clone()));
            if !matches!(there, There::Other(_)) {
                answers.push(match why {
                    Some(why) => Answer::no(rule, why),
                    None => arrives(setup, store, rule, watch, &file),
                });
            }
        }
        let mark = store.marks(&status::mark(&watch.id)).await?.pop();
        below.push(Below {
            known: store.seen_file(&watch.id, &relative).await?,
            status: mark.and_then(|(_, mark)| serde_json::from_value(mark).ok()),
            link: link_on_the_way(&watch.root, &relative),
            marker: missing_marker(watch, &file),
            watch: watch.clone(),
            unwanted,
        });
    }
    let roots: Vec<PathBuf> = store
        .watches()
        .await?
        .into_iter()
        .map(|watch| watch.root)
        .collect();
    let former = roots.iter().find(|root| {
        relative(root, &paths).is_some() && setup.watches.iter().all(|watch| watch.root != **root)
    });
    let mut came = events_of(store, &roots, &paths).await?;
    let more = came.len() > CAME;
    came.truncate(CAME);
    let mut found = Found {
        path: shown(paths[0].as_os_str()),
        there,
        came: Vec::new(),
        more,
        below,
        watched: setup.watches.iter().map(|watch| watch.root.clone()).collect(),
        former: former.cloned(),
        namesakes: Vec::new(),
        answers,
    };
    for id in came {
        found.came.extend(super::told(store, id).await?);
    }
    if found.came.is_empty()
        && let Some(name) = paths[0].file_name()
    {
        found.namesakes = namesakes(store, name).await?;
    }
    Ok(found)
}

/// The same place by several names: as it was typed, and with symbolic links followed.
fn ways(given: &Path) -> Vec<PathBuf> {
    let typed = tidy(&std::path::absolute(given).unwrap_or_else(|_| given.to_owned()));
    let mut ways = vec![typed.clone()];
    let followed = typed
        .parent()
        .and_then(|folder| folder.canonicalize().ok())
        .zip(typed.file_name())
        .map(|(folder, name)| folder.join(name));
    ways.extend(followed.filter(|followed| *followed != typed));
    ways
}

/// Without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}

/// The path below a root, by any of its names.
fn relative(root: &Path, paths: &[PathBuf]) -> Option<PathBuf> {
    let followed = root.canonicalize().ok();
    let roots = [Some(root.to_owned()), followed];
    roots.iter().flatten().find_map(|root| {
        paths
            .iter()
            .find_map(|path| path.strip_prefix(root).ok())
            .filter(|relative| !relative.as_os_str().is_empty())
            .map(Path::to_owned)
    })
}

fn look(path: &Path) -> There {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return There::Nothing,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return There::Nothing,
        Err(error) => return There::Hidden(error.to_string()),
    };
    let kind = metadata.file_type();
    if kind.is_file() {
        let mtime_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        There::File(metadata.len(), mtime_ns)
    } else if kind.is_dir() {
        There::Other("a folder".to_owned())
    } else if kind.is_symlink() {
        There::Other(match std::fs::read_link(path) {
            Ok(target) => format!("a symbolic link to {}", shown(target.as_os_str())),
            Err(_) => "a symbolic link".to_owned(),
        })
    } else {
        There::Other("a pipe, a socket or a device".to_owned())
    }
}

fn link_on_the_way(root: &Path, relative: &Path) -> Option<PathBuf> {
    let folders: Vec<&Path> = relative.ancestors().skip(1).collect();
    let mut folders = folders
        .into_iter()
        .rev()
        .filter(|folder| !folder.as_os_str().is_empty());
    folders
        .find(|folder| std::fs::symlink_metadata(root.join(folder)).is_ok_and(|found| found.is_symlink()))
        .map(|folder| root.join(folder))
}

fn missing_marker(watch: &Watch, file: &FileRef) -> Option<PathBuf> {
    let Settle::Marker(text) = &watch.settle else {
        return None;
    };
    let name = text.render(&json!({ "file": file.facts() })).ok()?;
    let marker = watch.root.join(record::marker(&file.relative, &name)?);
    (!marker.exists()).then_some(marker)
}

/// Events about exactly this file, or about a path that is shown like this one: the newest first, one more than
/// are told.
async fn events_of(store: &Store, roots: &[PathBuf], paths: &[PathBuf]) -> Result<Vec<EventId>, StoreError> {
    let mut found: Vec<EventId> = Vec::new();
    for root in roots {
        let Some(relative) = relative(root, paths) else {
            continue;
        };
        let filter = EventFilter {
            file: Some(FileRef {
                root: root.clone(),
                relative,
                size: 0,
                mtime_ns: 0,
            }),
            limit: CAME + 1,
            ..EventFilter::default()
        };
        found.extend(store.events(filter).await?.into_iter().map(|event| event.id));
    }
    for path in paths {
        // What was copied from our own output has its odd bytes escaped.
        let subject = shown(path.as_os_str());
        let filter = EventFilter {
            subject: Some(subject.clone()),
            limit: CAME + 1,
            ..EventFilter::default()
        };
        let same = store.events(filter).await?.into_iter();
        found.extend(
            same.filter(|event| event.happening.subject == subject)
                .map(|event| event.id),
        );
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    Ok(found)
}

async fn namesakes(store: &Store, name: &OsStr) -> Result<Vec<Event>, StoreError> {
    let name = shown(name);
    let filter = EventFilter {
        kind: Some(Kind::FileArrives),
        subject: Some(format!("/{name}")),
        limit: 20,
        ..EventFilter::default()
    };
    let ending = format!("/{name}");
    let found = store.events(filter).await?.into_iter();
    Ok(found
        .filter(|event| event.happening.subject.ends_with(&ending))
        .take(3)
        .collect())
}

/// Rules that look for files in a watch.
fn lookers<'a>(setup: &'a Setup, watch: &'a Watch) -> impl Iterator<Item = (&'a Rule, &'a Wanted)> {
    setup.rules.iter().flat_map(move |rule| {
        let here = rule.triggers.iter().filter_map(Trigger::arrival);
        here.filter(move |(id, _)| *id == watch.id)
            .map(move |(_, wanted)| (rule, wanted))
    })
}

/// Why a file is not what a rule looks for.
fn why_not(wanted: &Wanted, file: &FileRef, size_is_known: bool) -> Option<String> {
    let relative = &file.relative;
    if !wanted.recursive && relative.components().nth(1).is_some() {
        return Some("it lies in a sub-folder, and the rule looks in the folder itself only".to_owned());
    }
    if !wanted.matching.is_match(relative) {
        return Some(format!(
            "its path does not match `{}`",
            wanted.matching.glob().glob()
        ));
    }
    if let Some((pattern, part)) = wanted.ignore.by(relative) {
        return Some(if part == relative.as_path() {
            format!("`ignore: {pattern}` leaves it out")
        } else {
            format!(
                "it lies in {}, which `ignore: {pattern}` leaves out",
                shown(part.as_os_str())
            )
        });
    }
    if !size_is_known {
        return None;
    }
    if file.size < wanted.min_size {
        return Some(format!(
            "its {} are less than the rule's min_size of {}",
            show::bytes(file.size),
            show::bytes(wanted.min_size)
        ));
    }
    match wanted.max_size {
        Some(max) if file.size > max => Some(format!(
            "its {} are more than the rule's max_size of {}",
            show::bytes(file.size),
            show::bytes(max)
        )),
        _ => None,
    }
}

/// What a rule would make of its arrival.
fn arrives(setup: &Setup, store: &Store, rule: &Rule, watch: &Watch, file: &FileRef) -> Answer {
    let here = |trigger: &&Trigger| trigger.arrival().is_some_and(|(id, _)| id == watch.id);
    let alone = rule.triggers.iter().filter(here);
    if alone
        .clone()
        .all(|trigger| matches!(trigger, Trigger::FilesTogether { .. }))
    {
        let why = "it waits for the files that belong together with this one (`together`)";
        return Answer::no(rule, why.to_owned());
    }
    let changes = |trigger: &Trigger| {
        matches!(
            trigger,
            Trigger::FileChanges { .. } | Trigger::FilesTogether { .. }
        )
    };
    let changed = alone.clone().all(changes);
    let mut told = file.facts();
    told["changed"] = changed.into();
    let happening = NewEvent {
        key: "explain".to_owned(),
        kind: Kind::FileArrives,
        source: watch.id.clone(),
        subject: shown(file.path().as_os_str()),
        time: Timestamp::now(),
        facts: Map::from_iter([("file".to_owned(), told)]),
        file: Some(file.clone()),
        origin: None,
        case: None,
    };
    let mut answer = decide(setup, store, rule, &supposed(happening, false), None);
    if changed && answer.fires {
        answer.why = match answer.why.as_str() {
            "" => "only as a new version of a known file".to_owned(),
            why => format!("only as a new version of a known file; {why}"),
        };
    }
    answer
}

/// `2 mails: accepted, held`.
fn mails(told: &Told) -> String {
    let mails = || {
        told.detail
            .entries
            .iter()
            .filter(|entry| entry.kind == Effect::Mail)
    };
    if mails().next().is_none() {
        return match told.detail.dispatched {
            None => "and the rules have not been asked yet".to_owned(),
            Some(_) if !told.gathered.is_empty() => "and is to be told together with others".to_owned(),
            Some(_) if !told.detail.entries.is_empty() => "and led to work".to_owned(),
            Some(_) => match told.detail.verdicts.as_slice() {
                [] => "and no rule there was then is about it".to_owned(),
                [one] => format!(
                    "and led to no mail: rule {} {}",
                    one.rule,
                    events::said(&one.outcome, &one.detail)
                ),
                _ => "and led to no mail".to_owned(),
            },
        };
    }
    let states: Vec<String> = State::ALL
        .into_iter()
        .filter_map(
            |state| match mails().filter(|entry| entry.state == state).count() {
                0 => None,
                1 => Some(state.as_str().to_owned()),
                count => Some(format!("{count} {}", state.as_str())),
            },
        )
        .collect();
    format!(
        "and led to {} ({})",
        show::count(mails().count() as u64, "mail"),
        states.join(", ")
    )
}

fn headline(found: &Found, why: &str, times: &Times) -> String {
    let came = found
        .came
        .iter()
        .find(|told| told.detail.event.happening.kind == Kind::FileArrives)
        .or(found.came.first());
    match came {
        Some(told) => {
            let event = &told.detail.event;
            format!(
                "The file {} arrived {}, {}.",
                found.path,
                times.how_far(event.happening.time),
                mails(told)
            )
        }
        None => format!("The journal knows of no arrival of {}: {why}.", found.path),
    }
}

/// The whole answer. Pure.
pub fn story(found: &Found, sight: &Sight) -> Story {
    let times = &sight.times;
    let silence = silence::why(found, sight);
    let mut story = Story::new(headline(found, &silence.short, times));
    let mut came = Lines::default();
    for told in &found.came {
        let event = &told.detail.event;
        came.say(
            0,
            format!(
                "Event {}: {}, {}.",
                event.id,
                event::happened(event),
                times.at(event.happening.time)
            ),
        );
        came.under(event::rules(told, sight));
        for entry in &told.detail.entries {
            came.say(1, event::entry(entry, times));
        }
    }
    if found.more {
        came.say(0, "There are older ones: `tidings events list --subject PATH`.");
    }
    story.part("What became of it", came);
    story.part("Why nothing came of it", silence.lines);
    let mut namesakes = Lines::default();
    for event in &found.namesakes {
        namesakes.say(
            0,
            format!(
                "Event {}: {}, {}.",
                event.id,
                event::happened(event),
                times.at(event.happening.time)
            ),
        );
    }
    story.part("A file of that name came elsewhere", namesakes);
    let mut now = Lines::default();
    if !found.answers.is_empty() {
        now.say(
            0,
            match &found.there {
                There::File(size, _) => format!("As it lies there, with {}:", show::bytes(*size)),
                There::Hidden(why) => format!("It cannot be looked at ({why}); taking 1 kB:"),
                _ => "Nothing lies there; taking 1 kB:".to_owned(),
            },
        );
    }
    for answer in &found.answers {
        answer.tell(&mut now);
    }
    story.part("If it came now", now);
    let regular = matches!(found.there, There::File(..));
    story.with("path", json!(found.path));
    story.with("there", json!(!matches!(found.there, There::Nothing)));
    story.with("regular", json!(regular || found.there == There::Nothing));
    if let There::File(size, _) = found.there {
        story.with("size", json!(size));
    }
    story.with("came", found.came.iter().map(event::to_json).collect());
    story.with("why_not", json!(found.came.is_empty().then_some(silence.short)));
    story.with("elsewhere", found.namesakes.iter().map(events::as_json).collect());
    let rules: Vec<Value> = found.answers.iter().map(Answer::to_json).collect();
    story.with("rules", Value::Array(rules));
    story
}
