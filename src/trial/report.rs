//! The verdict on trials: for people, as JSON, as JUnit's XML.

use super::judge::Failure;
use super::ledger::Line;
use crate::config::diagnostic::visible;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Most lines of a timeline shown with a failure.
const SHOWN: usize = 80;

/// How far around a failure the timeline is shown, where all of it would be too much.
const AROUND: SignedDuration = SignedDuration::from_hours(2);

/// How a trial went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The file it stands in.
    pub file: PathBuf,
    /// The line of its name.
    pub line: usize,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub until: Timestamp,
    /// How long it took in truth.
    pub took: Duration,
    /// Mails that left.
    pub mails: usize,
    /// Why it could not be played to its end.
    pub error: Option<String>,
    /// What was not as it must be.
    pub failures: Vec<Failure>,
    /// What happened.
    pub timeline: Vec<Line>,
    /// The zone times are shown in.
    pub zone: TimeZone,
}

impl Outcome {
    /// All was as it must be.
    pub fn is_ok(&self) -> bool {
        self.error.is_none() && self.failures.is_empty()
    }

    /// `ok    late-report  2 mails, 3d`.
    pub fn head(&self) -> String {
        let verdict = if self.is_ok() { "ok  " } else { "FAIL" };
        let mails = match self.mails {
            0 => "no mail".to_owned(),
            1 => "1 mail".to_owned(),
            many => format!("{many} mails"),
        };
        let lasted = span(self.until.duration_since(self.start));
        format!(
            "{verdict}  {}  {mails} in {lasted}, {} ms",
            visible(&self.name),
            self.took.as_millis()
        )
    }

    /// What is wrong, with the places; then what happened around it.
    pub fn failed(&self) -> String {
        let mut out = String::new();
        for problem in self.problems() {
            let _ = writeln!(out, "\n  {problem}");
        }
        let (lines, left_out) = self.around();
        if !lines.is_empty() {
            let _ = write!(out, "\n  what happened");
            let _ = write!(out, "{}", self.timeline_of(&lines));
            if left_out > 0 {
                let _ = write!(out, "\n    ({left_out} more lines: --timeline)");
            }
        }
        out
    }

    /// The whole timeline.
    pub fn timeline(&self) -> String {
        let lines: Vec<&Line> = self.timeline.iter().collect();
        self.timeline_of(&lines)
    }

    fn problems(&self) -> Vec<String> {
        let file = visible(&self.file.display().to_string());
        let mut all: Vec<String> = self
            .error
            .iter()
            .map(|error| format!("{file}:{}: {}", self.line, visible(error)))
            .collect();
        for failure in &self.failures {
            let mut text = format!(
                "{file}:{}: {}",
                failure.line.unwrap_or(self.line),
                visible(&failure.message)
            );
            for detail in &failure.details {
                let _ = write!(text, "\n    {}", visible(detail));
            }
            all.push(text);
        }
        all
    }

    /// What of the timeline is worth showing, and how many lines are left out.
    fn around(&self) -> (Vec<&Line>, usize) {
        let all = self.timeline.len();
        if all <= SHOWN {
            return (self.timeline.iter().collect(), 0);
        }
        let mut near: Vec<&Line> = self
            .timeline
            .iter()
            .filter(|line| {
                self.failures.iter().any(|failure| {
                    let from = failure.from.saturating_sub(AROUND).unwrap_or(Timestamp::MIN);
                    let to = failure.to.saturating_add(AROUND).unwrap_or(Timestamp::MAX);
                    from <= line.at && line.at <= to
                })
            })
            .collect();
        if near.is_empty() {
            near = self.timeline[all - SHOWN / 2..].iter().collect();
        }
        near.truncate(SHOWN);
        let left_out = all - near.len();
        (near, left_out)
    }

    fn timeline_of(&self, lines: &[&Line]) -> String {
        let mut out = String::new();
        let mut day = None;
        for line in lines {
            let at = line.at.to_zoned(self.zone.clone());
            if day != Some(at.date()) {
                day = Some(at.date());
                let _ = write!(out, "\n    {}", at.strftime("%a %F"));
            }
            let _ = write!(out, "\n      {}  {}", at.strftime("%T"), visible(&line.what));
            for why in &line.why {
                let _ = write!(out, "\n                {}", visible(why));
            }
        }
        out
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|failure| {
                json!({
                    "line": failure.line,
                    "message": failure.message,
                    "details": failure.details,
                    "from": failure.from.to_string(),
                    "to": failure.to.to_string(),
                })
            })
            .collect();
        let timeline: Vec<Value> = self
            .timeline
            .iter()
            .map(|line| json!({ "at": line.at.to_string(), "what": line.what, "why": line.why }))
            .collect();
        json!({
            "name": self.name,
            "description": self.description,
            "file": self.file.display().to_string(),
            "line": self.line,
            "ok": self.is_ok(),
            "start": self.start.to_string(),
            "until": self.until.to_string(),
            "seconds": self.took.as_secs_f64(),
            "mails": self.mails,
            "error": self.error,
            "failures": failures,
            "timeline": timeline,
        })
    }
}

/// `45s`, `3h`, `2d 4h`.
fn span(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds % 60, "s")];
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .take(2)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if said.is_empty() {
        "0s".to_owned()
    } else {
        said.join(" ")
    }
}

/// All outcomes, as JUnit's XML: a suite a file, a case a test.
pub fn junit(outcomes: &[Outcome]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let failed = |outcomes: &[&Outcome]| outcomes.iter().filter(|outcome| !outcome.is_ok()).count();
    let seconds =
        |outcomes: &[&Outcome]| -> f64 { outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum() };
    let all: Vec<&Outcome> = outcomes.iter().collect();
    let _ = writeln!(
        out,
        "<testsuites name=\"tidings\" tests=\"{}\" failures=\"{}\" time=\"{:.3}\">",
        all.len(),
        failed(&all),
        seconds(&all)
    );
    let mut files: Vec<&PathBuf> = outcomes.iter().map(|outcome| &outcome.file).collect();
    files.dedup();
    for file in files {
        let suite: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.file == *file).collect();
        let name = xml(&file.display().to_string());
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" time=\"{:.3}\">",
            suite.len(),
            failed(&suite),
            seconds(&suite)
        );
        for outcome in suite {
            let _ = write!(
                out,
                "    <testcase name=\"{}\" classname=\"{name}\" file=\"{name}\" line=\"{}\" time=\"{:.3}\"",
                xml(&outcome.name),
                outcome.line,
                outcome.took.as_secs_f64()
            );
            if outcome.is_ok() {
                out.push_str("/>\n");
                continue;
            }
            let problems = outcome.problems();
            let first = problems
                .first()
                .map_or("", |text| text.lines().next().unwrap_or_default());
            let _ = writeln!(
                out,
                ">\n      <failure message=\"{}\">{}</failure>\n      <system-out>{}</system-out>\n    </testcase>",
                xml(first),
                xml(&problems.join("\n")),
                xml(&outcome.timeline())
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// A text that XML 1.0 can hold: what it cannot is shown as in Rust.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_within_the_xml() {
        let outcome = Outcome {
            name: "a\"><evil/>\u{1b}[2J".to_owned(),
            description: None,
            file: "rules/a&b.test.yaml".into(),
            line: 3,
            start: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            took: Duration::from_millis(12),
            mails: 0,
            error: Some("]]> \u{0} </failure>".to_owned()),
            failures: Vec::new(),
            timeline: Vec::new(),
            zone: TimeZone::UTC,
        };
        let text = junit(&[outcome]);
        assert!(
            !text.contains("<evil") && !text.contains('\u{1b}') && !text.contains('\u{0}'),
            "{text}"
        );
        assert_eq!(
            text.matches("<failure").count(),
            text.matches("</failure>").count()
        );
        assert!(text.contains("rules/a&amp;b.test.yaml"), "{text}");
    }
}
