//! A story: the answer to a question, as values. What makes one is pure; what shows one is [`page`](super::page).

use crate::cli::show;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Map, Value, json};

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// The answer in a sentence or two.
    pub headline: String,
    /// How it comes to that.
    pub parts: Vec<Part>,
    /// What it was told from, for machines.
    pub data: Map<String, Value>,
}

/// A heading and what is below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// `What happened`.
    pub heading: &'static str,
    /// In order.
    pub lines: Vec<Line>,
}

/// One paragraph, indented by its depth.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// 0 stands below the heading.
    pub depth: usize,
    /// What stands before it: a label, a number. Further lines of the paragraph stand below its text.
    pub mark: String,
    /// The paragraph; text from outside in it is shown safely.
    pub text: String,
}

/// Collects the lines of a part.
#[derive(Debug, Default)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// A paragraph.
    pub fn say(&mut self, depth: usize, text: impl Into<String>) {
        self.0.push(Line {
            depth,
            mark: String::new(),
            text: text.into(),
        });
    }

    /// A label and what belongs to it.
    pub fn pair(&mut self, depth: usize, label: &str, text: impl Into<String>) {
        self.0.push(Line {
            depth,
            mark: format!("{label:<9} "),
            text: text.into(),
        });
    }

    /// Numbered steps.
    pub fn steps(&mut self, depth: usize, steps: impl IntoIterator<Item = String>) {
        for (at, text) in steps.into_iter().enumerate() {
            self.0.push(Line {
                depth,
                mark: format!("{}. ", at + 1),
                text,
            });
        }
    }

    /// Other lines, one step further in.
    pub fn under(&mut self, other: Lines) {
        self.0.extend(other.0.into_iter().map(|line| Line {
            depth: line.depth + 1,
            ..line
        }));
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Story {
    /// A story that says only this so far.
    pub fn new(headline: impl Into<String>) -> Story {
        Story {
            headline: headline.into(),
            ..Story::default()
        }
    }

    /// Adds a part, unless it says nothing.
    pub fn part(&mut self, heading: &'static str, lines: Lines) {
        if !lines.is_empty() {
            let lines = lines.0;
            self.parts.push(Part { heading, lines });
        }
    }

    /// What it was told from.
    pub fn with(&mut self, key: &str, value: Value) {
        self.data.insert(key.to_owned(), value);
    }

    /// For machines: what it was told from, and the sentences a person would have read.
    pub fn to_json(&self) -> Value {
        let mut all = self.data.clone();
        all.insert("answer".to_owned(), json!(self.headline));
        let part = |part: &Part| {
            let lines = part.lines.iter();
            let lines: Vec<String> = lines.map(|line| format!("{}{}", line.mark, line.text)).collect();
            json!({ "heading": part.heading, "lines": lines })
        };
        all.insert("story".to_owned(), self.parts.iter().map(part).collect());
        Value::Object(all)
    }
}

/// How times are said: in the setup's zone, and how far they are from now.
#[derive(Clone, Debug)]
pub struct Times {
    /// The setup's.
    pub zone: TimeZone,
    /// The time of the answer.
    pub now: Timestamp,
}

impl Times {
    /// `2026-03-02 08:30:00 CET`.
    pub fn clock(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(self.zone.clone());
        let zoned = zoned.round(Unit::Second).unwrap_or(zoned);
        zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// `Mon 2026-03-02 08:30 CET`: a time to come, which is seldom asked for to the second.
    pub fn day(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(self.zone.clone());
        let format = if zoned.second() == 0 {
            "%a %Y-%m-%d %H:%M %Z"
        } else {
            "%a %Y-%m-%d %H:%M:%S %Z"
        };
        zoned.strftime(format).to_string()
    }

    /// `3 hours ago`, `in 2 days`, `just now`.
    pub fn how_far(&self, time: Timestamp) -> String {
        let passed = self.now.duration_since(time);
        if passed.abs() < SignedDuration::from_secs(2) {
            return "just now".to_owned();
        }
        let long = long(passed);
        if passed.is_positive() {
            format!("{long} ago")
        } else {
            format!("in {long}")
        }
    }

    /// Both: `2026-03-02 08:30:00 CET (3 hours ago)`.
    pub fn at(&self, time: Timestamp) -> String {
        format!("{} ({})", self.clock(time), self.how_far(time))
    }
}

/// A time as a person types it: RFC 3339, a date with or without a time of day, a time of day (its next coming),
/// in the setup's zone.
pub fn moment(text: &str, times: &Times) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let here = |time: DateTime| {
        time.to_zoned(times.zone.clone())
            .map(|zoned| zoned.timestamp())
            .map_err(|error| format!("`{text}` is no time: {error}"))
    };
    let looks_like_a_date = text.get(4..5) == Some("-");
    if looks_like_a_date && let Ok(time) = text.parse::<DateTime>() {
        return here(time);
    }
    if let Ok(time) = text.parse::<Time>() {
        let now = times.now.to_zoned(times.zone.clone());
        let today = here(now.date().to_datetime(time))?;
        return match now.date().tomorrow() {
            Ok(tomorrow) if today < times.now => here(tomorrow.to_datetime(time)),
            _ => Ok(today),
        };
    }
    Err(format!(
        "`{text}` is no time; write `2026-03-02 09:00`, `09:00` or `2026-03-02T09:00:00+01:00`"
    ))
}

/// `3 hours`, `2 days`, in one unit.
pub fn long(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().unsigned_abs();
    let (count, unit) = match seconds {
        0..=89 => (seconds, "second"),
        90..=5_399 => ((seconds + 30) / 60, "minute"),
        5_400..=129_599 => ((seconds + 1_800) / 3_600, "hour"),
        _ => ((seconds + 43_200) / 86_400, "day"),
    };
    show::count(count, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_zone_of_the_setup_and_say_how_far_they_are() {
        let times = Times {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            now: "2026-03-02T10:00:00Z".parse().unwrap(),
        };
        let at = |text: &str| times.at(text.parse().unwrap());
        assert_eq!(
            at("2026-03-02T07:30:00Z"),
            "2026-03-02 08:30:00 CET (3 hours ago)"
        );
        assert_eq!(at("2026-03-02T10:00:01Z"), "2026-03-02 11:00:01 CET (just now)");
        assert_eq!(
            times.day("2026-03-05T07:00:00Z".parse().unwrap()),
            "Thu 2026-03-05 08:00 CET"
        );
        assert_eq!(
            times.how_far("2026-03-05T07:00:00Z".parse().unwrap()),
            "in 3 days"
        );
    }

    #[test]
    fn a_moment_is_read_in_the_zone_of_the_setup() {
        let times = Times {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            now: "2026-03-02T10:00:00Z".parse().unwrap(),
        };
        let read = |text: &str| moment(text, &times).map(|time| time.to_string());
        let is = |time: &str| Ok(time.to_owned());
        assert_eq!(read("2026-03-02 09:00"), is("2026-03-02T08:00:00Z"));
        assert_eq!(read("2026-07-02"), is("2026-07-01T22:00:00Z"));
        assert_eq!(read("12:00"), is("2026-03-02T11:00:00Z"));
        assert_eq!(read("09:00"), is("2026-03-03T08:00:00Z"), "its next coming");
        assert_eq!(read("2026-03-02T09:00:00+05:00"), is("2026-03-02T04:00:00Z"));
        assert!(read("tomorrow").unwrap_err().contains("write `2026-03-02 09:00`"));
    }

    #[test]
    fn spans_are_said_in_one_unit() {
        let said = |seconds| long(SignedDuration::from_secs(seconds));
        assert_eq!(
            [said(1), said(89), said(90), said(3600), said(5400), said(172_800)],
            [
                "1 second",
                "89 seconds",
                "2 minutes",
                "60 minutes",
                "2 hours",
                "2 days"
            ]
        );
    }
}
