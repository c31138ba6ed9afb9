//! `emit:`: an event that a rule has for others. Pure.
//!
//! What it says is filled in from the facts at hand, as texts of mails are; a text that is one fact and
//! nothing else keeps the kind of that fact, so that a number is a number for whoever hears it.

use crate::source::emitted::{CloudEvent, LARGEST, Refused};
use crate::template::{RenderError, Text};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// How many rules may hear one another in a row. `check` finds circles; this ends those it cannot see. One that
/// leads out of here, through a command that says `tidings emit`, begins anew each time: its mails meet the fuse.
pub const DEEPEST: u64 = 16;

/// An event, as the rule says it.
#[derive(Clone, Debug)]
pub struct EmitSpec {
    /// Its type.
    pub kind: String,
    /// What it is about.
    pub subject: Option<Text>,
    /// What it says.
    pub data: Vec<(String, Said)>,
}

/// One value of what it says.
#[derive(Clone, Debug)]
pub enum Said {
    /// A text to be filled in.
    Text(Text),
    /// One fact, as it is; its path, and the text that says it.
    Fact(Vec<String>, Text),
    /// As written.
    Value(Value),
    /// A list of such.
    List(Vec<Said>),
    /// A group of such.
    Map(Vec<(String, Said)>),
}

/// Why there is no event.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// Something in it cannot be filled in.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// What came of it is no event.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The source of the events of a rule.
pub fn source(rule: &str) -> String {
    format!("tidings/{rule}")
}

impl EmitSpec {
    /// The event, for these facts.
    pub fn make(
        &self,
        rule: &str,
        id: String,
        facts: &Value,
        now: Timestamp,
    ) -> Result<CloudEvent, EmitError> {
        let subject = match &self.subject {
            Some(text) => Some(line(&text.render(facts)?)).filter(|text| !text.is_empty()),
            None => None,
        };
        let event = CloudEvent {
            id,
            source: source(rule),
            kind: self.kind.clone(),
            subject,
            time: Some(now),
            schema: None,
            extensions: Map::new(),
            data: map(&self.data, facts)?,
        };
        event.sound()?;
        let size = event.data.to_string().len();
        if size > LARGEST {
            return Err(EmitError::Refused(Refused {
                message: format!("its data has {size} bytes, and at most {LARGEST} are allowed"),
                unfinished: false,
            }));
        }
        Ok(event)
    }
}

/// One line for an attribute: what a file is called may hold anything.
fn line(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = clean.len().min(1_000);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean[..end].trim().to_owned()
}

fn map(parts: &[(String, Said)], facts: &Value) -> Result<Value, RenderError> {
    let each = parts
        .iter()
        .map(|(name, said)| Ok((name.clone(), said.value(facts)?)));
    each.collect::<Result<Map<_, _>, RenderError>>()
        .map(Value::Object)
}

impl Said {
    fn value(&self, facts: &Value) -> Result<Value, RenderError> {
        Ok(match self {
            Said::Text(text) => Value::String(text.render(facts)?),
            Said::Fact(path, text) => {
                let found = path.iter().try_fold(facts, |value, part| match value {
                    Value::Array(list) => list.get(part.parse::<usize>().ok()?),
                    value => value.get(part),
                });
                match found {
                    Some(value) => value.clone(),
                    // It says what is missing.
                    None => Value::String(text.render(facts)?),
                }
            }
            Said::Value(value) => value.clone(),
            Said::List(list) => Value::Array(
                list.iter()
                    .map(|said| said.value(facts))
                    .collect::<Result<_, _>>()?,
            ),
            Said::Map(parts) => map(parts, facts)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(source: &str) -> Text {
        Text::compile(source).unwrap()
    }

    fn fact(path: &str) -> Said {
        let parts = path.split('.').map(str::to_owned).collect();
        Said::Fact(parts, text(&format!("{{{{{path}}}}}")))
    }

    fn made(data: Vec<(&str, Said)>, facts: &Value) -> Result<CloudEvent, EmitError> {
        let spec = EmitSpec {
            kind: "com.example.done".to_owned(),
            subject: Some(text("{{file.name}}")),
            data: data
                .into_iter()
                .map(|(name, said)| (name.to_owned(), said))
                .collect(),
        };
        spec.make("a-rule", "1".to_owned(), facts, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn texts_are_filled_in_and_a_lone_fact_keeps_its_kind() {
        let facts = json!({ "file": { "name": "a.csv", "size": 12 }, "data": { "list": [{ "n": 1 }] } });
        let event = made(
            vec![
                ("text", Said::Text(text("{{file.size}} bytes"))),
                ("size", fact("file.size")),
                ("list", fact("data.list")),
                (
                    "deep",
                    Said::Map(vec![("x".to_owned(), Said::List(vec![fact("file.name")]))]),
                ),
                ("plain", Said::Value(json!(true))),
            ],
            &facts,
        )
        .unwrap();
        assert_eq!(
            event.data,
            json!({ "text": "12 bytes", "size": 12, "list": [{ "n": 1 }], "deep": { "x": ["a.csv"] }, "plain": true })
        );
        assert_eq!(
            (event.source.as_str(), event.subject.as_deref()),
            ("tidings/a-rule", Some("a.csv"))
        );
    }

    #[test]
    fn a_fact_that_is_not_there_is_an_error_that_names_it() {
        let facts = json!({ "file": { "name": "a" } });
        let error = made(vec![("x", fact("file.size"))], &facts).unwrap_err();
        assert!(error.to_string().contains("size"), "{error}");
    }

    #[test]
    fn a_hostile_file_name_is_no_hostile_subject() {
        let facts = json!({ "file": { "name": format!("a\u{1b}[2J\n{}", "ä".repeat(2000)) } });
        let subject = made(Vec::new(), &facts).unwrap().subject.unwrap();
        assert!(
            subject.len() <= 1_000 && !subject.contains(char::is_control),
            "{subject:?}"
        );
    }

    #[test]
    fn too_much_data_is_refused() {
        let facts = json!({ "file": { "name": "a" }, "data": { "all": "x".repeat(LARGEST + 1) } });
        let error = made(vec![("x", fact("data.all"))], &facts).unwrap_err();
        assert!(error.to_string().contains("at most"), "{error}");
    }
}
