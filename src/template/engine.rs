//! The one place that knows handlebars: guards a source, parses it, renders it within limits.
//!
//! The parser and the renderer call themselves for each nesting, so what could exhaust the stack is refused by
//! [`guard`] before either sees it. While rendering, a budget of this thread counts turns of loops and bytes:
//! a block rendered for a partial is collected in memory by the library, where a limited writer cannot see it.

use crate::template::budget::{self, TOO_LONG, spend};
use crate::template::helpers;
use crate::template::{MAX_OUTPUT, RenderError};
use handlebars::template::Template;
use handlebars::{
    BlockContext, BlockParams, Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext,
    RenderErrorReason, Renderable,
};
use jiff::tz::TimeZone;
use serde_json::Value;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

/// A parsed template.
pub type Parsed = Template;

/// Longest source of one template, bytes.
const MAX_SOURCE: usize = 256 * 1024;
/// Deepest nesting of blocks; an `else if` counts as one.
const MAX_BLOCKS: usize = 48;
/// Deepest nesting of brackets inside one tag.
const MAX_BRACKETS: usize = 12;

/// Something wrong in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, bytes from the start of the source.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    pub fn new(offset: usize, message: impl Into<String>) -> Fault {
        Fault {
            offset,
            message: message.into(),
            hint: None,
        }
    }

    /// The same, with a hint.
    pub fn hint(self, hint: impl Into<String>) -> Fault {
        Fault {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Refuses what the parser or the renderer could exhaust the stack on: a long source, deep blocks, deep brackets.
/// Counts on the safe side: tags in comments count too.
pub fn guard(source: &str) -> Result<(), Fault> {
    if source.len() > MAX_SOURCE {
        return Err(Fault::new(
            0,
            format!("the template is longer than {} KB", MAX_SOURCE / 1024),
        ));
    }
    let bytes = source.as_bytes();
    // How many `else` each open block has seen: each nests the rest of its block one deeper.
    let mut open: Vec<usize> = Vec::new();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(found) = source[at..].find("{{") {
        let start = at + found;
        let mut inside = start + 2;
        while matches!(bytes.get(inside), Some(b'{' | b'~')) {
            inside += 1;
        }
        let rest = source[inside..].trim_start();
        let raw = bytes[start..].starts_with(b"{{{{");
        if rest.starts_with('/') {
            depth = depth.saturating_sub(1 + open.pop().unwrap_or(0));
        } else if rest.starts_with('#') || raw {
            open.push(0);
            depth += 1;
        } else if (rest.starts_with("else") || rest.starts_with('^'))
            && let Some(chain) = open.last_mut()
        {
            *chain += 1;
            depth += 1;
        }
        if depth > MAX_BLOCKS {
            return Err(
                Fault::new(start, format!("blocks are nested deeper than {MAX_BLOCKS}"))
                    .hint("move inner parts to a partial, or prepare the choice in the rule's `data`"),
            );
        }
        let mut brackets = 0usize;
        let mut end = inside;
        while end < bytes.len() && !bytes[end..].starts_with(b"}}") {
            match bytes[end] {
                b'(' | b'[' | b'{' => brackets += 1,
                b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets > MAX_BRACKETS {
                return Err(Fault::new(
                    end,
                    format!("brackets are nested deeper than {MAX_BRACKETS}"),
                ));
            }
            end += 1;
        }
        at = end.max(inside).min(bytes.len());
        while !source.is_char_boundary(at) {
            at += 1;
        }
    }
    Ok(())
}

/// Parses a source that is named nowhere.
pub fn parse(source: &str) -> Result<Parsed, Fault> {
    parse_named("", source)
}

/// Parses a source; `file` is named when rendering fails.
pub fn parse_named(file: &str, source: &str) -> Result<Parsed, Fault> {
    guard(source)?;
    // The parser unwraps what its grammar promises. Should a promise not hold, one template is refused and the
    // process stays.
    let parsed = catch_unwind(|| {
        let mut scratch = Handlebars::new();
        scratch.set_prevent_indent(true);
        scratch.register_template_string(file, source).map(|()| {
            let mut parsed = scratch.get_template(file).cloned().unwrap_or_default();
            parsed.name = (!file.is_empty()).then(|| file.to_owned());
            parsed
        })
    });
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(error)) => {
            let (line, column) = error.pos().unwrap_or((1, 1));
            let offset = offset_of(source, line, column);
            Err(explain(source, offset, &error.reason().to_string()))
        }
        Err(_) => Err(Fault::new(0, "the template cannot be parsed")),
    }
}

/// Says the parser's complaint for people.
fn explain(source: &str, offset: usize, reason: &str) -> Fault {
    let tag = source[..offset].rfind("{{").unwrap_or(offset);
    let unclosed = source[tag..].starts_with("{{") && !source[tag..].contains("}}");
    if unclosed {
        return Fault::new(tag, "this `{{` is never closed")
            .hint("write `}}` behind it; a literal `{{` is `\\{{`");
    }
    let reason = reason
        .strip_prefix("invalid handlebars syntax: ")
        .unwrap_or(reason);
    if offset >= source.len() && source.contains("{{#") {
        return Fault::new(offset, "a block is not closed").hint("each `{{#if ..}}` needs its `{{/if}}`");
    }
    if reason.contains("was opened, but") {
        return Fault::new(offset, reason.replace('"', "`"));
    }
    Fault::new(offset, "this is not handlebars syntax").hint(format!("the parser says: {reason}"))
}

/// Byte offset of a line and column, both from 1, columns in characters.
pub fn offset_of(source: &str, line: usize, column: usize) -> usize {
    let start = source
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum::<usize>()
        .min(source.len());
    source[start..]
        .char_indices()
        .nth(column.saturating_sub(1))
        .map_or(source.len(), |(index, _)| start + index)
}

/// Line and column (both from 1, columns in characters) of a byte offset, and the line itself.
pub fn place_of(source: &str, offset: usize) -> (usize, usize, &str) {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    let start = source[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = source[offset..].find('\n').map_or(source.len(), |at| offset + at);
    (
        source[..start].matches('\n').count() + 1,
        source[start..offset].chars().count() + 1,
        source[start..end].trim_end_matches('\r'),
    )
}

/// The zone of the fact `now`: the named one where it bears a name (RFC 9557), else its offset.
pub fn zone_of(facts: &Value) -> TimeZone {
    let now = facts.get("now").and_then(Value::as_str).unwrap_or_default();
    if let Ok(zoned) = now.parse::<jiff::Zoned>() {
        return zoned.time_zone().clone();
    }
    jiff::fmt::temporal::Pieces::parse(now)
        .ok()
        .and_then(|pieces| pieces.to_numeric_offset())
        .map_or(TimeZone::UTC, TimeZone::fixed)
}

/// `each`, with its turns and its output counted.
struct Each;

impl HelperDef for Each {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        rendering: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let list = helper
            .param(0)
            .ok_or(RenderErrorReason::ParamNotFoundForIndex("each", 0))?;
        let items: Vec<(Value, &Value)> = match list.value() {
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(at, item)| (at.into(), item))
                .collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, item)| (key.as_str().into(), item))
                .collect(),
            Value::Null if !list.is_value_missing() => Vec::new(),
            _ => return Err(RenderErrorReason::MissingVariable(list.relative_path().cloned()).into()),
        };
        let Some(body) = helper.template() else {
            return Ok(());
        };
        if items.is_empty() {
            return helper.inverse().map_or(Ok(()), |inverse| {
                inverse.render(registry, context, rendering, out)
            });
        }
        let mut out = Counting(out);
        let last = items.len() - 1;
        for (at, (key, item)) in items.into_iter().enumerate() {
            spend(1, 0).map_err(|spent| RenderErrorReason::Other(spent.to_owned()))?;
            let mut block = BlockContext::new();
            block.set_local_var("first", (at == 0).into());
            block.set_local_var("last", (at == last).into());
            block.set_local_var("index", at.into());
            let step = handlebars::JsonRender::render(&key);
            block.set_local_var("key", key.clone());
            let mut params = BlockParams::new();
            if let Some((value, name)) = helper.block_param_pair() {
                params.add_value(value, item.clone())?;
                params.add_value(name, key)?;
            } else if let Some(value) = helper.block_param() {
                params.add_value(value, item.clone())?;
            }
            block.set_block_params(params);
            match list.context_path() {
                Some(path) => {
                    *block.base_path_mut() = path.iter().cloned().chain([step]).collect();
                }
                None => block.set_base_value(item.clone()),
            }
            rendering.push_block(block);
            let turned = body.render(registry, context, rendering, &mut out);
            rendering.pop_block();
            turned?;
        }
        Ok(())
    }
}

/// Counts what a loop writes, wherever it goes.
struct Counting<'a>(&'a mut dyn Output);

impl Output for Counting<'_> {
    fn write(&mut self, text: &str) -> io::Result<()> {
        spend(0, text.len()).map_err(io::Error::other)?;
        self.0.write(text)
    }
}

/// The final result, never longer than it may be.
#[derive(Default)]
struct Capped {
    text: String,
}

impl Output for Capped {
    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.text.len() + text.len() > MAX_OUTPUT {
            return Err(io::Error::other(TOO_LONG));
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// A registry: strict, our helpers, nothing that registers or logs while rendering.
pub fn registry(html: bool) -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.unregister_helper("log");
    registry.register_helper("each", Box::new(Each));
    helpers::register(&mut registry, html);
    registry.register_escape_fn(move |text| {
        // Cannot fail, so it gives nothing and the budget remembers.
        match spend(0, text.len()) {
            Err(_) => String::new(),
            Ok(()) if html => handlebars::html_escape(text),
            Ok(()) => text.to_owned(),
        }
    });
    registry
}

/// The registry of subjects, headers and settings: no escaping, no partials.
pub fn plain() -> &'static Handlebars<'static> {
    static PLAIN: LazyLock<Handlebars<'static>> = LazyLock::new(|| registry(false));
    &PLAIN
}

/// Renders within the limits, showing times in `zone`.
pub fn render(
    template: &Parsed,
    facts: &Value,
    registry: &Handlebars<'_>,
    zone: &TimeZone,
) -> Result<String, RenderError> {
    let fail =
        |message: String, line: Option<usize>, column: Option<usize>, file: Option<String>| RenderError {
            template: file.or_else(|| template.name.clone()).unwrap_or_default(),
            line: line.unwrap_or(0),
            column: column.unwrap_or(0),
            message,
        };
    budget::begin(zone);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let context = Context::wraps(facts)?;
        let mut out = Capped::default();
        let mut rendering = RenderContext::new(None);
        template.render(registry, &context, &mut rendering, &mut out)?;
        Ok::<String, handlebars::RenderError>(out.text)
    }));
    let spent = budget::end();
    match result {
        Ok(Ok(text)) => match spent {
            None => Ok(text),
            Some(spent) => Err(fail(spent.to_owned(), None, None, None)),
        },
        Ok(Err(error)) => {
            let message = match (spent, error.reason()) {
                (Some(spent), _) => spent.to_owned(),
                (None, RenderErrorReason::MissingVariable(Some(name))) => {
                    format!("`{name}` is not among the facts of this event")
                }
                (None, RenderErrorReason::MissingVariable(None)) => {
                    "what `lookup` looks for is not there".to_owned()
                }
                (None, RenderErrorReason::IOError(error)) => error.to_string(),
                (None, reason) => reason.to_string(),
            };
            Err(fail(
                message,
                error.line_no,
                error.column_no,
                error.template_name.clone(),
            ))
        }
        Err(_) => Err(fail("rendering failed".to_owned(), None, None, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn link_in_html_is_an_element_with_its_parts_escaped() {
        let facts = json!({"good": "https://x.example/?a=1&b=2", "bad": "javascript:alert(1)"});
        let parsed = parse("{{link good \"<b>\"}} {{link bad}}").unwrap();
        assert_eq!(
            render(&parsed, &facts, &registry(true), &TimeZone::UTC).unwrap(),
            "<a href=\"https://x.example/?a&#x3D;1&amp;b&#x3D;2\">&lt;b&gt;</a> javascript:alert(1)"
        );
    }
}
