//! `event:` and `emit:`.

use crate::config::document::At;
use crate::config::raw::{Many, emit as raw};
use crate::rule::Trigger;
use crate::rule::emit::{EmitSpec, Said};
use crate::rule::load::Loader;
use crate::rule::load::words::Words;
use crate::source::emitted::CloudEvent;
use globset::{Glob, GlobMatcher};
use serde_json::{Map, Value};

impl Loader<'_> {
    /// `event:`
    pub(super) fn event(&mut self, at: &At<'_>, raw: &raw::Event) -> Option<Trigger> {
        let spot = at.key("type");
        let mut types = Vec::new();
        for (index, pattern) in raw.kind.0.iter().enumerate() {
            types.push(self.any_text(
                &spot.item(index),
                &pattern.0,
                "which type?",
                "com.example.backup.*",
            ));
        }
        let source = match &raw.source {
            Some(pattern) => {
                Some(self.any_text(&at.key("source"), &pattern.0, "which source?", "//backup/*")?)
            }
            None => None,
        };
        Some(Trigger::Event {
            types: types.into_iter().collect::<Option<_>>()?,
            source,
        })
    }

    /// A pattern for a text that is no path: `*` is anything.
    fn any_text(&mut self, at: &At<'_>, pattern: &str, empty: &str, example: &str) -> Option<GlobMatcher> {
        match Glob::new(pattern) {
            Ok(glob) if !pattern.is_empty() => Some(glob.compile_matcher()),
            Ok(_) => {
                self.complain(at.error(empty).hint(format!("as \"{example}\"")));
                None
            }
            Err(error) => {
                self.complain(
                    at.error(format!("`{pattern}` is not a pattern: {}", error.kind()))
                        .hint(format!("`*` stands for anything: \"{example}\"")),
                );
                None
            }
        }
    }

    /// `emit:`, one event or several.
    pub(super) fn emits(
        &mut self,
        at: &At<'_>,
        rule: &str,
        raw: &Many<raw::Emit>,
        words: &Words,
    ) -> Vec<EmitSpec> {
        let each = raw.0.iter().enumerate();
        each.filter_map(|(index, emit)| self.emit(&at.item(index), rule, emit, words))
            .collect()
    }

    fn emit(&mut self, at: &At<'_>, rule: &str, raw: &raw::Emit, words: &Words) -> Option<EmitSpec> {
        let spot = at.key("type");
        let kind = self.kind(&spot, &raw.kind);
        let spot_of_subject = at.key("subject");
        let subject = raw
            .subject
            .as_ref()
            .map(|text| self.text(&spot_of_subject, &text.0, words));
        let spot_of_data = at.key("data");
        let mut data = Vec::new();
        for (name, value) in raw.data.iter().flatten() {
            data.push(
                self.said(&spot_of_data.key(name), value, words)
                    .map(|said| (name.clone(), said)),
            );
        }
        let kind = kind?;
        self.tells(&spot, rule, &kind);
        Some(EmitSpec {
            kind,
            subject: match subject {
                Some(text) => Some(text?),
                None => None,
            },
            data: data.into_iter().collect::<Option<_>>()?,
        })
    }

    /// The type of an event: one, known beforehand, so that it can be told who hears it.
    fn kind(&mut self, at: &At<'_>, kind: &str) -> Option<String> {
        if kind.contains(['*', '?', '{', '[']) {
            self.complain(
                at.error(format!("`{kind}` is not one type of event, and an event has one"))
                    .hint("com.example.report.done; what changes from one to the next belongs into `subject` or `data`"),
            );
            return None;
        }
        let event = CloudEvent {
            id: "1".to_owned(),
            source: "/".to_owned(),
            kind: kind.to_owned(),
            subject: None,
            time: None,
            schema: None,
            extensions: Map::new(),
            data: Value::Null,
        };
        match event.sound() {
            Ok(()) => Some(kind.to_owned()),
            Err(refused) => {
                self.complain(at.error(refused.message).hint("as com.example.report.done"));
                None
            }
        }
    }

    fn said(&mut self, at: &At<'_>, value: &Value, words: &Words) -> Option<Said> {
        Some(match value {
            Value::String(source) => {
                let text = self.text(at, source, words)?;
                match text.variables().as_slice() {
                    [only] if lone(source, &only.path) => Said::Fact(only.path.clone(), text),
                    _ => Said::Text(text),
                }
            }
            Value::Array(list) => {
                let all: Vec<Option<Said>> = list
                    .iter()
                    .enumerate()
                    .map(|(index, value)| self.said(&at.item(index), value, words))
                    .collect();
                Said::List(all.into_iter().collect::<Option<_>>()?)
            }
            Value::Object(map) => {
                let all: Vec<Option<(String, Said)>> = map
                    .iter()
                    .map(|(name, value)| Some((name.clone(), self.said(&at.key(name), value, words)?)))
                    .collect();
                Said::Map(all.into_iter().collect::<Option<_>>()?)
            }
            other => Said::Value(other.clone()),
        })
    }
}

/// Whether a text is this fact and nothing else: `{{file.size}}`.
fn lone(source: &str, path: &[String]) -> bool {
    let inside = source
        .trim()
        .strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"));
    inside.is_some_and(|inside| inside.trim() == path.join("."))
}
