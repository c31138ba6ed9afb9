//! When a rule tells, beside what starts it: deadlines, gathering, quiet hours, reminders, and a pause. Pure.

use super::story::{Lines, Times, long};
use crate::cli::show;
use crate::dispatch::pause::Pause;
use crate::rule::{Rule, Trigger};
use crate::source::absence::expected::{Expected, Rhythm};
use crate::source::absence::{Expectation, What};
use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

fn span(time: Duration) -> String {
    long(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
}

fn wall(time: Time) -> String {
    time.strftime("%H:%M").to_string()
}

/// What an absence waits for, to follow "when".
pub fn absent(expectation: &Expectation) -> String {
    let by = |expected: &Expected| match expected.rhythm {
        Rhythm::By(_) => format!("by {}", expected.by),
        Rhythm::Every(_) => format!("for {}", expected.by),
    };
    match &expectation.what {
        What::File(file) => format!(
            "{} `{}` in {} has come {}",
            match file.expected.count {
                0 | 1 => "no file".to_owned(),
                more => format!("not even {more} files"),
            },
            file.pattern,
            file.root.display(),
            by(&file.expected)
        ),
        What::Job(job) => format!("the job {} has not reported {}", job.job, by(&job.expected)),
        What::Backlog(backlog, pattern) => {
            let many = backlog
                .count
                .map(|count| format!("more than {}", show::count(count, "file")));
            let old = backlog.age.map(|age| format!("one older than {}", span(age)));
            let much: Vec<String> = many.into_iter().chain(old).collect();
            format!(
                "{} `{pattern}` lie in {}",
                much.join(", or "),
                backlog.root.display()
            )
        }
        What::Running(long) => format!(
            "the job {} runs longer than {}",
            long.names.glob().glob(),
            span(long.after)
        ),
    }
}

/// How the rule's mails leave, a label and a sentence each.
pub fn says(rule: &Rule) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if let Some(group) = &rule.telling.group {
        let when = match group.at.as_slice() {
            [] => format!("{} after the first", span(group.wait)),
            times => {
                let times: Vec<String> = times.iter().copied().map(wall).collect();
                format!("at {}", times.join(", "))
            }
        };
        let by = group.by.as_ref().map(|by| format!(" for each `{}`", by.source()));
        let by = by.unwrap_or_default();
        all.push(("group", format!("several events in one mail{by}, {when}")));
    }
    if let Some(throttle) = &rule.telling.throttle {
        let by = throttle
            .by
            .as_ref()
            .map(|by| format!(" for each `{}`", by.source()));
        let at_most = show::count(throttle.at_most as u64, "mail");
        let text = format!(
            "at most {at_most} in {}{}",
            span(throttle.per),
            by.unwrap_or_default()
        );
        all.push(("throttle", text));
    }
    if let Some(quiet) = &rule.telling.quiet {
        let text = format!(
            "tells nobody from {} to {}; what comes then is told after",
            wall(quiet.from),
            wall(quiet.to)
        );
        all.push(("quiet", text));
    }
    if let Some(remind) = &rule.ladder.remind {
        all.push(("remind", format!("every {} while it is open", span(remind.every))));
    }
    for rung in &rule.ladder.escalate {
        all.push((
            "escalate",
            format!("to others after {} while it is open", span(rung.after)),
        ));
    }
    all
}

/// The deadlines of a rule with times of day, and when the next is judged.
fn deadlines(rule: &Rule) -> impl Iterator<Item = (&Expectation, &Expected)> {
    rule.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Absence(expectation) => match &expectation.what {
            What::File(file) => Some((&**expectation, &file.expected)),
            What::Job(job) => Some((&**expectation, &job.expected)),
            What::Backlog(..) | What::Running(_) => None,
        },
        _ => None,
    })
}

/// What it waits for next.
pub fn waiting(rule: &Rule, paused: Option<&Pause>, times: &Times, lines: &mut Lines) {
    if let Some(pause) = paused {
        lines.say(0, pause_in_words(pause, times));
    }
    if let Some(until) = rule
        .telling
        .quiet
        .as_ref()
        .and_then(|quiet| quiet.until(times.now))
    {
        lines.say(0, format!("Its quiet hours last until {}.", times.at(until)));
    }
    for (_, expected) in deadlines(rule) {
        let Rhythm::By(daily) = &expected.rhythm else {
            lines.say(0, format!("It is expected every so often: {}.", expected.by));
            continue;
        };
        if let Some(next) = daily.next(times.now) {
            let grace = match expected.grace {
                grace if grace.is_zero() => String::new(),
                grace => format!(", with {} of grace", span(grace)),
            };
            lines.say(
                0,
                format!(
                    "The next deadline is {} ({}){grace}.",
                    times.day(next),
                    times.how_far(next)
                ),
            );
        }
    }
}

fn pause_in_words(pause: &Pause, times: &Times) -> String {
    let until = pause.until.map(|until| format!(" until {}", times.at(until)));
    let why = pause.reason.as_ref().map(|why| format!(" ({why})"));
    format!(
        "It is paused since {}{}{} by {}: what happens meanwhile is kept. `tidings resume {}` lets it go on.",
        times.at(pause.since),
        until.unwrap_or_default(),
        why.unwrap_or_default(),
        pause.by,
        pause.rule
    )
}

/// What a moment means for it.
pub fn at(rule: &Rule, paused: Option<&Pause>, at: Timestamp, times: &Times, lines: &mut Lines) {
    let second = SignedDuration::from_secs(1);
    for (_, expected) in deadlines(rule) {
        let Rhythm::By(daily) = &expected.rhythm else {
            continue;
        };
        let before = at.checked_sub(second).unwrap_or(at);
        match daily.next(before) {
            Some(due) if due.duration_since(at) < second => lines.say(
                0,
                format!(
                    "A deadline is then ({}): if nothing has come, that is told after the next complete look.",
                    expected.by
                ),
            ),
            Some(due) => lines.say(0, format!("The next deadline after that is {}.", times.day(due))),
            None => {}
        }
    }
    if let Some(pause) = paused.filter(|pause| pause.until.is_none_or(|until| until > at)) {
        lines.say(
            0,
            match pause.until {
                Some(until) => format!("It is paused then, until {}: nothing is told.", times.day(until)),
                None => "It is paused, if nobody resumes it before: nothing is told.".to_owned(),
            },
        );
    }
    if let Some(until) = rule.telling.quiet.as_ref().and_then(|quiet| quiet.until(at)) {
        lines.say(
            0,
            format!(
                "It has quiet hours then: what happens is told together, {}.",
                times.day(until)
            ),
        );
    }
}
