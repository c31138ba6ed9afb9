//! A tree against a schema: every unknown key, missing key, wrong type and unknown word, at once.
//!
//! serde would stop at the first. This walks the same schema that is printed for editors, and knows
//! of JSON Schema what our own types produce: `$ref`, `type`, `properties`, `required`,
//! `additionalProperties`, `items`, `minItems`, `anyOf`, `oneOf`, `const`, `enum`, `minimum`,
//! `maximum`. Patterns are left to those who know what the text means; they complain better.
//!
//! What cannot be used is cut out of the tree, so that the rest is still checked in the same run.
//! Whoever goes on with it asks [`Shape::damaged`] before he complains that something is missing.

use crate::config::diagnostic::Problem;
use crate::config::document::Document;
use crate::config::quantity;
use crate::config::yaml::{Node, Value};
use crate::suggest;
use serde_json::Value as Json;
use std::ops::Range;

/// Most complaints about one file: more help nobody, and each costs a look at the file.
const MOST: usize = 100;

/// What became of the walk.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What can be used, as far as anything can.
    pub root: Option<Node>,
    /// The paths, from the top, of all that could not.
    faults: Vec<Vec<String>>,
}

impl Shape {
    /// Whether all was well.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether something at or below `path` could not be used.
    pub fn damaged(&self, path: &[&str]) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.len() >= path.len() && fault.iter().zip(path).all(|(a, b)| a.as_str() == *b))
    }

    /// The keys of the top-level map `section` at or below which something could not be used.
    pub fn below<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.faults
            .iter()
            .filter(move |fault| fault.first().is_some_and(|first| first == section))
            .filter_map(|fault| fault.get(1).map(String::as_str))
    }
}

/// Walks `document` along `schema`.
pub fn check(document: &Document, schema: &Json, problems: &mut Vec<Problem>) -> Shape {
    let mut walk = Walk {
        document,
        definitions: schema.get("$defs").unwrap_or(&Json::Null),
        path: Vec::new(),
        faults: Vec::new(),
        problems,
    };
    let root = walk.node(&document.root, schema, &document.root.place);
    Shape {
        root,
        faults: walk.faults,
    }
}

struct Walk<'a> {
    document: &'a Document,
    definitions: &'a Json,
    path: Vec<String>,
    faults: Vec<Vec<String>>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Walk<'a> {
    fn complain(&mut self, place: &Range<usize>, message: String, hint: String) {
        self.faults.push(self.path.clone());
        if self.faults.len() <= MOST {
            let place = self.document.place(place.clone());
            let problem = Problem::error(&self.document.file, message);
            self.problems.push(problem.at(place).hint(hint));
        }
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        while let Some(name) = schema.get("$ref").and_then(Json::as_str) {
            let name = name.trim_start_matches("#/$defs/");
            match self.definitions.get(name) {
                Some(definition) => schema = definition,
                None => break,
            }
        }
        schema
    }

    /// All that a node may be, alternatives flattened.
    fn options(&self, schema: &'a Json) -> Vec<&'a Json> {
        let schema = self.resolve(schema);
        let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf"));
        match alternatives.and_then(Json::as_array) {
            Some(alternatives) => alternatives
                .iter()
                .flat_map(|alternative| self.options(alternative))
                .collect(),
            None => vec![schema],
        }
    }

    /// The part of `node` that can be used. `spot` is where to point when the node itself spans lines.
    fn node(&mut self, node: &Node, schema: &'a Json, spot: &Range<usize>) -> Option<Node> {
        let options = self.options(schema);
        let fitting: Vec<&Json> = options
            .iter()
            .copied()
            .filter(|option| accepts(option, &node.value))
            .collect();
        let Some(&first) = fitting.first() else {
            self.wrong_type(node, &options, spot);
            return None;
        };
        match &node.value {
            Value::Map(_) if fitting.len() > 1 && fitting.iter().all(|option| tag(option).is_some()) => {
                self.tagged(node, &fitting, spot)
            }
            Value::Map(_) => self.map(node, first, spot),
            Value::List(items) => self.list(node, items, first, spot),
            Value::Text(text) => self.word(node, text, &fitting),
            _ => self.number(node, first),
        }
    }

    fn wrong_type(&mut self, node: &Node, options: &[&'a Json], spot: &Range<usize>) {
        let mut wanted: Vec<String> = Vec::new();
        for option in options {
            let name = match option.get("type").and_then(Json::as_str) {
                Some("string") => match words(&[*option]).as_slice() {
                    [] => "a text".to_owned(),
                    words => format!("`{}`", words.join("` or `")),
                },
                Some("object") => "a map".to_owned(),
                Some("array") => "a list".to_owned(),
                Some("integer") => "a whole number".to_owned(),
                Some("number") => "a number".to_owned(),
                Some("boolean") => "`true` or `false`".to_owned(),
                _ => continue,
            };
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        let wanted = join(&wanted);
        let text = options
            .iter()
            .any(|option| option.get("type").is_some_and(|kind| kind == "string"));
        let written = self.document.written(node.place.clone());
        let hint = match &node.value {
            Value::Null if self.path.is_empty() => {
                let keys = options
                    .iter()
                    .filter_map(|option| option.get("properties")?.as_object());
                let keys: Vec<_> = keys
                    .flat_map(|keys| keys.keys())
                    .map(|key| format!("`{key}:`"))
                    .collect();
                match keys.as_slice() {
                    [] => "nothing is written in this file".to_owned(),
                    keys => format!("nothing is written in this file; it may say {}", keys.join(", ")),
                }
            }
            Value::Null => "write a value, or leave the key out".to_owned(),
            Value::Text(text) if wanted.contains("`true`") && yes_or_no(text).is_some() => {
                format!("write `{}`", yes_or_no(text).unwrap_or_default())
            }
            Value::List(_) if wanted == "a map" => {
                "each key stands at the beginning of its line, without `- ` before it".to_owned()
            }
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if text => {
                let pattern = options
                    .iter()
                    .find_map(|option| option.get("pattern").and_then(Json::as_str));
                match pattern {
                    Some(quantity::SIZE_PATTERN) => "a size has a unit: 500kB, 10MB".to_owned(),
                    Some(_) => "a time has a unit: 30s, 5m, 2h".to_owned(),
                    None => format!("put it in quotes: \"{written}\""),
                }
            }
            Value::Text(text) if wanted.contains("number") && text.parse::<f64>().is_ok() => {
                "write it without quotes".to_owned()
            }
            Value::Map(_) if written.starts_with("{{") => {
                format!("a text that begins with `{{{{` needs quotes: \"{written}\"")
            }
            _ => self.example(options),
        };
        let place = match &node.value {
            Value::Map(_) | Value::List(_) | Value::Null => spot,
            _ => &node.place,
        };
        self.complain(
            place,
            format!("{wanted} should be here, not {}", kind(&node.value)),
            hint,
        );
    }

    /// What a map would look like that fits.
    fn example(&self, options: &[&Json]) -> String {
        let tags: Vec<String> = options
            .iter()
            .filter_map(|option| tag(option))
            .map(|key| format!("`{key}`"))
            .collect();
        if tags.len() > 1 {
            return format!("a map with one of {}", tags.join(", "));
        }
        let keys = options.iter().find_map(|option| {
            let required = option.get("required").and_then(Json::as_array)?;
            Some(required.iter().filter_map(Json::as_str).collect::<Vec<_>>())
        });
        match keys.as_deref() {
            Some([first, ..]) => format!("a map with the key `{first}`: {{ {first}: .. }}"),
            _ => String::new(),
        }
    }

    /// A map with one key that says which of several things it is.
    fn tagged(&mut self, node: &Node, options: &[&'a Json], spot: &Range<usize>) -> Option<Node> {
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let known: Vec<&str> = options.iter().filter_map(|option| tag(option)).collect();
        let mut kept = Vec::new();
        for entry in entries {
            let fit = options.iter().find(|option| tag(option) == Some(&entry.key));
            let Some(schema) = fit.and_then(|option| option.get("properties")?.get(&entry.key)) else {
                self.complain(
                    &entry.key_place,
                    format!("unknown key `{}`", entry.key),
                    suggest::hint(&entry.key, known.iter().copied()),
                );
                continue;
            };
            self.path.push(entry.key.clone());
            let value = self.node(&entry.value, schema, &entry.key_place);
            self.path.pop();
            kept.push((entry, value));
        }
        match kept.as_slice() {
            [(entry, value)] => {
                let mut entry = (*entry).clone();
                entry.value = value.clone()?;
                Some(Node {
                    place: node.place.clone(),
                    value: Value::Map(vec![entry]),
                })
            }
            [] => {
                if entries.is_empty() {
                    let known: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
                    self.complain(
                        spot,
                        "a key is missing here".to_owned(),
                        format!("one of {}", known.join(", ")),
                    );
                }
                None
            }
            [first, second, ..] => {
                self.complain(
                    &second.0.key_place,
                    format!("`{}` and `{}` cannot stand together", first.0.key, second.0.key),
                    "only one of them fits here; where several are meant, write a list: each begins with `- `"
                        .to_owned(),
                );
                None
            }
        }
    }

    fn map(&mut self, node: &Node, schema: &'a Json, spot: &Range<usize>) -> Option<Node> {
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        let known = || {
            properties
                .into_iter()
                .flat_map(serde_json::Map::keys)
                .map(String::as_str)
        };
        let property = |key: &str| properties.and_then(|properties| properties.get(key));
        let additional = schema.get("additionalProperties");
        let mut kept = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let below = match (property(&entry.key), additional) {
                (Some(below), _) => below,
                (None, Some(Json::Bool(true)) | None) => {
                    kept.push(entry.clone());
                    continue;
                }
                (None, Some(below @ Json::Object(_))) => below,
                (None, Some(_)) => {
                    // `when:` with its trigger not indented below it.
                    let above = number.checked_sub(1).and_then(|above| entries.get(above));
                    let hint = match above {
                        Some(above)
                            if matches!(above.value.value, Value::Null) && property(&above.key).is_some() =>
                        {
                            format!("if it belongs to `{}:` above it, indent it further", above.key)
                        }
                        _ => suggest::hint(&entry.key, known().collect::<Vec<_>>()),
                    };
                    self.complain(&entry.key_place, format!("unknown key `{}`", entry.key), hint);
                    continue;
                }
            };
            self.path.push(entry.key.clone());
            if let Some(value) = self.node(&entry.value, below, &entry.key_place) {
                kept.push(crate::config::yaml::Entry {
                    value,
                    ..entry.clone()
                });
            }
            self.path.pop();
        }
        let required = schema.get("required").and_then(Json::as_array);
        let mut whole = true;
        for key in required.into_iter().flatten().filter_map(Json::as_str) {
            if !kept.iter().any(|entry| entry.key == key) {
                whole = false;
                // A key that is there and wrong, or misspelled, has been complained about.
                let said = entries.iter().any(|entry| {
                    entry.key == key
                        || (property(&entry.key).is_none()
                            && suggest::nearest(&entry.key, known()) == Some(key))
                });
                if !said {
                    let about = property(key)
                        .and_then(|property| property.get("description"))
                        .and_then(Json::as_str);
                    self.complain(
                        spot,
                        format!("the key `{key}` is missing here"),
                        about.unwrap_or_default().to_owned(),
                    );
                }
            }
        }
        whole.then(|| Node {
            place: node.place.clone(),
            value: Value::Map(kept),
        })
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &'a Json, spot: &Range<usize>) -> Option<Node> {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            self.complain(
                spot,
                "this list is empty".to_owned(),
                "write at least one, or leave the key out".to_owned(),
            );
            return None;
        }
        let below = schema.get("items").unwrap_or(&Json::Bool(true));
        let kept = items
            .iter()
            .filter_map(|item| {
                let spot = match &item.value {
                    Value::Map(entries) => entries.first().map(|entry| entry.key_place.clone()),
                    _ => None,
                };
                self.node(item, below, &spot.unwrap_or_else(|| item.place.clone()))
            })
            .collect();
        Some(Node {
            place: node.place.clone(),
            value: Value::List(kept),
        })
    }

    fn word(&mut self, node: &Node, text: &str, options: &[&'a Json]) -> Option<Node> {
        // Where any text will do, any text will do.
        let free = options
            .iter()
            .any(|option| option.get("const").is_none() && option.get("enum").is_none());
        let known = words(options);
        if free || known.contains(&text) {
            return Some(node.clone());
        }
        let hint = suggest::hint(text, known.iter().copied());
        self.complain(&node.place, format!("`{text}` is not known here"), hint);
        None
    }

    fn number(&mut self, node: &Node, schema: &Json) -> Option<Node> {
        if let Value::Integer(number) = node.value {
            let bound = |name: &str| schema.get(name).and_then(Json::as_i64);
            let low = bound("minimum").filter(|&low| number < low);
            let high = bound("maximum").filter(|&high| number > high);
            if let Some(limit) = low {
                self.complain(
                    &node.place,
                    format!("{number} is too little"),
                    format!("the least is {limit}"),
                );
                return None;
            }
            if let Some(limit) = high {
                self.complain(
                    &node.place,
                    format!("{number} is too much"),
                    format!("the most is {limit}"),
                );
                return None;
            }
        }
        Some(node.clone())
    }
}

/// The one key of a schema that stands for one of several things.
fn tag(schema: &Json) -> Option<&str> {
    let properties = schema.get("properties")?.as_object()?;
    let required = schema.get("required")?.as_array()?;
    match (properties.len(), required.as_slice()) {
        (1, [key]) if schema.get("additionalProperties") == Some(&Json::Bool(false)) => key.as_str(),
        _ => None,
    }
}

/// The words that some schemas allow.
fn words<'a>(options: &[&'a Json]) -> Vec<&'a str> {
    options
        .iter()
        .flat_map(|option| {
            let one = option.get("const").and_then(Json::as_str);
            let several = option.get("enum").and_then(Json::as_array);
            one.into_iter()
                .chain(several.into_iter().flatten().filter_map(Json::as_str))
        })
        .collect()
}

fn accepts(schema: &Json, value: &Value) -> bool {
    let Some(wanted) = schema.get("type").and_then(Json::as_str) else {
        return true;
    };
    match value {
        Value::Null => wanted == "null",
        Value::Bool(_) => wanted == "boolean",
        Value::Integer(_) => matches!(wanted, "integer" | "number"),
        Value::Float(_) => wanted == "number",
        Value::Text(_) => wanted == "string",
        Value::List(_) => wanted == "array",
        Value::Map(_) => wanted == "object",
    }
}

/// The words of other YAML readers for `true` and `false`.
fn yes_or_no(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" => Some("true"),
        "no" | "n" | "off" => Some("false"),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "`true` or `false`",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a point",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

fn join(words: &[String]) -> String {
    match words {
        [] => "something else".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A document whose shape was checked, and what it says.
#[derive(Clone, Debug)]
pub struct Sound<T> {
    /// The document, cut down to what can be used.
    pub document: Document,
    /// What could not.
    pub shape: Shape,
    /// What is left, typed.
    pub raw: T,
}

/// Checks the shape of `document` and reads it.
///
/// What is to run is read by serde from the text itself. Where the shape is damaged nothing of it
/// will ever run; then what is left of the tree is read, only to find the other mistakes.
pub fn read<T: serde::de::DeserializeOwned>(
    mut document: Document,
    schema: &Json,
    problems: &mut Vec<Problem>,
) -> Option<Sound<T>> {
    let shape = check(&document, schema, problems);
    let raw = if shape.is_sound() && document.is_whole() {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
        };
        match serde_saphyr::from_str_with_options(&document.text, options) {
            Ok(raw) => raw,
            Err(error) => {
                let error = error.without_snippet();
                let mut problem = Problem::error(&document.file, format!("this cannot be read: {error}"));
                if let Some(at) = error.location() {
                    problem = problem.at(document.line(at.line() as usize, at.column() as usize));
                }
                problems.push(problem);
                return None;
            }
        }
    } else {
        let root = shape.root.clone()?;
        let raw = serde_json::from_value(root.to_json()).ok()?;
        document.root = root;
        raw
    };
    Some(Sound { document, shape, raw })
}
