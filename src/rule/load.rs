//! A setup folder becomes what runs: settings, templates, rules, watches. All problems at once.
//!
//! The order is that of a reader: settings, templates, then each rule in its file. What could not be
//! understood in one place is remembered ([`Unsure`](crate::config::check::Unsure)), so that a rule
//! that uses it is not blamed. Nothing here waits, connects or writes; folders and files are looked
//! at, once.
//!
//! | file | is about |
//! |---|---|
//! | [`trigger`] | `when:` and the watches it needs |
//! | [`absence`] | those of them with a deadline or a limit |
//! | [`files`] | which files, and which belong together |
//! | [`words`] | what a rule's texts may say |
//! | [`mail`] | `mail:` |
//! | [`telling`] | `group:`, `throttle:`, `quiet_hours:` |
//! | [`work`] | `run:`, `move:`, `copy:`, `delete:` |
//! | [`ladder`] | `remind:`, `escalate:` |
//! | [`emit`] | `event:` and `emit:` |
//! | [`circle`] | rules whose work would start themselves again |

pub mod absence;
pub mod circle;
pub mod emit;
pub mod files;
pub mod ladder;
pub mod mail;
pub mod sample;
pub mod telling;
pub mod trigger;
pub mod words;
pub mod work;

use crate::config::advice;
use crate::config::check::{self, Checked, Checker, plain};
use crate::config::diagnostic::{self, Place, Problem, Severity};
use crate::config::document::{self, At, Document};
use crate::config::raw::rules as raw;
use crate::config::settings::Settings;
use crate::config::{schema, shape};
use crate::mail::address::Address;
use crate::rule::condition::Condition;
use crate::rule::demand::Asks;
use crate::rule::index::Branch;
use crate::rule::load::words::Words;
use crate::rule::{Outcome, Rule};
use crate::source::Watch;
use crate::suggest;
use crate::template::Templates;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most files in `rules/`.
const FILES: usize = 5_000;
/// Most bytes of all files in `rules/` together.
const BYTES: u64 = 32_000_000;

/// A setup that can run.
#[derive(Debug)]
pub struct Setup {
    /// `tidings.yaml`.
    pub settings: Settings,
    /// Shipped templates and those of the setup.
    pub templates: Templates,
    /// All rules, by file and then by name.
    pub rules: Vec<Rule>,
    /// The folders they watch, each once.
    pub watches: Vec<Watch>,
    /// What somebody should know all the same.
    pub warnings: Vec<Problem>,
}

/// What a watched folder that is not there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// A mistake: somebody checks the setup, and most likely misspelled it.
    Mistake,
    /// Bad luck: the setup is to run, and a share that is away must not keep the other rules from
    /// running. The watch itself tells when it comes back.
    BadLuck,
    /// Of no account: the setup is tried out on a machine where it may never run. Programs are not looked for
    /// either.
    Elsewhere,
}

/// Reads and checks a whole setup, as `tidings check` does.
pub fn setup(dir: &Path) -> Result<Setup, Vec<Problem>> {
    load(dir, Away::Mistake)
}

/// Reads and checks a whole setup. Either it is sound in every respect, or every problem (and every
/// warning) comes back, sorted as a person works through them.
pub fn load(dir: &Path, away: Away) -> Result<Setup, Vec<Problem>> {
    let mut problems = Vec::new();
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let dir: PathBuf = dir.components().collect();
    let settings_file = settings_file(&dir)?;
    let (templates, broken) = templates(&dir, &mut problems);
    let known = |name: &str| known_template(&templates, &broken, name);
    let document = Document::open(&dir, settings_file, &mut problems);
    let mut checker = Checker {
        dir: &dir,
        template: &known,
        problems: &mut problems,
    };
    let mut checked = check::settings(&mut checker, document);
    checked.settings.advice = advice::read(&dir, checker.problems);
    let mut loader = Loader {
        checker,
        checked: &checked,
        templates: &templates,
        broken: &broken,
        away,
        names: BTreeMap::new(),
        watches: BTreeMap::new(),
        links: Vec::new(),
        listeners: Vec::new(),
        rules: Vec::new(),
        written: checked.settings.written_out().cloned().collect(),
        asks: Asks::default(),
        ignored: String::new(),
    };
    let files = loader.files();
    let documents: Vec<Document> = files
        .iter()
        .filter_map(|file| Document::open(&dir, file, loader.checker.problems))
        .collect();
    for document in documents {
        loader.document(document);
    }
    if loader.checker.problems.len() > check::MOST {
        let file = loader.checker.problems.last().map(|problem| problem.file.clone());
        loader.complain(
            Problem::warning(
                file.unwrap_or_default(),
                "there may be more problems than are told here",
            )
            .hint("mend these first, then check again"),
        );
    }
    loader.circles();
    loader.listeners();
    let watches: Vec<Watch> = loader.watches.into_values().collect();
    let rules = loader.rules;
    diagnostic::sort(&mut problems);
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    Ok(Setup {
        settings: checked.settings,
        templates,
        rules,
        watches,
        warnings: problems,
    })
}

/// The settings alone, for commands that only read or change what is kept: a rule or template with a
/// problem does not stand in their way.
pub fn settings(dir: &Path) -> Result<Settings, Vec<Problem>> {
    let mut problems = Vec::new();
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let dir: PathBuf = dir.components().collect();
    let file = settings_file(&dir)?;
    let document = Document::open(&dir, file, &mut problems);
    let mut checker = Checker {
        dir: &dir,
        template: &|_| Ok(()),
        problems: &mut problems,
    };
    let mut checked = check::settings(&mut checker, document);
    checked.settings.advice = advice::read(&dir, checker.problems);
    diagnostic::sort(&mut problems);
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    Ok(checked.settings)
}

/// `tidings.yaml`, if the setup has one.
fn settings_file(dir: &Path) -> Result<&'static Path, Vec<Problem>> {
    let file = Path::new("tidings.yaml");
    if dir.join(file).exists() {
        return Ok(file);
    }
    let message = if dir.is_dir() {
        format!("there is no tidings.yaml in {}", dir.display())
    } else if dir.exists() {
        format!(
            "{} is a file, and a setup is the folder it lies in",
            dir.display()
        )
    } else {
        format!("there is no folder {}", dir.display())
    };
    Err(vec![Problem::error(file, message).hint(
        "name the setup folder with --config DIR or TIDINGS_CONFIG, or make one: tidings init DIR",
    )])
}

/// The templates; where some are broken, the shipped ones and the names of what was written.
fn templates(dir: &Path, problems: &mut Vec<Problem>) -> (Templates, BTreeSet<String>) {
    let folder = dir.join("templates");
    match Templates::load(Some(&folder)) {
        Ok(templates) => (templates, BTreeSet::new()),
        Err(faults) => {
            let mut broken = BTreeSet::new();
            for fault in faults {
                let file = fault.file.strip_prefix(dir).unwrap_or(&fault.file);
                problems.push(
                    Problem::error(file, fault.message)
                        .at(Place::at(fault.line, fault.column, &fault.source_line))
                        .hint(fault.hint.unwrap_or_default()),
                );
            }
            names_below(&folder, Path::new(""), 0, &mut broken);
            (Templates::shipped(), broken)
        }
    }
}

fn names_below(folder: &Path, below: &Path, depth: usize, names: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder.join(below)) else {
        return;
    };
    for entry in entries.flatten().take(FILES) {
        let path = below.join(entry.file_name());
        if depth < 8 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names_below(folder, &path, depth + 1, names);
        }
        let path = path.to_string_lossy();
        for ending in [".html.hbs", ".txt.hbs"] {
            names.extend(path.strip_suffix(ending).map(str::to_owned));
        }
    }
}

/// Whether there is such a template; else a hint.
fn known_template(templates: &Templates, broken: &BTreeSet<String>, name: &str) -> Result<(), String> {
    if templates.contains(name) || broken.contains(name) {
        return Ok(());
    }
    let names = templates.names();
    let near = suggest::nearest(
        name,
        names.iter().copied().chain(broken.iter().map(String::as_str)),
    );
    Err(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "write templates/{name}.html.hbs, or take one of {}",
            names.join(", ")
        ),
    })
}

/// What could not be used of a rule as it is written.
#[derive(Clone, Copy, Debug)]
struct Damage {
    rule: bool,
    /// Its triggers, and so the facts it will have.
    when: bool,
}

/// Makes rules of files.
struct Loader<'a> {
    checker: Checker<'a>,
    checked: &'a Checked,
    templates: &'a Templates,
    broken: &'a BTreeSet<String>,
    away: Away,
    /// Where each name was first used.
    names: BTreeMap<String, String>,
    watches: BTreeMap<String, Watch>,
    links: Vec<circle::Link>,
    /// Jobs that rules wait for, by name, and where they say so.
    listeners: Vec<(String, Problem)>,
    rules: Vec<Rule>,
    written: BTreeSet<Address>,
    /// What the rule at hand must know of a file, as far as it was read.
    asks: Asks,
    /// The `ignore` patterns of the trigger at hand.
    ignored: String,
}

impl Loader<'_> {
    fn complain(&mut self, problem: Problem) {
        self.checker.complain(problem);
    }

    /// The rule files, sorted.
    fn files(&mut self) -> Vec<PathBuf> {
        let folder = Path::new("rules");
        let entries = match std::fs::read_dir(self.checker.dir.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.no_rules();
                return Vec::new();
            }
            Err(error) => {
                self.complain(Problem::error(
                    folder,
                    format!("cannot read this folder: {}", plain(&error)),
                ));
                return Vec::new();
            }
        };
        let mut files = Vec::new();
        let mut total = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let shown = name.to_string_lossy();
            if shown.starts_with('.') || shown.ends_with(".test.yaml") {
                continue;
            }
            let file = folder.join(&name);
            if shown.ends_with(".yml") {
                self.complain(
                    Problem::warning(&file, "this file is not read").hint("only *.yaml is; rename it"),
                );
            }
            if !shown.ends_with(".yaml") {
                continue;
            }
            // A file that is too big by itself is refused by itself.
            let size = entry.metadata().map(|about| about.len()).unwrap_or_default();
            total += if size > document::LARGEST { 0 } else { size };
            files.push(file);
        }
        files.sort();
        if files.len() > FILES || total > BYTES {
            self.complain(
                Problem::error(
                    folder,
                    format!("{} rule files with {total} bytes are too much", files.len()),
                )
                .hint(format!(
                    "at most {FILES} files and {} MB together",
                    BYTES / 1_000_000
                )),
            );
            return Vec::new();
        }
        if files.is_empty() {
            self.no_rules();
        }
        files
    }

    fn no_rules(&mut self) {
        self.complain(
            Problem::warning("rules", "there are no rules, so nothing will ever happen")
                .hint("rules are written in files rules/*.yaml"),
        );
    }

    fn document(&mut self, document: Document) {
        let Some(sound) = shape::read::<raw::Rules>(document, &schema::RULES, self.checker.problems) else {
            return;
        };
        let at = sound.document.at().key("rules");
        if sound.raw.rules.is_empty() && sound.shape.is_sound() {
            self.complain(
                at.warning("there is no rule in this file")
                    .hint("write one below `rules:`, or remove the file"),
            );
        }
        for (name, raw) in sound.raw.rules {
            if self.checker.problems.len() > check::MOST {
                return;
            }
            let damage = Damage {
                rule: sound.shape.damaged(&["rules", &name]),
                when: sound.shape.damaged(&["rules", &name, "when"]),
            };
            let place = at.name(&name);
            self.checker.name(&place, "a rule", &name);
            let shown = place.shown();
            if let Some(first) = self.names.get(&name) {
                self.checker
                    .problems
                    .push(
                        place
                            .error(format!("there are two rules called `{name}`"))
                            .hint(format!(
                                "the other one stands at {first}; each needs a name of its own"
                            )),
                    );
                continue;
            }
            self.names.insert(name.clone(), shown.clone());
            if let Some(rule) = self.rule(&at.key(&name), &place, name, shown, raw, damage) {
                self.rules.push(rule);
            }
        }
    }

    /// One rule. Where it is damaged, nothing is said about what is missing: it may be there, misspelled.
    #[allow(clippy::too_many_arguments, reason = "the pieces of one rule, called once")]
    fn rule(
        &mut self,
        at: &At<'_>,
        name_at: &At<'_>,
        name: String,
        place: String,
        raw: raw::Rule,
        damage: Damage,
    ) -> Option<Rule> {
        let damaged = damage.rule;
        self.asks = Asks::default();
        let when = at.key("when");
        let many = raw.when.0.len();
        let triggers: Vec<_> = raw
            .when
            .0
            .iter()
            .enumerate()
            .filter_map(|(index, trigger)| self.trigger(&when.item(index), &name, trigger))
            .collect();
        let kinds: Vec<_> = raw.when.0.iter().map(trigger::word).collect();
        let data = Value::Object(raw.data.clone().unwrap_or_default());
        let words_of = |branch| Words::of(&kinds, branch, &data, damage.when);
        let words = words_of(None);
        let source = raw.condition.as_deref().filter(|_| !damage.when);
        let condition = source.and_then(|source| {
            let spot = at.key("if");
            match Condition::compile(source, words.all()) {
                Ok(condition) => {
                    for path in condition.names() {
                        self.asks.condition.note(path);
                    }
                    Some(condition)
                }
                Err(error) => {
                    let spot = error
                        .offset
                        .map_or_else(|| spot.clone(), |offset| spot.within(offset));
                    self.complain(spot.error(error.message).hint(error.hint.unwrap_or_default()));
                    None
                }
            }
        });
        let steps = work::Written {
            run: raw.run.as_ref(),
            copy: raw.copy.as_ref(),
            move_to: raw.move_to.as_ref(),
            delete: raw.delete,
        };
        let (work, overlap) = self.work(at, &name, &steps, &words);
        let has_work =
            raw.run.is_some() || raw.copy.is_some() || raw.move_to.is_some() || raw.delete.is_some();
        let mut mails = Vec::new();
        let mut on_success = Outcome::default();
        let success = words_of(Some(Branch::Success));
        let first_news = if has_work { &success } else { &words };
        let telling = self.telling(at, &raw, first_news);
        let told = (raw.group.is_some(), raw.throttle.is_some());
        if let Some(written) = &raw.mail {
            let words = first_news.clone().with_telling(told.0, told.1);
            let prepared = self.mails(&at.key("mail"), written, &words, damaged);
            if has_work && raw.on_success.is_some() {
                self.complain(
                    at.name("mail")
                        .error("does this mail come before or after the work?")
                        .hint("with `on_success`, write it there: on_success: { mail: .. }"),
                );
            } else if has_work {
                on_success.mails = prepared;
            } else {
                mails = prepared;
            }
        }
        let of_cases = raw.when.0.iter().all(ladder::opens_case);
        let mut emits = Vec::new();
        if let Some(written) = &raw.emit {
            let words = if has_work { &success } else { &words };
            let prepared = self.emits(&at.key("emit"), &name, written, words);
            if has_work && raw.on_success.is_some() {
                self.complain(
                    at.name("emit")
                        .error("does this event come before or after the work?")
                        .hint("with `on_success`, write it there: on_success: { emit: .. }"),
                );
            } else if has_work {
                on_success.emits = prepared;
            } else {
                emits = prepared;
            }
        }
        let outcome = |loader: &mut Self, key: &str, written: Option<&raw::Outcome>, branch| {
            let Some(written) = written else {
                return Outcome::default();
            };
            let of_case = branch == Branch::Recovery && of_cases;
            if !has_work && !damaged && !of_case {
                loader.complain(
                    at.name(key)
                        .error(format!("`{key}` has nothing to wait for: this rule does no work"))
                        .hint(
                            "work is `run`, `move`, `copy` or `delete`; for a plain notice write `mail`, \
                             for another rule's job bind to it with `job_fails`, `job_succeeds`",
                        ),
                );
            }
            // That it is over is neither grouped nor throttled.
            let told = if branch == Branch::Recovery {
                (false, false)
            } else {
                told
            };
            // Without work, what is over is the case: an absence then says what came, and there is no job of ours.
            let ended = has_work || kinds.iter().any(|kind| kind.is_absence());
            let words = words_of(ended.then_some(branch));
            let said = words.clone().with_telling(told.0, told.1);
            loader.outcome(&at.key(key), &name, written, (&words, &said), damaged)
        };
        if let Some(written) = &raw.on_success {
            let made = outcome(self, "on_success", Some(written), Branch::Success);
            on_success.work = made.work;
            on_success.mails.extend(made.mails);
            on_success.emits.extend(made.emits);
        }
        let on_failure = outcome(self, "on_failure", raw.on_failure.as_ref(), Branch::Failure);
        let on_recovery = outcome(self, "on_recovery", raw.on_recovery.as_ref(), Branch::Recovery);
        let ground = ladder::Ground {
            at,
            words: &words,
            has_work,
            damaged,
        };
        let ladder = self.ladder(&raw, &ground);
        let idle = !has_work
            && raw.mail.is_none()
            && raw.escalate.is_none()
            && raw.emit.is_none()
            && [&raw.on_success, &raw.on_failure, &raw.on_recovery]
                .iter()
                .all(|outcome| outcome.is_none());
        if idle && !damaged {
            self.complain(
                name_at
                    .error("this rule does nothing")
                    .hint("add `mail:` (whom to tell), or work: `run:`, `move:`, `copy:`, `delete:`"),
            );
        }
        if has_work {
            self.works(name_at, &name);
        }
        (triggers.len() == many).then_some(Rule {
            name,
            description: raw.description.clone(),
            place,
            triggers,
            condition,
            data,
            work,
            overlap,
            mails,
            emits,
            on_success,
            on_failure,
            on_recovery,
            asks: std::mem::take(&mut self.asks),
            ladder,
            telling,
        })
    }

    fn outcome(
        &mut self,
        at: &At<'_>,
        rule: &str,
        raw: &raw::Outcome,
        (words, said): (&Words, &Words),
        damaged: bool,
    ) -> Outcome {
        let steps = work::Written {
            run: None,
            copy: raw.copy.as_ref(),
            move_to: raw.move_to.as_ref(),
            delete: raw.delete,
        };
        let (work, _) = self.work(at, rule, &steps, words);
        let mails = raw
            .mail
            .as_ref()
            .map(|mails| self.mails(&at.key("mail"), mails, said, damaged))
            .unwrap_or_default();
        let emits = raw
            .emit
            .as_ref()
            .map(|emits| self.emits(&at.key("emit"), rule, emits, words))
            .unwrap_or_default();
        Outcome { work, mails, emits }
    }

    /// A complaint about a folder that is not there: an error, or a warning where that may pass.
    fn away(&mut self, mut problem: Problem) {
        match self.away {
            Away::Mistake => {}
            Away::BadLuck => problem.severity = Severity::Warning,
            Away::Elsewhere => return,
        }
        self.complain(problem);
    }
}
