//! YAML as written: a tree in which every key and value knows its place.
//!
//! The parser below us gives events; here they become [`Node`]s. Aliases and merge keys are resolved
//! by copying, within limits on depth, nodes and text, so that a small file cannot grow into a big
//! tree. Duplicate keys and other faults that do not stop the parser are gathered, not thrown.
//!
//! Scalars are read as YAML 1.2 says, strictly: `true`, `false`, `null`, `~`, decimal numbers. `yes`,
//! `on` and `012` are text.

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::collections::HashMap;
use std::ops::Range;

/// Deepest nesting, aliases followed.
const DEPTH: usize = 64;
/// Most nodes in a tree, aliases followed.
const NODES: usize = 50_000;
/// Most bytes of text in a tree, aliases followed.
const TEXT: usize = 4_000_000;
/// Most faults gathered of one file; past them the reader has understood.
const FAULTS: usize = 50;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Bytes of the file it stands at. What an alias brought stands where it was first written.
    pub place: Range<usize>,
    /// What is there.
    pub value: Value,
}

/// What may stand in YAML.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a point or exponent.
    Float(f64),
    /// Any other scalar.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written.
    Map(Vec<Entry>),
}

/// A key of a map and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Bytes of the file the key stands at.
    pub key_place: Range<usize>,
    /// What it holds.
    pub value: Node,
}

/// Something wrong with the YAML itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the file it is about.
    pub place: Range<usize>,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Node {
    /// The value of `key`, in a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`, in a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The same as JSON, places forgotten.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(yes) => Json::Bool(*yes),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => serde_json::Number::from_f64(*number).map_or(Json::Null, Json::Number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A file, read.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// What is in it, as far as it can be understood. With a syntax error there is nothing; an empty
    /// file is a [`Value::Null`].
    pub root: Option<Node>,
    /// Second entries of a key: not in the tree, but there to be seen.
    pub dropped: Vec<Entry>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Reads one document.
pub fn read(text: &str) -> Tree {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    let mut builder = Builder {
        file: text,
        ..Builder::default()
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.take(event, place(&span)),
            Err(error) => Err(syntax(&error, text)),
        };
        if let Err(fault) = step {
            builder.faults.push(fault);
            return Tree {
                root: None,
                dropped: builder.dropped,
                faults: builder.faults,
            };
        }
    }
    let root = builder.root.unwrap_or(Node {
        place: 0..0,
        value: Value::Null,
    });
    Tree {
        root: Some(root),
        dropped: builder.dropped,
        faults: builder.faults,
    }
}

fn place(span: &Span) -> Range<usize> {
    span.byte_range().unwrap_or(0..0)
}

fn syntax(error: &ScanError, text: &str) -> Fault {
    let start = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let tab = text[line..].len() - text[line..].trim_start_matches(' ').len();
    let hint = if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        "nothing in a setup is nested that deep"
    } else if text[line + tab..].starts_with('\t') {
        "YAML is indented with spaces; there is a tab at the start of this line"
    } else {
        "look at the indentation, and whether a quote, bracket or colon is missing here or just above; \
         text with `: `, ` #`, or a leading `*`, `&`, `{`, `[`, `@`, `%` needs quotes"
    };
    Fault {
        place: start..start,
        message: format!("this is not YAML: {}", error.info()),
        hint: Some(hint.to_owned()),
    }
}

/// What a node weighs, so that copies of it can be counted before they are made.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    nodes: usize,
    text: usize,
    height: usize,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.nodes += other.nodes;
        self.text += other.text;
        self.height = self.height.max(other.height + 1);
    }
}

/// A collection that is still being read.
#[derive(Debug)]
struct Open {
    start: usize,
    anchor: usize,
    weight: Weight,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Keys seen, to find a second one in constant time.
        seen: HashMap<String, usize>,
        key: Option<(String, Range<usize>)>,
        merges: Vec<Node>,
    },
}

#[derive(Debug, Default)]
struct Builder<'a> {
    file: &'a str,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Weight)>,
    /// All that was made so far: counts copies too.
    total: Weight,
    documents: usize,
    root: Option<Node>,
    dropped: Vec<Entry>,
    faults: Vec<Fault>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, place: Range<usize>) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(fault(
                        place,
                        "a second YAML document begins here",
                        "one file holds one document; remove the `---`",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text.into_owned(), style, tag.as_deref(), &place);
                let weight = Weight {
                    nodes: 1,
                    text: match &value {
                        Value::Text(text) => text.len(),
                        _ => 0,
                    },
                    height: 0,
                };
                self.grow(weight, &place)?;
                self.close(Node { place, value }, anchor, weight)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", &place);
                self.begin(place, anchor, Kind::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", &place);
                self.begin(
                    place,
                    anchor,
                    Kind::Map {
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        key: None,
                        merges: Vec::new(),
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let (node, weight) = self.finish(open, place.end)?;
                    self.close(node.0, node.1, weight)?;
                }
            }
            Event::Alias(id) => {
                let Some((mut node, weight)) = self.copy(id, &place)? else {
                    return Err(fault(
                        place,
                        "this alias stands inside the very thing it names",
                        "write the value out",
                    ));
                };
                if let (true, Value::Text(_)) = (self.expects_key(), &node.value) {
                    node.place = place;
                }
                self.close(node, 0, weight)?;
            }
            Event::UnresolvedAlias(name) => {
                self.fault(fault(
                    place.clone(),
                    &format!("no anchor `&{}` stands above this alias", name.escape_debug()),
                    "a text that begins with `*` needs quotes: \"*.csv\"",
                ));
                let weight = Weight {
                    nodes: 1,
                    ..Weight::default()
                };
                // What was most likely meant: the text itself.
                let value = Value::Text(format!("*{name}"));
                self.close(Node { place, value }, 0, weight)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                kind: Kind::Map { key: None, .. },
                ..
            })
        )
    }

    /// Counts what is about to be made, and refuses what would be too much.
    fn grow(&mut self, weight: Weight, place: &Range<usize>) -> Result<(), Fault> {
        self.total.nodes = self.total.nodes.saturating_add(weight.nodes);
        self.total.text = self.total.text.saturating_add(weight.text);
        let much = if self.total.nodes > NODES {
            format!("more than {NODES} values")
        } else if self.total.text > TEXT {
            format!("more than {} MB of text", TEXT / 1_000_000)
        } else if self.open.len() + weight.height > DEPTH {
            format!("more than {DEPTH} levels, one inside the other")
        } else {
            return Ok(());
        };
        Err(fault(
            place.clone(),
            &format!("this file unfolds to {much}"),
            "split the rules over several files under rules/, and do not nest aliases",
        ))
    }

    fn begin(&mut self, place: Range<usize>, anchor: usize, kind: Kind) -> Result<(), Fault> {
        let weight = Weight {
            nodes: 1,
            ..Weight::default()
        };
        self.grow(weight, &place)?;
        self.open.push(Open {
            start: place.start,
            anchor,
            weight,
            kind,
        });
        Ok(())
    }

    fn copy(&mut self, id: usize, place: &Range<usize>) -> Result<Option<(Node, Weight)>, Fault> {
        let Some(weight) = self.anchors.get(&id).map(|(_, weight)| *weight) else {
            return Ok(None);
        };
        // Counted before it is copied: the copy itself could be what fills the memory.
        self.grow(weight, place)?;
        Ok(self.anchors.get(&id).cloned())
    }

    #[allow(
        clippy::type_complexity,
        reason = "a node with its anchor, on the way to `close`"
    )]
    fn finish(&mut self, open: Open, end: usize) -> Result<((Node, usize), Weight), Fault> {
        let place = open.start..end.max(open.start);
        let mut weight = open.weight;
        let value = match open.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map {
                mut entries,
                mut seen,
                merges,
                ..
            } => {
                for merged in merges {
                    let sources = match merged.value {
                        Value::List(items) => items,
                        _ => vec![merged],
                    };
                    for source in sources {
                        let Value::Map(more) = source.value else {
                            self.fault(fault(
                                source.place,
                                "`<<` takes over the keys of a map, and this is none",
                                "name a map: `<<: *defaults`",
                            ));
                            continue;
                        };
                        for entry in more {
                            if !seen.contains_key(&entry.key) {
                                seen.insert(entry.key.clone(), entries.len());
                                entries.push(entry);
                            }
                        }
                    }
                }
                Value::Map(entries)
            }
        };
        weight.height = weight.height.max(1);
        Ok(((Node { place, value }, open.anchor), weight))
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node, anchor: usize, weight: Weight) -> Result<(), Fault> {
        if anchor != 0 {
            // The table holds a copy; it counts like any other.
            self.grow(weight, &node.place)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight.add(weight);
        match &mut parent.kind {
            Kind::List(items) => items.push(node),
            Kind::Map {
                entries,
                seen,
                key,
                merges,
            } => match key.take() {
                None => {
                    *key = match node.value {
                        Value::Text(text) => Some((text, node.place)),
                        Value::Integer(number) => Some((number.to_string(), node.place)),
                        Value::Bool(yes) => Some((yes.to_string(), node.place)),
                        Value::Float(number) => Some((number.to_string(), node.place)),
                        Value::Null => Some((String::new(), node.place)),
                        Value::List(_) | Value::Map(_) => {
                            return Err(fault(
                                node.place,
                                "a key must be a plain word",
                                "a text that begins with `{` or `[` needs quotes: \"{{file.path}}\"",
                            ));
                        }
                    }
                }
                Some((name, _)) if name == "<<" => merges.push(node),
                Some((name, key_place)) => {
                    if let Some(first) = seen.get(&name).and_then(|&at| entries.get(at)) {
                        // Counting lines costs; a file full of duplicates stops at `FAULTS`.
                        if self.faults.len() < FAULTS {
                            let before = &self.file.as_bytes()[..first.key_place.start];
                            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
                            self.faults.push(fault(
                                key_place.clone(),
                                &format!("the key `{}` is here twice", name.escape_debug()),
                                &format!("the first one stands in line {line}; keep one of them"),
                            ));
                        }
                        self.dropped.push(Entry {
                            key: name,
                            key_place,
                            value: node,
                        });
                        return Ok(());
                    }
                    seen.insert(name.clone(), entries.len());
                    entries.push(Entry {
                        key: name,
                        key_place,
                        value: node,
                    });
                }
            },
        }
        Ok(())
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, allowed: &str, place: &Range<usize>) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema_tag(allowed)) {
            self.unknown_tag(tag, place);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, place: &Range<usize>) {
        self.fault(fault(
            place.clone(),
            &format!("the tag `{}` means nothing here", tag.original().escape_debug()),
            "remove it; a text that begins with `!` needs quotes",
        ));
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, place: &Range<usize>) -> Value {
        if let Some(tag) = tag {
            if tag.is_yaml_core_schema_tag("str") {
                return Value::Text(text);
            }
            if !tag.is_yaml_core_schema() {
                self.unknown_tag(tag, place);
            }
        } else if style != ScalarStyle::Plain {
            return Value::Text(text);
        }
        plain(text)
    }
}

fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if digits.is_empty() || !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Value::Text(text);
    }
    let number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    // `012` may be meant as text (a postal code), or as octal: it stays text and the types decide.
    let leading_zero =
        digits.len() > 1 && digits.starts_with('0') && !digits[1..].starts_with(['.', 'e', 'E']);
    if !number || leading_zero {
        return Value::Text(text);
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = text.parse()
    {
        return Value::Integer(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::Float(number),
        _ => Value::Text(text),
    }
}

fn fault(place: Range<usize>, message: &str, hint: &str) -> Fault {
    Fault {
        place,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests;
