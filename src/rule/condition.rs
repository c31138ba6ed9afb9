//! Conditions: `if:`, in [CEL](https://cel.dev), over the facts of an event.
//!
//! ```text
//! source --parse--> tree --prove--> Condition --check(facts)--> Decision { holds, why }
//!           (a thread with a big stack)           (any stack)
//! ```
//!
//! Everything that can be wrong is said when the condition is compiled, not in the night it is first
//! needed: names against the [`Vocabulary`], types by trying each part of the condition on sample
//! facts (`prove`). What is left to go wrong later are values: a division by zero, a text that is no
//! number.
//!
//! The CEL library recurses over its tree, and a stack that overflows ends the process. So a
//! condition is parsed and proved on a thread of its own with room for the worst 2 KB can hold, and
//! a tree deeper than `DEPTH` is refused there; what remains runs on any stack. Macros may be
//! nested twice, patterns take linear time, so the time of a check is bounded too.
//!
//! Beside CEL's own functions there are `matches(text, pattern)`, with compiled patterns kept, and
//! `lowerAscii()` and `upperAscii()`. There is no clock and no input in a condition: the same facts
//! give the same answer.

mod functions;
mod prove;
mod syntax;
mod words;

use crate::rule::facts::Vocabulary;
use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};
use cel::objects::Key;
use cel::{Context, ExecutionError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longest source, bytes.
pub const LONGEST: usize = 2048;

/// Deepest tree; a condition a person writes has ten levels or so. Without optimisation a level takes
/// up to 40 KB of stack: this depth runs in half of what a thread of the runtime has.
const DEPTH: usize = 24;

/// Stack to parse with. 2 KB of the worst (`a.a.a.a`) need less than a quarter of it without
/// optimisation; the system gives pages only as they are touched.
const STACK: usize = 64 << 20;

/// A compiled condition. Cheap to clone.
#[derive(Clone)]
pub struct Condition(Arc<Compiled>);

struct Compiled {
    whole: Part,
    /// The sides of the outermost `&&`; one where there is none.
    parts: Vec<Part>,
    /// Which facts are looked at: whole, or only these parts of them.
    bindings: Bindings,
}

/// A piece of the condition that is true or false.
struct Part {
    source: String,
    tree: IdedExpr,
    /// The facts it names, as paths, in the order written.
    uses: Vec<Vec<String>>,
}

type Bindings = BTreeMap<String, Fields>;

enum Fields {
    All,
    Some(BTreeSet<String>),
}

/// Why a condition cannot be compiled, or could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// Byte in the source it is about, where there is one.
    pub offset: Option<usize>,
    /// One sentence.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// What a condition says of some facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it holds.
    pub holds: bool,
    /// What decided it: `` `file.size > 0` is false: file.size = 0 ``. One line, control characters
    /// made visible.
    pub why: String,
}

impl ConditionError {
    fn at(offset: impl Into<Option<usize>>, message: impl Into<String>) -> ConditionError {
        ConditionError {
            offset: offset.into(),
            message: message.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> ConditionError {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Condition").field(&self.source()).finish()
    }
}

impl Condition {
    /// Compiles `source`, and proves it against the facts the rule will have.
    ///
    /// Takes milliseconds and a thread: for loading, not for events. The error is the first problem
    /// in the source.
    pub fn compile(source: &str, known: &Vocabulary) -> Result<Condition, ConditionError> {
        if source.len() > LONGEST {
            return Err(ConditionError::at(
                None,
                format!("the condition has {} bytes, {LONGEST} are allowed", source.len()),
            )
            .hint("keep lists of values in the rule's `data:` and ask `file.extension in data.extensions`"));
        }
        if source.trim().is_empty() {
            return Err(ConditionError::at(None, "the condition is empty")
                .hint("leave `if:` out to let it always hold"));
        }
        let on_big_stack = || -> Result<Condition, ConditionError> {
            let program = functions::ENVIRONMENT
                .compile(source)
                .map_err(|errors| syntax::explain(source, &errors))?;
            let uses = prove::names(&program, source, known)?;
            let condition = Condition::assemble(source, program.expression(), &uses);
            prove::types(&program, source, &condition.0.bindings, &uses, known)?;
            Ok(condition)
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("condition".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, on_big_stack);
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(ConditionError::at(None, "the condition cannot be understood")),
                Err(error) => Err(ConditionError::at(
                    None,
                    format!("the condition cannot be compiled: no thread could be started: {error}"),
                )),
            }
        })
    }

    /// The condition as written.
    pub fn source(&self) -> &str {
        &self.0.whole.source
    }

    /// The facts it names, as paths.
    pub fn names(&self) -> &[Vec<String>] {
        &self.0.whole.uses
    }

    /// Decides. Pure; microseconds for the usual condition.
    ///
    /// An error means that these facts have values the condition cannot work with: neither yes nor
    /// no. Whoever asks must not take it for either.
    pub fn check(&self, facts: &Value) -> Result<Decision, ConditionError> {
        let context = context(&self.0.bindings, facts);
        let holds = self.decide(&self.0.whole, &context, facts)?;
        // Of `a && b` only the side that is false tells why.
        let culprit = self.0.parts.iter().filter(|_| !holds);
        let culprit = culprit
            .into_iter()
            .find(|part| self.decide(part, &context, facts) == Ok(false));
        let part = culprit.unwrap_or(&self.0.whole);
        let mut why = match culprit {
            Some(part) => format!("`{}` is false", shorten(&part.source, 120)),
            None if part.uses.is_empty() => format!("it is always {holds}"),
            None => String::new(),
        };
        if !part.uses.is_empty() {
            if culprit.is_some() {
                why.push_str(": ");
            }
            why.push_str(&values(&part.uses, facts));
        }
        Ok(Decision { holds, why })
    }

    fn decide(&self, part: &Part, context: &Context<'_, '_>, facts: &Value) -> Result<bool, ConditionError> {
        let undecided = |what: String| {
            let mut message = format!("the condition `{}` {what}", shorten(&part.source, 120));
            if !part.uses.is_empty() {
                let _ = write!(message, " ({})", values(&part.uses, facts));
            }
            ConditionError::at(None, message)
        };
        match evaluate(&part.tree, context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(undecided(format!(
                "gives {}, not true or false",
                words::kind(&other)
            ))),
            Err(error) => Err(undecided(format!(
                "cannot be decided: {}",
                words::describe(&error).0
            ))),
        }
    }

    fn assemble(source: &str, tree: &IdedExpr, uses: &[prove::Use]) -> Condition {
        let part = |source: &str, tree: &IdedExpr| {
            let mut ids = BTreeSet::new();
            collect_ids(tree, &mut ids);
            let mut paths: Vec<Vec<String>> = Vec::new();
            for found in uses.iter().filter(|found| ids.contains(&found.id)) {
                if !paths.contains(&found.path) {
                    paths.push(found.path.clone());
                }
            }
            Part {
                source: source.trim().to_owned(),
                tree: tree.clone(),
                uses: paths,
            }
        };
        let sides = conjuncts(tree);
        let texts = syntax::conjuncts(source);
        let parts = if sides.len() == texts.len() {
            sides
                .iter()
                .zip(texts)
                .map(|(tree, text)| part(text, tree))
                .collect()
        } else {
            vec![part(source, tree)]
        };
        let mut bindings = Bindings::new();
        for found in uses {
            let Some(root) = found.path.first() else { continue };
            let fields = bindings
                .entry(root.clone())
                .or_insert_with(|| Fields::Some(BTreeSet::new()));
            match (fields, found.path.get(1)) {
                (Fields::Some(fields), Some(field)) => {
                    fields.insert(field.clone());
                }
                (fields, None) => *fields = Fields::All,
                (Fields::All, _) => {}
            }
        }
        Condition(Arc::new(Compiled {
            whole: part(source, tree),
            parts,
            bindings,
        }))
    }
}

/// Evaluates without letting a panic of the library through: facts come from outside.
fn evaluate(tree: &IdedExpr, context: &Context<'_, '_>) -> Result<cel::Value, ExecutionError> {
    catch_unwind(AssertUnwindSafe(|| cel::Value::resolve(tree, context))).unwrap_or_else(|_| {
        Err(ExecutionError::InternalError(
            "it broke on these facts".to_owned(),
        ))
    })
}

/// The facts a condition looks at, as the library knows values. A fact this event does not bring is
/// an empty group, so that `has(file.name)` is false rather than an error.
fn context<'v>(bindings: &Bindings, facts: &Value) -> Context<'static, 'v> {
    let mut context = Context::with_env(functions::ENVIRONMENT.clone());
    for (root, fields) in bindings {
        let value = match (facts.get(root), fields) {
            (None, _) => map([].into_iter()),
            (Some(Value::Object(parts)), Fields::Some(fields)) => {
                map(fields.iter().filter_map(|field| Some((field, parts.get(field)?))))
            }
            (Some(whole), _) => to_cel(whole),
        };
        context.add_variable_from_value(root.as_str(), value);
    }
    context
}

fn map<'a>(parts: impl Iterator<Item = (&'a String, &'a Value)>) -> cel::Value {
    let map: HashMap<Key, cel::Value> = parts
        .map(|(name, value)| (Key::String(Arc::new(name.clone())), to_cel(value)))
        .collect();
    cel::Value::Map(cel::objects::Map { map: Arc::new(map) })
}

/// Whole numbers are `int`, never `uint`: `file.size * 2` must not fail for its type.
fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(list) => cel::Value::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Object(parts) => map(parts.iter()),
    }
}

/// `file.size = 0, file.name = "a.pdf"`.
fn values(uses: &[Vec<String>], facts: &Value) -> String {
    const SHOWN: usize = 5;
    let mut out = String::new();
    for (at, path) in uses.iter().take(SHOWN).enumerate() {
        let name = path.join(".");
        let value = path.iter().try_fold(facts, |value, part| value.get(part));
        let _ = write!(
            out,
            "{}{name} {}",
            if at > 0 { ", " } else { "" },
            match value {
                None => "is not there".to_owned(),
                Some(value) => format!("= {}", shown(value)),
            }
        );
    }
    if uses.len() > SHOWN {
        out.push_str(", …");
    }
    out
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", shorten(text, 60)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(parts) => format!("a group of {}", parts.len()),
        other => other.to_string(),
    }
}

fn shorten(text: &str, longest: usize) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(longest).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// The sides of the outermost `&&`, which the library keeps as a balanced tree.
fn conjuncts(tree: &IdedExpr) -> Vec<&IdedExpr> {
    match &tree.expr {
        Expr::Call(CallExpr { func_name, args, .. }) if func_name == operators::LOGICAL_AND => {
            args.iter().flat_map(conjuncts).collect()
        }
        _ => vec![tree],
    }
}

fn collect_ids(tree: &IdedExpr, into: &mut BTreeSet<u64>) {
    into.insert(tree.id);
    prove::for_each_child(tree, &mut |child| collect_ids(child, into));
}

#[cfg(test)]
mod tests;
