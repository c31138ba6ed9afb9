//! The helpers of templates. Each takes its value first; a value that is missing is an error, except for `default`.
//!
//! | helper | gives |
//! |---|---|
//! | `{{bytes file.size}}` | `1.5 MB`; decimal units |
//! | `{{date file.modified "%d.%m.%Y %H:%M"}}` | a time in the zone of the setup; without a format `2026-11-22 14:05` |
//! | `{{duration job.duration}}` | seconds as `1 h 12 min`, `3.2 s` |
//! | `{{truncate file.name 40}}` | at most so many characters, the last one `…` |
//! | `{{lines job.output_tail 20}}` | the last so many lines |
//! | `{{default file.extension "none"}}` | the value, or the other one where it is missing, null or empty |
//! | `{{plural count "file" "files"}}` | `1 file`, `2 files`; without the third an `s` is added |
//! | `{{json data}}` | the value as JSON |
//! | `{{link data.url "the ticket"}}` | a link, in HTML; elsewhere `the ticket <https://..>`. Only http and https |

use crate::template::budget;
use handlebars::{
    Context, Handlebars, Helper, HelperDef, JsonRender, RenderContext, RenderError, RenderErrorReason,
    ScopedJson,
};
use jiff::Timestamp;
use serde_json::Value;

/// Names of our helpers.
pub const OURS: [&str; 9] = [
    "bytes", "date", "duration", "truncate", "lines", "default", "plural", "json", "link",
];
/// Names of the library's, as far as we keep them.
pub const LIBRARY: [&str; 16] = [
    "if", "unless", "each", "with", "lookup", "raw", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or",
    "not", "len",
];

/// Whether somebody answers to that name.
pub fn known(name: &str) -> bool {
    OURS.contains(&name) || LIBRARY.contains(&name)
}

/// Adds ours to a registry.
pub fn register(registry: &mut Handlebars<'_>, html: bool) {
    let mut add = |name: &'static str, work: Work| {
        registry.register_helper(name, Box::new(Ours { name, work }));
    };
    add("bytes", |args| Ok(bytes(args.number(0)?).into()));
    add("date", date);
    add("duration", |args| Ok(duration(args.number(0)?).into()));
    add("truncate", |args| {
        Ok(truncate(&args.text(0)?, args.count(1)?).into())
    });
    add("lines", |args| {
        Ok(last_lines(&args.text(0)?, args.count(1)?).into())
    });
    add("default", |args| {
        let empty = match args.at(0) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        Ok(args.at(usize::from(empty)).cloned().unwrap_or(Value::Null))
    });
    add("plural", |args| {
        let count = args.number(0)?;
        let one = args.text(1)?;
        let word = if count.abs() == 1.0 {
            one
        } else if args.at(2).is_some() {
            args.text(2)?
        } else {
            format!("{one}s")
        };
        Ok(format!("{count} {word}").into())
    });
    add("json", |args| {
        let value = args.given(0)?;
        Ok(serde_json::to_string(value).unwrap_or_default().into())
    });
    if html {
        registry.register_helper("link", Box::new(HtmlLink));
    } else {
        add("link", |args| {
            let (address, name) = link(args)?;
            Ok(match address {
                Some(address) if address == name => address,
                Some(address) => format!("{name} <{address}>"),
                None => name,
            }
            .into())
        });
    }
}

type Work = fn(&Args<'_, '_>) -> Result<Value, String>;

/// The values a helper was given.
struct Args<'a, 'rc>(&'a Helper<'rc>);

impl Args<'_, '_> {
    /// The value, unless it is missing.
    fn at(&self, index: usize) -> Option<&Value> {
        self.0
            .param(index)
            .filter(|param| !param.is_value_missing())
            .map(|param| param.value())
    }

    fn given(&self, index: usize) -> Result<&Value, String> {
        self.at(index).ok_or_else(
            || match self.0.param(index).and_then(|param| param.relative_path()) {
                Some(name) => format!("`{name}` is not among the facts of this event"),
                None => format!("it needs {} values", index + 1),
            },
        )
    }

    /// A number, also one written as text; null counts as 0.
    fn number(&self, index: usize) -> Result<f64, String> {
        let value = self.given(index)?;
        match value {
            Value::Null => Some(0.0),
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        }
        .ok_or_else(|| format!("{value} is not a number"))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, which is what is wanted
    fn count(&self, index: usize) -> Result<usize, String> {
        self.number(index).map(|number| number.max(0.0) as usize)
    }

    fn text(&self, index: usize) -> Result<String, String> {
        self.given(index).map(JsonRender::render)
    }
}

struct Ours {
    name: &'static str,
    work: Work,
}

impl HelperDef for Ours {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        (self.work)(&Args(helper))
            .map(ScopedJson::Derived)
            .map_err(|why| RenderErrorReason::Other(format!("`{}`: {why}", self.name)).into())
    }
}

/// A size for people, in decimal units: `999 bytes`, `1.5 MB`.
pub fn bytes(size: f64) -> String {
    if size.abs() < 1000.0 {
        return format!("{size} {}", if size == 1.0 { "byte" } else { "bytes" });
    }
    let mut size = size;
    let mut unit = "";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        // 999,950 would be shown as 1000.0 kB.
        if unit.is_empty() || size.abs() >= 999.95 {
            size /= 1000.0;
            unit = next;
        }
    }
    format!("{size:.1} {unit}")
}

/// Seconds for people: `0.4 s`, `72 s` as `1 min 12 s`, `2 h 5 min`, `3 d 4 h`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, which is what is wanted
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        let shown = format!("{:.1}", seconds.max(0.0));
        return format!("{} s", shown.strip_suffix(".0").unwrap_or(&shown));
    }
    let whole = seconds.round() as u64;
    let (large, small) = match whole {
        ..3600 => ((whole / 60, "min"), (whole % 60, "s")),
        3600..86_400 => ((whole / 3600, "h"), (whole % 3600 / 60, "min")),
        _ => ((whole / 86_400, "d"), (whole % 86_400 / 3600, "h")),
    };
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    }
}

fn truncate(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars()
        .take(longest.saturating_sub(1))
        .chain(['…'])
        .collect()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Format of `date` where none is given.
const DATE: &str = "%Y-%m-%d %H:%M";

fn date(args: &Args<'_, '_>) -> Result<Value, String> {
    if args.given(0)?.is_null() || args.text(0)?.is_empty() {
        return Ok("".into());
    }
    let text = args.text(0)?;
    let time: Timestamp = text
        .split('[')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|_| format!("`{}` is not a time", text.escape_debug()))?;
    let format = match args.at(1) {
        Some(format) => format.render(),
        None => DATE.to_owned(),
    };
    strftime(&format, time).map(Value::from)
}

/// Shows a time, or says what is wrong with the format.
pub fn strftime(format: &str, time: Timestamp) -> Result<String, String> {
    jiff::fmt::strtime::format(format, &time.to_zoned(budget::zone()))
        .map_err(|_| format!("`{}` is not a strftime format", format.escape_debug()))
}

/// The address, where it may be a link, and the name.
fn link(args: &Args<'_, '_>) -> Result<(Option<String>, String), String> {
    let text = args.text(0)?;
    let address = url::Url::parse(text.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .map(String::from);
    let name = match args.at(1) {
        Some(_) => args.text(1)?,
        None => address.clone().unwrap_or(text),
    };
    Ok((address, name))
}

/// `link` in HTML writes its own element, escaped by itself.
struct HtmlLink;

impl HelperDef for HtmlLink {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn handlebars::Output,
    ) -> handlebars::HelperResult {
        let (address, name) =
            link(&Args(helper)).map_err(|why| RenderErrorReason::Other(format!("`link`: {why}")))?;
        let name = handlebars::html_escape(&name);
        match address {
            Some(address) => {
                let address = handlebars::html_escape(&address);
                out.write(&format!("<a href=\"{address}\">{name}</a>"))?;
            }
            // Anything else (javascript:, data:, a path) is shown, and cannot be clicked.
            None => out.write(&name)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Text;
    use serde_json::json;

    fn shown(template: &str, facts: Value) -> String {
        Text::compile(template).unwrap().render(&facts).unwrap()
    }

    #[test]
    fn sizes_are_shown_in_decimal_units() {
        for (size, text) in [
            (0.0, "0 bytes"),
            (1.0, "1 byte"),
            (999.0, "999 bytes"),
            (1500.0, "1.5 kB"),
            (999_950.0, "1.0 MB"),
            (20e9, "20.0 GB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (0.44, "0.4 s"),
            (59.99, "1 min"),
            (72.0, "1 min 12 s"),
            (3600.0, "1 h"),
            (7500.0, "2 h 5 min"),
            (273_600.0, "3 d 4 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn date_is_shown_in_the_zone_of_now() {
        let facts = json!({"at": "2026-07-01T12:00:00Z", "now": "2026-11-22T09:00:00+01:00[Europe/Berlin]"});
        assert_eq!(shown("{{date at}}", facts.clone()), "2026-07-01 14:00");
        assert_eq!(shown("{{date at \"%H.%M\"}}", facts), "14.00");
        let offset = json!({"at": "2026-07-01T12:00:00Z", "now": "2026-11-22T09:00:00+01:00"});
        assert_eq!(shown("{{date at}}", offset), "2026-07-01 13:00");
    }

    #[test]
    fn helpers_work_in_settings() {
        let facts = json!({"n": 2, "text": "a\nb\nc", "none": null, "list": [1, "x"]});
        assert_eq!(shown("{{lines text 2}}", facts.clone()), "b\nc");
        assert_eq!(shown("{{truncate text 3}}", facts.clone()), "a\n…");
        assert_eq!(shown("{{plural n \"file\"}}", facts.clone()), "2 files");
        assert_eq!(
            shown("{{plural 1 \"Datei\" \"Dateien\"}}", facts.clone()),
            "1 Datei"
        );
        assert_eq!(
            shown("{{default none \"-\"}}{{default what \"!\"}}", facts.clone()),
            "-!"
        );
        assert_eq!(shown("{{json list}}", facts.clone()), "[1,\"x\"]");
        assert_eq!(
            shown("{{#each list}}{{@index}}={{this}};{{/each}}", facts),
            "0=1;1=x;"
        );
    }

    #[test]
    fn link_takes_http_only() {
        let facts = json!({"good": "https://x.example/?a=1&b=2", "bad": "javascript:alert(1)"});
        assert_eq!(
            shown("{{link good \"see\"}}", facts.clone()),
            "see <https://x.example/?a=1&b=2>"
        );
        assert_eq!(shown("{{link bad}}", facts.clone()), "javascript:alert(1)");
    }

    #[test]
    fn a_missing_value_is_an_error_that_names_it() {
        let error = Text::compile("{{bytes file.sise}}")
            .unwrap()
            .render(&json!({"file": {}}))
            .unwrap_err();
        assert_eq!(
            error.message,
            "`bytes`: `file.sise` is not among the facts of this event"
        );
    }
}
