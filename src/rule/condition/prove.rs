//! Proof that a condition can be decided: its names exist, and its types fit.
//!
//! Names are read off the tree. Types are tried out: each part of the tree is evaluated on each set
//! of sample facts, by the same library that will decide, so that nothing here can be of another
//! opinion than the real thing; and a part behind a `&&` that the sample does not reach is tried too.
//! Errors of values (no such key, division by zero) say nothing about other values and pass.

use super::words::{compare_hint, describe, differ, has_null, is_of_type, kind};
use super::{Bindings, ConditionError, DEPTH, context, evaluate, functions};
use crate::rule::facts::{Sample, Vocabulary};
use crate::suggest::nearest;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, ExecutionError, Program, Value};

/// A fact the condition names.
pub(super) struct Use {
    /// `["file", "size"]`
    pub(super) path: Vec<String>,
    /// The node of the tree that names it.
    pub(super) id: u64,
}

/// Macros within macros multiply the time a check takes.
const MACROS: usize = 2;

/// Words of CEL's types, which stand where a fact could.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
];

pub(super) fn too_deep(offset: Option<usize>) -> ConditionError {
    ConditionError::at(
        offset,
        format!("the condition is nested deeper than {DEPTH} levels"),
    )
    .hint("ask for several values with a list: `file.extension in [\"pdf\", \"csv\"]`")
}

/// Checks every name, and the depth of the tree. Returns the facts named, in the order written.
pub(super) fn names(program: &Program, source: &str, known: &Vocabulary) -> Result<Vec<Use>, ConditionError> {
    let mut walk = Walk {
        program,
        source,
        known,
        bound: Vec::new(),
        uses: Vec::new(),
    };
    walk.visit(program.expression(), 1, 0)?;
    let mut uses = walk.uses;
    uses.sort_by_key(|found| offset(program, found.id));
    Ok(uses)
}

struct Walk<'a> {
    program: &'a Program,
    source: &'a str,
    known: &'a Vocabulary,
    /// Names that macros brought: `x` in `list.exists(x, ..)`.
    bound: Vec<&'a str>,
    uses: Vec<Use>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, tree: &'a IdedExpr, depth: usize, macros: usize) -> Result<(), ConditionError> {
        if depth > DEPTH {
            return Err(too_deep(offset(self.program, tree.id)));
        }
        if let Some((path, root)) = path_of(tree) {
            if depth + path.len() > DEPTH {
                return Err(too_deep(offset(self.program, tree.id)));
            }
            let ours = root.starts_with('@') || self.bound.contains(&root);
            let type_name = path.len() == 1 && TYPES.contains(&root);
            if !ours && !type_name {
                self.name(tree, path)?;
            }
            return Ok(());
        }
        match &tree.expr {
            Expr::Call(call) => {
                self.call(tree, call)?;
                self.children(tree, depth, macros)
            }
            Expr::Comprehension(inner) => {
                if macros == MACROS {
                    return Err(ConditionError::at(
                        offset(self.program, tree.id),
                        format!("more than {MACROS} of `exists`, `all`, `map`, `filter` inside each other"),
                    ));
                }
                self.visit(&inner.iter_range, depth + 1, macros)?;
                let before = self.bound.len();
                self.bound.push(&inner.iter_var);
                self.bound.extend(inner.iter_var2.as_deref());
                for part in [
                    &inner.accu_init,
                    &inner.loop_cond,
                    &inner.loop_step,
                    &inner.result,
                ] {
                    self.visit(part, depth + 1, macros + 1)?;
                }
                self.bound.truncate(before);
                Ok(())
            }
            Expr::Struct(made) => Err(ConditionError::at(
                offset(self.program, tree.id),
                format!("there is no type `{}` to make", made.type_name),
            )),
            _ => self.children(tree, depth, macros),
        }
    }

    fn children(&mut self, tree: &'a IdedExpr, depth: usize, macros: usize) -> Result<(), ConditionError> {
        let mut result = Ok(());
        for_each_child(tree, &mut |child| {
            if result.is_ok() {
                result = self.visit(child, depth + 1, macros);
            }
        });
        result
    }

    fn name(&mut self, tree: &IdedExpr, path: Vec<String>) -> Result<(), ConditionError> {
        if let Err(unknown) = self.known.knows(&path) {
            let mut good = 0;
            while good < path.len() && self.known.knows(&path[..=good]).is_ok() {
                good += 1;
            }
            let mut at = root_of(tree).and_then(|root| offset(self.program, root.id));
            // The tree does not say where a part stands: look for it behind the name it belongs to.
            for (depth, part) in path.iter().enumerate().take(good + 1).skip(1) {
                at = at.and_then(|at| {
                    let from = at + path[depth - 1].len();
                    Some(from + self.source.get(from..)?.find(part.as_str())?)
                });
            }
            return Err(ConditionError {
                offset: at,
                message: unknown.message,
                hint: unknown.hint,
            });
        }
        let id = root_of(tree).map_or(tree.id, |root| root.id);
        self.uses.push(Use { path, id });
        Ok(())
    }

    fn call(&self, tree: &IdedExpr, call: &CallExpr) -> Result<(), ConditionError> {
        let name = call.func_name.as_str();
        let at = offset(self.program, tree.id);
        if !name.starts_with(|c: char| c.is_alphabetic()) {
            return Ok(()); // an operator
        }
        // The name stands before its bracket.
        let at = at.map(|at| {
            self.source
                .get(..at)
                .and_then(|before| before.rfind(name))
                .unwrap_or(at)
        });
        if let Some((mut path, root)) = call.target.as_deref().and_then(path_of)
            && call.args.is_empty()
            && !self.bound.contains(&root)
            && root != "data"
        {
            path.push(name.to_owned());
            let fact = path.join(".");
            if self.known.knows(&path).is_ok() {
                return Err(
                    ConditionError::at(at, format!("`{fact}` is a fact, not a function"))
                        .hint(format!("write `{fact}` without `()`")),
                );
            }
        }
        if functions::MACROS.contains(&name) {
            let error = ConditionError::at(at, format!("`{name}` is not used like this"));
            return Err(match name {
                "has" => error.hint("write `has(file.name)`"),
                _ => error.hint(format!("write `list.{name}(x, x > 1)`")),
            });
        }
        if functions::NAMES.contains(&name) {
            if name == "matches"
                && let Some(Expr::Literal(LiteralValue::String(text))) =
                    call.args.last().map(|last| &last.expr)
                && let Err(why) = functions::pattern(text.inner())
            {
                let at = call.args.last().and_then(|last| offset(self.program, last.id));
                return Err(ConditionError::at(at, format!("the pattern is wrong: {why}")));
            }
            return Ok(());
        }
        let meant = match name.to_ascii_lowercase().as_str() {
            "length" | "len" | "count" => Some("size"),
            "includes" | "has_text" => Some("contains"),
            "lower" | "tolower" | "tolowercase" | "lowercase" => Some("lowerAscii"),
            "upper" | "toupper" | "touppercase" | "uppercase" => Some("upperAscii"),
            "test" | "regex" | "match" => Some("matches"),
            _ => nearest(name, functions::NAMES).or_else(|| nearest(name, functions::MACROS)),
        };
        let error = ConditionError::at(at, format!("unknown function `{name}`"));
        Err(match meant {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error.hint(format!("there are `{}`", functions::NAMES.join("`, `"))),
        })
    }
}

/// Tries the condition, whole and in parts, on every set of sample facts.
pub(super) fn types(
    program: &Program,
    source: &str,
    bindings: &Bindings,
    uses: &[Use],
    known: &Vocabulary,
) -> Result<(), ConditionError> {
    for sample in known.cases() {
        let context = context(bindings, &sample.facts);
        let probe = Probe {
            program,
            context: &context,
        };
        probe.part(program.expression())?;
        probe.whole(source, uses, sample, known)?;
    }
    Ok(())
}

struct Probe<'a> {
    program: &'a Program,
    context: &'a Context<'a, 'a>,
}

/// What a part of a condition came to.
enum Tried {
    Value(Value),
    /// It could not be told for these values; other values may do.
    Nothing,
}

impl Probe<'_> {
    fn part(&self, tree: &IdedExpr) -> Result<Tried, ConditionError> {
        let mut operands = Vec::new();
        if path_of(tree).is_none() {
            match &tree.expr {
                // Inside a macro names are bound that exist only there.
                Expr::Comprehension(inner) => {
                    self.part(&inner.iter_range)?;
                }
                _ => {
                    let mut fault = None;
                    for_each_child(tree, &mut |child| {
                        if fault.is_none() {
                            match self.part(child) {
                                Ok(tried) => operands.push((child, tried)),
                                Err(error) => fault = Some(error),
                            }
                        }
                    });
                    if let Some(fault) = fault {
                        return Err(fault);
                    }
                }
            }
        }
        if let Expr::Call(call) = &tree.expr {
            self.operands(tree, call, &operands)?;
        }
        match evaluate(tree, self.context) {
            Ok(value) => Ok(Tried::Value(value)),
            Err(error) => {
                let unsure = operands.iter().any(|(_, tried)| matches!(tried, Tried::Nothing));
                if unsure || !is_of_type(&error) || has_null(&error) {
                    return Ok(Tried::Nothing);
                }
                let (message, hint) = describe(&error);
                Err(ConditionError {
                    offset: offset(self.program, tree.id),
                    message,
                    hint,
                })
            }
        }
    }

    /// What the library lets pass, and a person did not mean.
    fn operands(
        &self,
        tree: &IdedExpr,
        call: &CallExpr,
        operands: &[(&IdedExpr, Tried)],
    ) -> Result<(), ConditionError> {
        let name = call.func_name.as_str();
        let truths = match name {
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => operands.len(),
            operators::CONDITIONAL => 1,
            _ => 0,
        };
        for (child, tried) in operands.iter().take(truths) {
            if let Tried::Value(value) = tried
                && !matches!(value, Value::Bool(_) | Value::Null)
            {
                let at = root_of(child).map_or(child.id, |root| root.id);
                return Err(ConditionError::at(
                    offset(self.program, at),
                    format!("this is {}, where true or false is needed", kind(value)),
                )
                .hint(compare_hint(value)));
            }
        }
        let [(_, Tried::Value(left)), (_, Tried::Value(right))] = operands else {
            return Ok(());
        };
        let never = match (name, right) {
            (operators::EQUALS | operators::NOT_EQUALS, _) => differ(left, right).then_some(right),
            (operators::IN, Value::List(list)) => list
                .first()
                .filter(|_| list.iter().all(|item| differ(left, item))),
            _ => None,
        };
        match never {
            None => Ok(()),
            Some(other) => Err(ConditionError::at(
                offset(self.program, tree.id),
                format!(
                    "{} is compared with {}: they are never equal",
                    kind(left),
                    kind(other)
                ),
            )
            .hint(match (left, other) {
                (Value::String(_), _) => {
                    "put the value in quotes, or turn the text into a number with `int(..)`"
                }
                (_, Value::String(_)) => "leave the quotes away",
                _ => "compare values of one kind",
            })),
        }
    }

    fn whole(
        &self,
        source: &str,
        uses: &[Use],
        sample: &Sample,
        known: &Vocabulary,
    ) -> Result<(), ConditionError> {
        let tree = self.program.expression();
        let when = sample.when;
        let error = match evaluate(tree, self.context) {
            Ok(Value::Bool(_)) => return Ok(()),
            Ok(value) => {
                return Err(ConditionError::at(
                    0,
                    format!("the condition gives {}, not true or false", kind(&value)),
                )
                .hint(compare_hint(&value)));
            }
            Err(error) => error,
        };
        let missing = uses.iter().find(|found| {
            let root = found.path.first();
            root.is_some_and(|root| sample.facts.get(root).is_none() && !known.always(root))
        });
        if let (ExecutionError::NoSuchKey(_), Some(missing)) = (&error, missing) {
            let root = missing.path[0].as_str();
            let part = uses.iter().map(|found| &found.path);
            let part = part.into_iter().find(|path| path.len() > 1 && path[0] == root);
            let name = part.map_or_else(|| format!("{root}.name"), |path| path[..2].join("."));
            return Err(ConditionError::at(
                offset(self.program, missing.id),
                format!("there is no `{root}` when {when}"),
            )
            .hint(format!("write `has({name}) && {}`", shorter(source))));
        }
        if !is_of_type(&error) {
            return Ok(());
        }
        let null = uses.iter().find(|found| {
            let value = found
                .path
                .iter()
                .try_fold(&sample.facts, |value, part| value.get(part));
            value.is_some_and(serde_json::Value::is_null)
        });
        if let (true, Some(null)) = (has_null(&error), null) {
            let name = null.path.join(".");
            return Err(ConditionError::at(
                offset(self.program, null.id),
                format!("`{name}` is null when {when}"),
            )
            .hint(format!("write `{name} != null && {}`", shorter(source))));
        }
        let (message, hint) = describe(&error);
        Err(ConditionError {
            offset: None,
            message: format!("{message}, when {when}"),
            hint,
        })
    }
}

fn shorter(source: &str) -> &str {
    let source = source.trim();
    if source.len() <= 40 { source } else { ".." }
}

/// `file.name`, `file["name"]`, `has(file.name)`: the path, and its first name.
fn path_of(tree: &IdedExpr) -> Option<(Vec<String>, &str)> {
    match &tree.expr {
        Expr::Ident(root) => Some((vec![root.clone()], root)),
        Expr::Select(select) => {
            let (mut path, root) = path_of(&select.operand)?;
            path.push(select.field.clone());
            Some((path, root))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [
                of,
                IdedExpr {
                    expr: Expr::Literal(LiteralValue::String(key)),
                    ..
                },
            ] => {
                let (mut path, root) = path_of(of)?;
                path.push(key.inner().to_owned());
                Some((path, root))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The node of the first name of a path.
fn root_of(tree: &IdedExpr) -> Option<&IdedExpr> {
    match &tree.expr {
        Expr::Ident(_) => Some(tree),
        Expr::Select(select) => root_of(&select.operand),
        Expr::Call(call) if call.func_name == operators::INDEX => root_of(call.args.first()?),
        _ => None,
    }
}

/// The parts a node is made of.
pub(super) fn for_each_child<'a>(tree: &'a IdedExpr, visit: &mut dyn FnMut(&'a IdedExpr)) {
    let mut entry = |entry: &'a EntryExpr| match entry {
        EntryExpr::StructField(field) => visit(&field.value),
        EntryExpr::MapEntry(pair) => {
            visit(&pair.key);
            visit(&pair.value);
        }
    };
    match &tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .for_each(visit),
        Expr::Comprehension(inner) => [
            &inner.iter_range,
            &inner.accu_init,
            &inner.loop_cond,
            &inner.loop_step,
            &inner.result,
        ]
        .into_iter()
        .for_each(visit),
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Map(map) => map.entries.iter().for_each(|pair| entry(&pair.expr)),
        Expr::Select(select) => visit(&select.operand),
        Expr::Struct(made) => made.entries.iter().for_each(|pair| entry(&pair.expr)),
    }
}

/// Byte where a node stands in the source.
fn offset(program: &Program, id: u64) -> Option<usize> {
    let (start, _) = program.source_info().offset_for(id)?;
    usize::try_from(start).ok()
}
