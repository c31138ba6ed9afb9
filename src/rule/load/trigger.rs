//! `when:` and the watches it needs.

use crate::config::check::plain;
use crate::config::document::At;
use crate::config::raw::rules as raw;
use crate::rule::Trigger;
use crate::rule::facts::word::TriggerWord;
use crate::rule::load::Loader;
use crate::rule::load::sample::sample_name;
use crate::rule::load::words::Words;
use crate::source::schedule::{Missed, Schedule, ScheduleSpec};
use crate::source::wanted::Ignore;
use crate::source::{Existing, Identity, Settle, Wanted, Watch};
use crate::suggest;
use crate::template::Text;
use globset::{Glob, GlobBuilder, GlobMatcher};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// What a trigger is, as far as facts go.
pub fn word(raw: &raw::Trigger) -> TriggerWord {
    match raw {
        raw::Trigger::FileArrives(files) if files.together.is_some() => TriggerWord::FilesTogether,
        raw::Trigger::FileArrives(_) => TriggerWord::FileArrives,
        raw::Trigger::FileChanges(_) => TriggerWord::FileChanges,
        raw::Trigger::FileRemoved(_) => TriggerWord::FileRemoved,
        raw::Trigger::Schedule(_) => TriggerWord::Schedule,
        raw::Trigger::JobSucceeds(_)
        | raw::Trigger::JobFails(_)
        | raw::Trigger::JobFinishes(_)
        | raw::Trigger::JobRecovers(_) => TriggerWord::Job,
        raw::Trigger::FileMissing(_) => TriggerWord::FileMissing,
        raw::Trigger::FolderBacklog(_) => TriggerWord::FolderBacklog,
        raw::Trigger::JobMissing(_) => TriggerWord::JobMissing,
        raw::Trigger::JobRunsLong(_) => TriggerWord::JobRunsLong,
        raw::Trigger::Event(_) => TriggerWord::Event,
        raw::Trigger::Trouble(_) => TriggerWord::Trouble,
    }
}

/// A pattern for paths: `*` and `?` stay within a folder.
pub fn glob(pattern: &str) -> Result<Glob, String> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| error.kind().to_string())
}

impl Loader<'_> {
    /// One trigger; `None` when it is wrong, which has been said.
    pub(super) fn trigger(&mut self, at: &At<'_>, rule: &str, raw: &raw::Trigger) -> Option<Trigger> {
        match raw {
            raw::Trigger::FileArrives(raw) => self.file_arrives(&at.key("file_arrives"), raw),
            raw::Trigger::FileChanges(raw) => self.file_changes(&at.key("file_changes"), raw),
            raw::Trigger::FileRemoved(raw) => self.file_removed(&at.key("file_removed"), raw),
            raw::Trigger::Schedule(raw) => self.schedule(&at.key("schedule"), raw),
            raw::Trigger::JobSucceeds(job) => {
                self.job(&at.key("job_succeeds"), job).map(Trigger::JobSucceeds)
            }
            raw::Trigger::JobFails(job) => self.job(&at.key("job_fails"), job).map(Trigger::JobFails),
            raw::Trigger::JobFinishes(job) => {
                self.job(&at.key("job_finishes"), job).map(Trigger::JobFinishes)
            }
            raw::Trigger::JobRecovers(job) => {
                self.job(&at.key("job_recovers"), job).map(Trigger::JobRecovers)
            }
            raw::Trigger::FileMissing(raw) => self.file_missing(&at.key("file_missing"), rule, raw),
            raw::Trigger::FolderBacklog(raw) => self.folder_backlog(&at.key("folder_backlog"), rule, raw),
            raw::Trigger::JobMissing(raw) => self.job_missing(&at.key("job_missing"), rule, raw),
            raw::Trigger::JobRunsLong(raw) => self.job_runs_long(&at.key("job_runs_long"), rule, raw),
            raw::Trigger::Event(event) => self.event(&at.key("event"), event),
            raw::Trigger::Trouble(trouble) => {
                let all = [
                    raw::TroubleOf::Account,
                    raw::TroubleOf::Mail,
                    raw::TroubleOf::Watch,
                    raw::TroubleOf::Rule,
                    raw::TroubleOf::Store,
                ];
                let of = trouble.of.as_ref().map_or(&all[..], |of| &of.0);
                let of = of.iter().map(|of| match of {
                    raw::TroubleOf::Account => "account",
                    raw::TroubleOf::Mail => "mail",
                    raw::TroubleOf::Watch => "watch",
                    raw::TroubleOf::Rule => "rule",
                    raw::TroubleOf::Store => "store",
                });
                Some(Trigger::Trouble(of.map(str::to_owned).collect()))
            }
        }
    }

    fn schedule(&mut self, at: &At<'_>, raw: &raw::Schedule) -> Option<Trigger> {
        let timezone = match &raw.timezone {
            Some(name) => self.checker.timezone(&at.key("timezone"), name)?,
            None => self.checked.settings.defaults.timezone.clone(),
        };
        let every = match &raw.every {
            Some(time) => match crate::config::quantity::time(&time.0) {
                Ok(every) => Some(every),
                Err(help) => {
                    let spot = at.key("every");
                    self.complain(spot.error(format!("`{}` is not a time", time.0)).hint(help));
                    return None;
                }
            },
            None => None,
        };
        let spec = ScheduleSpec {
            cron: raw.cron.as_deref(),
            every,
            timezone,
            missed: match raw.missed {
                None | Some(raw::Missed::Once) => Missed::Once,
                Some(raw::Missed::All) => Missed::All,
                Some(raw::Missed::Skip) => Missed::Skip,
            },
        };
        match Schedule::compile(&spec) {
            Ok(schedule) => Some(Trigger::Schedule(schedule)),
            Err(error) => {
                let spot = if raw.cron.is_some() {
                    at.key("cron")
                } else {
                    at.key("every")
                };
                self.complain(spot.error(error.message).hint(error.hint));
                None
            }
        }
    }

    pub(super) fn job(&mut self, at: &At<'_>, raw: &raw::Job) -> Option<GlobMatcher> {
        let spot = at.key("job");
        let pattern = raw.job.0.as_str();
        match Glob::new(pattern) {
            Ok(glob) if !pattern.is_empty() => {
                if !pattern.contains(['*', '?', '[', '{']) {
                    let name = pattern.to_owned();
                    self.listeners.push((
                        name,
                        spot.warning(format!("no rule here has a job called `{pattern}`")),
                    ));
                }
                Some(glob.compile_matcher())
            }
            Ok(_) => {
                self.complain(
                    spot.error("which job?")
                        .hint("a name, or a pattern: \"billing-*\""),
                );
                None
            }
            Err(error) => {
                self.complain(
                    spot.error(format!("`{pattern}` is not a pattern: {}", error.kind()))
                        .hint("`*` stands for anything: billing-*"),
                );
                None
            }
        }
    }

    /// Warns about a job that nobody here has, where a rule has almost that name. Jobs that report
    /// from elsewhere (`tidings exec`) may have any name.
    pub(super) fn listeners(&mut self) {
        let names: Vec<String> = self.names.keys().cloned().collect();
        for (job, problem) in std::mem::take(&mut self.listeners) {
            if names.contains(&job) {
                continue;
            }
            if let Some(near) = suggest::nearest(&job, names.iter().map(String::as_str)) {
                self.complain(problem.hint(format!("did you mean `{near}`?")));
            }
        }
    }

    /// Which files, and the watch that sees them.
    pub(super) fn looked_for(&mut self, at: &At<'_>, raw: &raw::FileArrives) -> Option<(String, Wanted)> {
        let root = self.checker.path(&raw.folder);
        self.reachable(&at.key("in"), &root);
        let (matching, recursive) = self.matching(at, raw)?;
        let mut ignore = Vec::new();
        self.ignored.clear();
        for (index, pattern) in raw.ignore.iter().flat_map(|many| &many.0).enumerate() {
            match glob(&pattern.0) {
                Ok(glob) => {
                    ignore.push(glob);
                    self.ignored.push_str(&format!("{}\0", pattern.0));
                }
                Err(why) => self.bad_pattern(&at.key("ignore").item(index), &pattern.0, &why),
            }
        }
        let min = raw.min_size.as_ref().map(|size| size.0.as_str());
        let max = raw.max_size.as_ref().map(|size| size.0.as_str());
        let min_size = self.checker.size(&at.key("min_size"), min, 0);
        let max_size = max.map(|text| self.checker.size(&at.key("max_size"), Some(text), u64::MAX));
        if max_size.is_some_and(|max| max < min_size) {
            self.complain(
                at.key("max_size")
                    .error("no file is smaller than this and bigger than `min_size`")
                    .hint("exchange the two"),
            );
        }
        let wanted = Wanted {
            matching,
            ignore: Ignore::new(&ignore),
            recursive,
            min_size,
            max_size,
        };
        self.swallows_own(at, &root, raw, &wanted);
        let settle = self.settle(at, raw);
        let identity = match raw.identity {
            None | Some(raw::Identity::Metadata) => Identity::Metadata,
            Some(raw::Identity::Content) => Identity::Content,
        };
        let existing = match raw.existing {
            None | Some(raw::Existing::Ignore) => Existing::Ignore,
            Some(raw::Existing::Process) => Existing::Process,
        };
        let id = watch_id(&root, &settle, identity, existing);
        let watch = self.watches.entry(id.clone()).or_insert_with(|| Watch {
            id: id.clone(),
            root,
            settle,
            identity,
            existing,
            wanted: Vec::new(),
            removed: Vec::new(),
            sets: Vec::new(),
            scan_every: self.checked.scan_every,
        });
        watch.wanted.push(wanted.clone());
        Some((id, wanted))
    }

    /// The folder must be there, and readable.
    fn reachable(&mut self, at: &At<'_>, root: &Path) {
        let shown = root.display();
        match std::fs::read_dir(root) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.away(
                    at.error(format!("there is no folder {shown}"))
                        .hint(format!("mkdir -p {shown}")),
                );
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                self.away(
                    at.error(format!("{shown} is not a folder"))
                        .hint("folders are watched, not files; name the folder here and the file in `match`"),
                );
            }
            Err(error) => {
                self.away(
                    at.error(format!("cannot look into {shown}: {}", plain(&error)))
                        .hint("it must be readable for the user tidings runs as"),
                );
            }
        }
    }

    fn bad_pattern(&mut self, at: &At<'_>, pattern: &str, why: &str) {
        self.complain(
            at.error(format!("`{pattern}` is not a pattern: {why}"))
                .hint("`*` within a name, `**/` for any folders, [abc] one of these, {a,b} either"),
        );
    }

    fn matching(&mut self, at: &At<'_>, raw: &raw::FileArrives) -> Option<(GlobMatcher, bool)> {
        let spot = at.key("match");
        let written = raw.matching.as_ref().map(|glob| glob.0.as_str());
        let recursive = raw
            .recursive
            .unwrap_or_else(|| written.is_none_or(|pattern| pattern.contains('/')));
        let pattern = match written {
            None => "**/*".to_owned(),
            // Who asks for sub-folders and names no folder means any folder.
            Some(pattern) if raw.recursive == Some(true) && !pattern.contains('/') => format!("**/{pattern}"),
            Some(pattern) => pattern.to_owned(),
        };
        let never = if pattern.is_empty() {
            Some("an empty pattern matches nothing")
        } else if pattern.starts_with('/') {
            Some("this matches nothing: patterns are for the path below the folder")
        } else if pattern.starts_with("./") || pattern.contains("../") {
            Some("this matches nothing: paths below the folder have no `.` or `..`")
        } else if !recursive && pattern.contains('/') && !pattern.starts_with("**/") {
            Some("this matches nothing: with `recursive: false` no sub-folder is looked into")
        } else {
            None
        };
        if let Some(message) = never {
            self.complain(
                spot.error(message)
                    .hint("as \"*.csv\", \"**/*.csv\" or \"orders/*.csv\""),
            );
            return None;
        }
        match glob(&pattern) {
            Ok(glob) => Some((glob.compile_matcher(), recursive)),
            Err(why) => {
                self.bad_pattern(&spot, written.unwrap_or_default(), &why);
                None
            }
        }
    }

    fn settle(&mut self, at: &At<'_>, raw: &raw::FileArrives) -> Settle {
        let auto = raw.settle.as_ref().is_none_or(|settle| settle.0 == "auto");
        let when = raw.complete_when.as_ref().map(|when| &when.marker);
        if let Some(marker) = when.or(raw.marker.as_ref()) {
            let (key, spot) = match when {
                Some(_) => ("complete_when", at.key("complete_when").key("marker")),
                None => ("marker", at.key("marker")),
            };
            if when.is_some() && raw.marker.is_some() {
                self.complain(
                    at.name("marker")
                        .error("`marker` and `complete_when` say the same")
                        .hint("remove one of them"),
                );
            }
            if raw.settle.is_some() {
                self.complain(
                    at.name(key)
                        .error(format!("a file is done by `settle` or by `{key}`, not both"))
                        .hint("remove the one you do not need"),
                );
            }
            // The marker is looked for before there is an event: only the file is known, and not yet its end.
            let never = ["size", "modified"];
            let text = self.of_file_alone(&spot, &marker.0, "a marker", "{{file.name}}.done", &never);
            return text.map_or(Settle::Auto, Settle::Marker);
        }
        match &raw.settle {
            Some(settle) if !auto => {
                let spot = at.key("settle");
                if crate::config::quantity::time(&settle.0).is_err() {
                    self.complain(
                        spot.error(format!("`{}` is neither auto nor a time", settle.0))
                            .hint("auto, or how long a file must stand still: 10s, 2m"),
                    );
                    return Settle::Auto;
                }
                Settle::After(
                    self.checker
                        .some_time(&spot, Some(&settle.0), Duration::from_secs(1)),
                )
            }
            _ => Settle::Auto,
        }
    }

    /// A watch must not see what we write ourselves.
    fn swallows_own(&mut self, at: &At<'_>, root: &Path, raw: &raw::FileArrives, wanted: &Wanted) {
        let name = sample_name(raw.matching.as_ref().map_or("*", |glob| glob.0.as_str()));
        let state = &self.checked.settings.state;
        let files = ["tidings.db", "spool/message.eml", "logs/job.log"].map(str::to_owned);
        let sees = files
            .iter()
            .chain([&name])
            .any(|file| sees(root, wanted, &state.join(file)));
        if sees {
            self.complain(
                at.key("in")
                    .error("tidings' own state lies in this folder, and would be taken for arriving files")
                    .hint(format!(
                        "watch a folder beside {}, or add to `ignore`: \"{}/**\"",
                        state.display(),
                        state.strip_prefix(root).unwrap_or(state).display()
                    )),
            );
        }
        let folders: Vec<_> = self
            .checked
            .settings
            .accounts
            .values()
            .filter_map(|account| match &account.transport {
                crate::config::settings::Transport::File { folder } => Some((&account.name, folder)),
                _ => None,
            })
            .filter(|(_, folder)| self::sees(root, wanted, &folder.join("message.eml")))
            .map(|(name, folder)| {
                at.key("in")
                    .error(format!("the account `{name}` writes its mails into this folder"))
                    .hint(format!(
                        "each mail would arrive as a file; watch another folder, or add to `ignore`: \"{}/**\"",
                        folder.strip_prefix(root).unwrap_or(folder).display()
                    ))
            })
            .collect();
        for problem in folders {
            self.complain(problem);
        }
    }
}

/// Whether a watch of `root` with these wishes would report a file at `path`.
pub fn sees(root: &Path, wanted: &Wanted, path: &Path) -> bool {
    let Ok(relative) = path.strip_prefix(root) else {
        return false;
    };
    wanted.matches(relative)
}

/// A watch's id: equal for rules that can share a watch, and the same after a restart. The patterns
/// are not in it, so a new pattern does not make the folder a new one whose files are all unknown.
fn watch_id(root: &Path, settle: &Settle, identity: Identity, existing: Existing) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(root.as_os_str().as_bytes());
    let settle = match settle {
        Settle::Auto => "auto".to_owned(),
        Settle::After(time) => format!("after {} ms", time.as_millis()),
        Settle::Marker(text) => format!("marker {}", text.source()),
    };
    for part in [
        settle.as_str(),
        match identity {
            Identity::Metadata => "metadata",
            Identity::Content => "content",
        },
        match existing {
            Existing::Ignore => "ignore",
            Existing::Process => "process",
        },
    ] {
        hash.update(b"\0").update(part.as_bytes());
    }
    hash.finalize().to_hex().as_str()[..16].to_owned()
}

impl Loader<'_> {
    /// A text with `{{..}}`, compiled, and everything it says checked.
    pub(super) fn text(&mut self, at: &At<'_>, source: &str, words: &Words) -> Option<Text> {
        let text = match Text::compile(source) {
            Ok(text) => text,
            Err(error) => {
                self.complain(
                    at.within(error.offset)
                        .error(error.message)
                        .hint(error.hint.unwrap_or_default()),
                );
                return None;
            }
        };
        let mut fine = true;
        for variable in text.variables() {
            self.asks.texts.note(&variable.path);
            if let Err(unsaid) = words.say(&variable.path, variable.guarded) {
                self.complain(at.within(variable.offset).error(unsaid.message).hint(unsaid.hint));
                fine = false;
            }
        }
        fine.then_some(text)
    }
}
