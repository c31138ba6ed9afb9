//! Test files become trials: read, checked, every mistake with its place.
//!
//! What a test names must be in the setup, and must be possible: a rule that is not there, a happening before the
//! start, an expectation after the end would each make a test that says nothing.

mod happens;

use super::moment::{self, Moment, Wrong};
use super::{Expected, FileMade, Happening, Trial, Wish};
use crate::action::StepSpec;
use crate::action::run::Scripted;
use crate::config::diagnostic::Problem;
use crate::config::document::{At, Document};
use crate::config::raw::tests as raw;
use crate::config::raw::{Many, Size, Template, Time};
use crate::config::{quantity, schema, shape};
use crate::event::Kind;
use crate::mail::address::Mailbox;
use crate::rule::load::Setup;
use crate::suggest;
use crate::template::Text;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file of a test, bytes. It is made with holes, but may be attached.
const LARGEST: u64 = 10_000_000_000;

/// The words of a case.
const CASES: [&str; 9] = [
    "file_missing",
    "folder_backlog",
    "job_missing",
    "job_runs_long",
    "account",
    "mail",
    "watch",
    "rule",
    "store",
];

/// The test files of a setup, below its folder, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.join("rules")) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| {
            let name = name.to_string_lossy();
            name.ends_with(".test.yaml") && !name.starts_with('.')
        })
        .map(|name| Path::new("rules").join(name))
        .collect();
    files.sort();
    files
}

/// Reads and checks all test files of a setup. Where there is any problem the trials are not to be run.
pub fn load(dir: &Path, setup: &Setup, problems: &mut Vec<Problem>) -> Vec<Trial> {
    let mut loader = Loader {
        setup,
        problems,
        names: BTreeMap::new(),
        trials: Vec::new(),
    };
    for file in files(dir) {
        if let Some(document) = Document::open(dir, &file, loader.problems) {
            loader.document(document);
        }
    }
    loader.trials
}

/// What of a test is being read: where it is, and where it stands in time.
struct Running<'a> {
    zone: &'a TimeZone,
    start: Timestamp,
    now: Timestamp,
}

struct Loader<'a> {
    setup: &'a Setup,
    problems: &'a mut Vec<Problem>,
    names: BTreeMap<String, String>,
    trials: Vec<Trial>,
}

impl Loader<'_> {
    fn complain(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn wrong(&mut self, at: &At<'_>, wrong: &Wrong) {
        self.complain(at.error(&wrong.message).hint(&wrong.hint));
    }

    fn document(&mut self, document: Document) {
        let Some(sound) = shape::read::<raw::Tests>(document, &schema::TESTS, self.problems) else {
            return;
        };
        let at = sound.document.at().key("tests");
        for (name, raw) in sound.raw.tests {
            if sound.shape.damaged(&["tests", &name]) {
                continue;
            }
            let place = at.name(&name);
            let shown = place.shown();
            if let Some(first) = self.names.get(&name) {
                let problem = place
                    .error(format!("there are two tests called `{name}`"))
                    .hint(format!(
                        "the other one stands at {first}; each needs a name of its own"
                    ));
                self.complain(problem);
                continue;
            }
            self.names.insert(name.clone(), shown);
            let before = self.problems.len();
            let trial = self.trial(&at.key(&name), &place, name, raw, &sound.document.file);
            if let Some(trial) = trial.filter(|_| self.problems.len() == before) {
                self.trials.push(trial);
            }
        }
    }

    fn trial(
        &mut self,
        at: &At<'_>,
        name_at: &At<'_>,
        name: String,
        raw: raw::Test,
        file: &Path,
    ) -> Option<Trial> {
        let zone = self.setup.settings.defaults.timezone.clone();
        let start = match moment::full(&raw.start, &zone) {
            Ok(moment) => moment.at,
            Err(wrong) => {
                self.wrong(&at.key("start"), &wrong);
                return None;
            }
        };
        let given = raw.setup.and_then(|given| given.files).unwrap_or_default();
        let given_at = at.key("setup").key("files");
        let given: Vec<FileMade> = given
            .0
            .iter()
            .enumerate()
            .filter_map(|(index, file)| self.file(&given_at.item(index), file))
            .collect();
        let jobs = self.jobs(&at.key("jobs"), raw.jobs.unwrap_or_default());
        let mut running = Running {
            zone: &zone,
            start,
            now: start,
        };
        let mut happenings = Vec::new();
        let happens_at = at.key("happens");
        for (index, happening) in raw.happens.unwrap_or_default().into_iter().enumerate() {
            self.happening(&happens_at.item(index), happening, &mut running, &mut happenings);
        }
        happenings.sort_by_key(|happening: &Happening| happening.at);
        let last = happenings.last().map_or(start, |happening| happening.at);

        let mut expected = Vec::new();
        running.now = start;
        let mut open_ended = Vec::new();
        let expect_at = at.key("expect");
        let mut latest = last;
        for (index, expectation) in raw.expect.into_iter().enumerate() {
            let spot = expect_at.item(index);
            if let Some((expectation, ends)) = self.expectation(&spot, expectation, &mut running) {
                match ends {
                    true => latest = latest.max(expectation.to),
                    false => open_ended.push(expected.len()),
                }
                expected.push(expectation);
            }
        }
        if expected.is_empty() {
            let problem = at
                .name("expect")
                .error("this test expects nothing, so it says nothing")
                .hint("say what must follow: `- mail: { rule: .. }`, or `- nothing: true`");
            self.complain(problem);
        }
        let until = match &raw.until {
            None => latest.saturating_add(1.hour()).unwrap_or(Timestamp::MAX),
            Some(text) => {
                let spot = at.key("until");
                // A time of day is one of the running day, and that is the last one here.
                let before = if text.trim().starts_with('+') { start } else { last };
                match moment::after(text, before, &zone) {
                    Ok(moment) => {
                        if moment.at < last {
                            let problem = spot
                                .error("the test ends before the last thing that happens in it")
                                .hint("let it end later, or leave `until` out");
                            self.complain(problem);
                        }
                        moment.at
                    }
                    Err(wrong) => {
                        self.wrong(&spot, &wrong);
                        return None;
                    }
                }
            }
        };
        for index in open_ended {
            // The very end belongs to it.
            expected[index].to = until.saturating_add(1.nanosecond()).unwrap_or(Timestamp::MAX);
        }
        for expectation in &expected {
            if expectation.from > until {
                let problem = expect_at
                    .error(format!(
                        "the expectation of line {} is for a time after the end of the test",
                        expectation.line
                    ))
                    .hint("let the test end later: `until:`");
                self.complain(problem);
            }
        }
        Some(Trial {
            name,
            description: raw.description,
            file: file.to_owned(),
            line: name_at.place().line,
            start,
            until,
            given,
            jobs,
            happenings,
            expected,
            others: raw.other_mails == Some(raw::OtherMails::Allowed),
        })
    }

    fn file(&mut self, at: &At<'_>, raw: &raw::File) -> Option<FileMade> {
        let path = self.text(&at.key("path"), &raw.path)?;
        let content = match &raw.content {
            Some(content) => Some(self.text(&at.key("content"), content)?),
            None => None,
        };
        let size = match &raw.size {
            Some(size) => Some(self.size(&at.key("size"), size)?),
            None => None,
        };
        if let (Some(size), Some(literal)) = (size, content.as_ref().and_then(Text::literal))
            && size < literal.len() as u64
        {
            let problem = at
                .key("size")
                .error(format!("the content alone has {} bytes", literal.len()))
                .hint("leave `size` out, or make it larger");
            self.complain(problem);
        }
        let age = match &raw.age {
            Some(age) => self.time(&at.key("age"), age)?,
            None => Duration::ZERO,
        };
        Some(FileMade {
            path,
            size,
            content,
            age,
        })
    }

    fn size(&mut self, at: &At<'_>, raw: &Size) -> Option<u64> {
        match quantity::size(&raw.0) {
            Ok(size) if size <= LARGEST => Some(size),
            Ok(_) => {
                self.complain(
                    at.error("no file of a test is larger than 10GB")
                        .hint("make it smaller"),
                );
                None
            }
            Err(why) => {
                self.complain(at.error(format!("`{}`: {why}", raw.0)));
                None
            }
        }
    }

    fn time(&mut self, at: &At<'_>, raw: &Time) -> Option<Duration> {
        quantity::time(&raw.0)
            .map_err(|why| self.complain(at.error(format!("`{}`: {why}", raw.0))))
            .ok()
    }

    /// A text in which only the time is known.
    fn text(&mut self, at: &At<'_>, raw: &Template) -> Option<Text> {
        let text = match Text::compile(&raw.0) {
            Ok(text) => text,
            Err(error) => {
                let problem = at.within(error.offset).error(&error.message);
                self.complain(problem.hint(error.hint.unwrap_or_default()));
                return None;
            }
        };
        for variable in text.variables() {
            if variable.path.first().is_none_or(|root| root != "now") {
                let problem = at
                    .within(variable.offset)
                    .error(format!("a test does not know `{}`", variable.path.join(".")))
                    .hint("only the time of the happening: `{{date now \"%Y%m%d\"}}`");
                self.complain(problem);
                return None;
            }
        }
        Some(text)
    }

    fn jobs(
        &mut self,
        at: &At<'_>,
        raw: BTreeMap<String, Many<raw::JobEnd>>,
    ) -> BTreeMap<String, Vec<Scripted>> {
        let mut jobs = BTreeMap::new();
        for (rule, ends) in raw {
            if !self.runs(&rule) {
                let names: Vec<&str> = self.running_rules();
                let mut problem = at.name(&rule).error(format!("no rule `{rule}` runs a command"));
                problem = problem.hint(match suggest::nearest(&rule, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "a job elsewhere reports by `- job: { name: .. }` under `happens`".to_owned(),
                });
                self.complain(problem);
                continue;
            }
            let spot = at.key(&rule);
            let many = ends.0.len();
            let ends: Vec<Scripted> = ends
                .0
                .iter()
                .enumerate()
                .filter_map(|(index, end)| self.end(&spot.item(index), end))
                .collect();
            if ends.len() == many {
                jobs.insert(rule, ends);
            }
        }
        jobs
    }

    fn running_rules(&self) -> Vec<&str> {
        let rules = self.setup.rules.iter();
        rules
            .filter(|rule| rule.work.iter().any(|step| matches!(step, StepSpec::Run(_))))
            .map(|rule| rule.name.as_str())
            .collect()
    }

    fn runs(&self, rule: &str) -> bool {
        self.running_rules().contains(&rule)
    }

    fn end(&mut self, at: &At<'_>, end: &raw::JobEnd) -> Option<Scripted> {
        let (exit, signal) = (end.exit, end.signal.clone());
        if exit.is_some() && signal.is_some() {
            let problem = at
                .key("signal")
                .error("a command that a signal ends has no exit code")
                .hint("keep `exit` or `signal`");
            self.complain(problem);
            return None;
        }
        let takes = match &end.duration {
            Some(duration) => self.time(&at.key("duration"), duration)?,
            None => Duration::ZERO,
        };
        Some(Scripted {
            exit: exit.or(signal.is_none().then_some(0)),
            signal,
            output: end.output.clone().unwrap_or_default(),
            takes,
        })
    }

    fn account(&mut self, at: &At<'_>, name: &str) {
        let accounts = &self.setup.settings.accounts;
        if !accounts.contains_key(name) {
            let hint = nearest("accounts", name, accounts.keys().map(String::as_str));
            self.complain(at.error(format!("there is no account `{name}`")).hint(hint));
        }
    }

    fn rule(&mut self, at: &At<'_>, name: Option<&String>) {
        let Some(name) = name else { return };
        let rules = self.setup.rules.iter().map(|rule| rule.name.as_str());
        if rules.clone().all(|rule| rule != name) {
            let hint = nearest("rules", name, rules);
            self.complain(
                at.key("rule")
                    .error(format!("there is no rule `{name}`"))
                    .hint(hint),
            );
        }
    }

    /// The expectation, and whether its end is said.
    fn expectation(
        &mut self,
        at: &At<'_>,
        raw: raw::Expectation,
        running: &mut Running<'_>,
    ) -> Option<(Expected, bool)> {
        const WORDS: [&str; 6] = ["mail", "held", "case", "ran", "file", "nothing"];
        let line = at.place().line;
        let window = match (&raw.at, &raw.within) {
            (Some(_), Some(_)) => {
                self.complain(
                    at.name("within")
                        .error("`at` says when already")
                        .hint("keep `at` or `within`"),
                );
                return None;
            }
            (Some(text), None) => match moment::after(text, running.now, running.zone) {
                Ok(moment) => Some((moment.at, moment.end())),
                Err(wrong) => {
                    self.wrong(&at.key("at"), &wrong);
                    return None;
                }
            },
            (None, Some(both)) => Some(self.within(&at.key("within"), both, running)?),
            (None, None) => None,
        };
        let there: Vec<&str> = WORDS.into_iter().filter(|word| at.has(word)).collect();
        let [word] = there[..] else {
            let message = match there[..] {
                [] => "what must follow?".to_owned(),
                [first, second, ..] => format!("`{first}` and `{second}` are two things"),
                [_] => String::new(),
            };
            self.complain(at.error(message).hint(format!("one of {}", WORDS.join(", "))));
            return None;
        };
        let spot = at.key(word);
        let what = match word {
            "mail" => {
                let mail = raw.mail?;
                self.mail(&spot, &mail);
                Wish::Mail(Box::new(mail))
            }
            "held" => {
                let held = raw.held?;
                self.rule(&spot, held.rule.as_ref());
                Wish::Held(held)
            }
            "case" => {
                let case = raw.case?;
                self.case(&spot, &case);
                Wish::Case(case)
            }
            "ran" => {
                let ran = raw.ran?;
                self.rule(&spot, ran.rule.as_ref());
                Wish::Ran(ran)
            }
            "file" => Wish::File(raw.file?),
            _ => {
                if raw.nothing != Some(true) {
                    self.complain(
                        spot.error("`nothing: false` says nothing")
                            .hint("leave the line out"),
                    );
                }
                Wish::Nothing
            }
        };
        if raw.times.is_some_and(|times| times > 1) && matches!(what, Wish::File(_) | Wish::Nothing) {
            self.complain(
                at.name("times")
                    .error(format!("`{word}` does not come several times")),
            );
        }
        let (from, to) = window.unwrap_or((running.now, Timestamp::MAX));
        running.now = from;
        if from < running.start {
            self.complain(at.error("this is before the test begins"));
        }
        let expected = Expected {
            line,
            from,
            to,
            times: raw.times.unwrap_or(1) as usize,
            what,
        };
        Some((expected, window.is_some()))
    }

    fn within(
        &mut self,
        at: &At<'_>,
        both: &[String],
        running: &Running<'_>,
    ) -> Option<(Timestamp, Timestamp)> {
        let mut now = running.now;
        let mut moments: Vec<Moment> = Vec::new();
        for (index, text) in both.iter().enumerate() {
            match moment::after(text, now, running.zone) {
                Ok(moment) => {
                    now = moment.at;
                    moments.push(moment);
                }
                Err(wrong) => {
                    self.wrong(&at.item(index), &wrong);
                    return None;
                }
            }
        }
        match moments[..] {
            [from, to] => Some((from.at, to.end())),
            _ => None,
        }
    }

    fn mail(&mut self, at: &At<'_>, mail: &raw::ExpectedMail) {
        self.rule(at, mail.rule.as_ref());
        if let Some(account) = &mail.account {
            self.account(&at.key("account"), account);
        }
        for (key, one) in [("from", &mail.from), ("reply_to", &mail.reply_to)] {
            if let Some(text) = one {
                self.address(&at.key(key), text);
            }
        }
        for (key, many) in [("to", &mail.to), ("cc", &mail.cc), ("bcc", &mail.bcc)] {
            for (index, text) in many.iter().flat_map(|many| many.0.iter()).enumerate() {
                if !self.setup.settings.recipients.groups.contains_key(text) {
                    self.address(&at.key(key).item(index), text);
                }
            }
        }
    }

    fn address(&mut self, at: &At<'_>, text: &str) {
        if text.parse::<Mailbox>().is_err() {
            let groups = self.setup.settings.recipients.groups.keys().map(String::as_str);
            let hint = nearest("groups", text, groups);
            self.complain(
                at.error(format!("`{text}` is neither an address nor a group"))
                    .hint(hint),
            );
        }
    }

    fn case(&mut self, at: &At<'_>, case: &raw::ExpectedCase) {
        self.rule(at, case.rule.as_ref());
        let (key, word) = match (&case.opened, &case.closed) {
            (Some(word), None) => ("opened", word),
            (None, Some(word)) => ("closed", word),
            _ => {
                self.complain(
                    at.error("is the case opened or closed?")
                        .hint("as case: { opened: file_missing, rule: report-missing }"),
                );
                return;
            }
        };
        if !CASES.contains(&word.as_str()) {
            let hint = nearest("cases", word, CASES);
            let of = Kind::parse(word).map_or("", |_| "; this event opens none");
            self.complain(
                at.key(key)
                    .error(format!("there is no case `{word}`{of}"))
                    .hint(hint),
            );
        }
    }
}

fn nearest<'a>(what: &str, name: &str, all: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match suggest::nearest(name, all.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the {what}: {}", all.into_iter().collect::<Vec<_>>().join(", ")),
    }
}
