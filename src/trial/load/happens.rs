//! What happens in a test.

use super::super::moment;
use super::super::{Doing, FileMade, Happening};
use super::{Loader, Running};
use crate::advice::Stage;
use crate::config::document::At;
use crate::config::raw::tests as raw;
use crate::mail::address::Address;
use crate::mail::reply::{Reply, ReplyReader};
use crate::source::emitted::CloudEvent;
use crate::template::Text;
use crate::transport::stand_in::Answer;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use std::time::Duration;

/// Most happenings of one test, repetitions counted.
const MOST: usize = 200_000;

impl Loader<'_> {
    pub(super) fn happening(
        &mut self,
        at: &At<'_>,
        raw: raw::Happening,
        running: &mut Running<'_>,
        happenings: &mut Vec<Happening>,
    ) {
        if let Some(text) = &raw.at {
            match moment::after(text, running.now, running.zone) {
                Ok(moment) => running.now = moment.at,
                Err(wrong) => return self.wrong(&at.key("at"), &wrong),
            }
        }
        if let Some(what) = self.doing(at, &raw) {
            let times = raw.times.unwrap_or(1) as usize;
            let every = match &raw.every {
                Some(every) => match self.time(&at.key("every"), every) {
                    Some(every) if every.is_zero() => {
                        self.complain(at.key("every").error("no time passes from one to the next"));
                        return;
                    }
                    Some(every) => every,
                    None => return,
                },
                None => Duration::from_secs(86_400),
            };
            if raw.every.is_some() && times < 2 {
                let problem = at
                    .name("every")
                    .error("`every` says nothing about what happens once")
                    .hint("add `times:`, how often");
                self.complain(problem);
            }
            if happenings.len() + times > MOST {
                self.complain(at.error(format!("more than {MOST} things happen in this test")));
                return;
            }
            let line = at.place().line;
            for number in 0..times {
                happenings.push(Happening {
                    at: later(running.now, every, number, running.zone),
                    line,
                    what: what.clone(),
                });
            }
        }
    }

    fn doing(&mut self, at: &At<'_>, raw: &raw::Happening) -> Option<Doing> {
        const WORDS: [&str; 9] = [
            "file", "removes", "job", "event", "server", "pause", "resume", "restart", "reload",
        ];
        let there: Vec<&str> = WORDS.into_iter().filter(|word| at.has(word)).collect();
        let [word] = there[..] else {
            let message = match there[..] {
                [] => "what happens?".to_owned(),
                [first, second, ..] => format!("`{first}` and `{second}` are two things"),
                [_] => String::new(),
            };
            let problem = at.error(message).hint(format!("one of {}", WORDS.join(", ")));
            self.complain(problem);
            return None;
        };
        let spot = at.key(word);
        match word {
            "file" => {
                let files = raw.file.clone().unwrap_or_default().0;
                let many = files.len();
                let made: Vec<FileMade> = files
                    .iter()
                    .enumerate()
                    .filter_map(|(index, file)| self.file(&spot.item(index), file))
                    .collect();
                (made.len() == many).then_some(Doing::Files(made))
            }
            "removes" => {
                let paths = raw.removes.clone().unwrap_or_default().0;
                let many = paths.len();
                let texts: Vec<Text> = paths
                    .iter()
                    .enumerate()
                    .filter_map(|(index, path)| self.text(&spot.item(index), path))
                    .collect();
                (texts.len() == many).then_some(Doing::Removes(texts))
            }
            "job" => {
                let job = raw.job.clone()?;
                if let Some(starts) = job.starts {
                    return self.starts(&spot, job, starts);
                }
                let end = raw::JobEnd {
                    exit: job.exit,
                    signal: job.signal,
                    output: job.output,
                    duration: job.duration,
                };
                let end = self.end(&spot, &end)?;
                Some(if self.runs(&job.name) {
                    Doing::Ends { rule: job.name, end }
                } else {
                    Doing::Reports { job: job.name, end }
                })
            }
            "event" => self.emitted(&spot, raw.event.clone()?),
            "server" => self.server(&spot, raw.server.clone()?),
            "pause" => {
                let pause = raw.pause.clone()?;
                self.rule(&spot, Some(&pause.rule));
                let lasts = match &pause.lasts {
                    Some(lasts) => Some(self.time(&spot.key("for"), lasts)?),
                    None => None,
                };
                Some(Doing::Pauses(pause.rule, lasts))
            }
            "resume" => {
                let resume = raw.resume.clone()?;
                self.rule(&spot, Some(&resume.rule));
                Some(Doing::Resumes {
                    rule: resume.rule,
                    drop: resume.drop == Some(true),
                })
            }
            "restart" | "reload" => {
                let said = if word == "restart" {
                    raw.restart
                } else {
                    raw.reload
                };
                if said != Some(true) {
                    self.complain(
                        spot.error(format!("`{word}: false` does nothing"))
                            .hint("leave the line out"),
                    );
                    return None;
                }
                Some(if word == "restart" {
                    Doing::Restart
                } else {
                    Doing::Reload
                })
            }
            _ => None,
        }
    }

    /// A job elsewhere begins; its end is reported later.
    fn starts(&mut self, at: &At<'_>, job: raw::Job, starts: bool) -> Option<Doing> {
        let ended = ["exit", "signal", "output", "duration"]
            .into_iter()
            .find(|key| at.has(key));
        let problem = if !starts {
            at.key("starts")
                .error("`starts: false` says nothing")
                .hint("leave the line out")
        } else if let Some(key) = ended {
            at.name(key)
                .error(format!("a job that begins has no `{key}` yet"))
                .hint("say how it ended in a happening of its own, later")
        } else if self.runs(&job.name) {
            at.key("name")
                .error("a command of ours begins when its rule lets it")
                .hint("`jobs: { NAME: { duration: 2h } }` says how long it runs")
        } else {
            return Some(Doing::Starts(job.name));
        };
        self.complain(problem);
        None
    }

    /// Somebody emits an event.
    fn emitted(&mut self, at: &At<'_>, raw: raw::EmittedEvent) -> Option<Doing> {
        let event = CloudEvent {
            id: raw.id.unwrap_or_default(),
            source: raw.source.unwrap_or_else(|| "//test.example".to_owned()),
            kind: raw.kind,
            subject: raw.subject,
            time: None,
            schema: None,
            extensions: serde_json::Map::new(),
            data: raw.data.map_or(Value::Null, Value::Object),
        };
        let named = CloudEvent {
            id: if at.has("id") {
                event.id.clone()
            } else {
                "made".to_owned()
            },
            ..event.clone()
        };
        match named.sound() {
            Ok(()) => Some(Doing::Emits(event)),
            Err(refused) => {
                self.complain(at.error(refused.message));
                None
            }
        }
    }

    fn server(&mut self, at: &At<'_>, raw: raw::Server) -> Option<Doing> {
        self.account(&at.key("account"), &raw.account);
        let words = ["refuses", "accepts", "away", "silent"];
        let there: Vec<&str> = words.into_iter().filter(|word| at.has(word)).collect();
        let [word] = there[..] else {
            self.complain(
                at.error("how does the server answer?")
                    .hint("one of refuses: \"550 ..\", accepts: true, away: true, silent: true"),
            );
            return None;
        };
        let yes = [raw.accepts, raw.away, raw.silent]
            .into_iter()
            .flatten()
            .all(|yes| yes);
        if !yes {
            self.complain(
                at.key(word)
                    .error(format!("`{word}: false` says nothing"))
                    .hint("say how the server does answer"),
            );
            return None;
        }
        if word != "refuses" && (raw.step.is_some() || raw.to.is_some()) {
            let key = if raw.step.is_some() { "step" } else { "to" };
            self.complain(at.name(key).error(format!("`{key}` belongs to `refuses`")));
            return None;
        }
        let answer = match word {
            "accepts" => None,
            "away" => Some(Answer::Away),
            "silent" => Some(Answer::Silent),
            _ => {
                let text = raw.refuses.unwrap_or_default();
                let Some(reply) = reply(&text) else {
                    self.complain(
                        at.key("refuses")
                            .error("no server refuses with these words: a refusal begins with 4xx or 5xx")
                            .hint("as \"550 5.1.1 no such user\""),
                    );
                    return None;
                };
                let to = raw.to.unwrap_or_default().0;
                let spot = at.key("to");
                let mut recipients = Vec::new();
                for (index, text) in to.iter().enumerate() {
                    match text.parse::<Address>() {
                        Ok(address) => recipients.push(address),
                        Err(error) => self.complain(spot.item(index).error(error.to_string())),
                    }
                }
                let stage = match raw.step {
                    Some(raw::Step::Connect) => Stage::Connect,
                    Some(raw::Step::Auth) => Stage::SmtpAuth,
                    Some(raw::Step::Mail) => Stage::SmtpMail,
                    Some(raw::Step::Rcpt) => Stage::SmtpRcpt,
                    None if !recipients.is_empty() => Stage::SmtpRcpt,
                    Some(raw::Step::Data) | None => Stage::SmtpData,
                };
                Some(Answer::Refuses {
                    reply,
                    stage,
                    recipients,
                })
            }
        };
        Some(Doing::Answers {
            account: raw.account,
            answer,
            times: raw.times,
        })
    }
}

/// The `number`th repetition. Whole days are calendar days.
fn later(first: Timestamp, every: Duration, number: usize, zone: &TimeZone) -> Timestamp {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let days = i64::try_from(every.as_secs() / 86_400).unwrap_or(i64::MAX);
    if every.as_secs().is_multiple_of(86_400) && every.subsec_nanos() == 0 {
        return first
            .to_zoned(zone.clone())
            .checked_add(days.saturating_mul(number).days())
            .map_or(Timestamp::MAX, |day| day.timestamp());
    }
    let step = jiff::SignedDuration::try_from(every).unwrap_or(jiff::SignedDuration::MAX);
    first
        .saturating_add(step.saturating_mul(i32::try_from(number).unwrap_or(i32::MAX)))
        .unwrap_or(Timestamp::MAX)
}

/// A refusal as a server would say it, in one or several lines.
fn reply(text: &str) -> Option<Reply> {
    let mut reader = ReplyReader::default();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let code = text.trim().get(..3)?.to_owned();
    let mut bytes = String::new();
    for (index, line) in lines.iter().enumerate() {
        let words = line.strip_prefix(code.as_str()).unwrap_or(line);
        let words = words.trim_start_matches(['-', ' ']);
        let mark = if index + 1 == lines.len() { ' ' } else { '-' };
        bytes.push_str(&format!("{code}{mark}{words}\r\n"));
    }
    reader.feed(bytes.as_bytes());
    let reply = reader.take().ok()??;
    (400..600).contains(&reply.code).then_some(reply)
}
