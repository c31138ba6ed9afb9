//! What the CEL library says of values, in plain words.

use cel::{ExecutionError, Value};

/// What to do with a value that is no answer.
pub(super) fn compare_hint(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "compare it: `.. == \"text\"`, `.. != \"\"`",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "compare it: `.. > 0`, `.. == 3`",
        Value::List(_) => "ask for what is in it: `\"text\" in ..`, `size(..) > 0`",
        Value::Map(_) => "ask for a part of it: `has(file.name)`",
        _ => "compare it with something",
    }
}

/// Values of kinds that are never equal. Numbers of all sorts are one kind.
pub(super) fn differ(left: &Value, right: &Value) -> bool {
    fn class(value: &Value) -> Option<u8> {
        match value {
            Value::Int(_) | Value::UInt(_) | Value::Float(_) => Some(1),
            Value::String(_) => Some(2),
            Value::Bool(_) => Some(3),
            Value::List(_) => Some(4),
            Value::Map(_) => Some(5),
            // Null is compared with everything on purpose.
            _ => None,
        }
    }
    matches!((class(left), class(right)), (Some(left), Some(right)) if left != right)
}

/// Errors that no other value of the same type would cure.
pub(super) fn is_of_type(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::NoSuchOverload(_)
            | ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::UnexpectedType { .. }
            | ExecutionError::ValuesNotComparable(..)
            | ExecutionError::UnsupportedTargetType { .. }
            | ExecutionError::NotSupportedAsMethod { .. }
            | ExecutionError::InvalidArgumentCount { .. }
            | ExecutionError::UndeclaredReference(_)
            | ExecutionError::UnsupportedIndex(..)
            | ExecutionError::UnsupportedKeyType(_)
            | ExecutionError::MissingArgumentOrTarget
            | ExecutionError::DuplicateKey(_)
    )
}

pub(super) fn has_null(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::NoSuchOverload(overload) => {
            overload.argument_types().iter().any(|kind| kind == "null_type")
        }
        ExecutionError::UnsupportedBinaryOperator(_, left, right)
        | ExecutionError::ValuesNotComparable(left, right)
        | ExecutionError::UnsupportedIndex(left, right) => {
            matches!(left, Value::Null) || matches!(right, Value::Null)
        }
        ExecutionError::UnexpectedType { got, .. } => got == "null_type",
        ExecutionError::UnsupportedTargetType { target } => matches!(target, Value::Null),
        _ => false,
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Int(_) | Value::UInt(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::String(_) => "text",
        Value::Bool(_) => "true or false",
        Value::List(_) => "a list",
        Value::Map(_) => "a group of facts",
        Value::Null => "null",
        _ => "a value of another kind",
    }
}

fn kind_of_word(word: &str) -> &str {
    match word {
        "int" | "uint" => "a whole number",
        "double" => "a number with a fraction",
        "string" => "text",
        "bool" => "true or false",
        "list" => "a list",
        "map" => "a group of facts",
        "null_type" => "null",
        other => other,
    }
}

/// An error of the library in plain words, and what to do about it.
pub(super) fn describe(error: &ExecutionError) -> (String, Option<String>) {
    let does_not_work = |operator: &str, kinds: &[&str]| {
        let message = format!("`{operator}` does not work on {}", kinds.join(" and "));
        let fraction = kinds.contains(&"a number with a fraction") && kinds.contains(&"a whole number");
        let text = kinds.contains(&"text") && kinds.iter().any(|kind| kind.contains("number"));
        let hint = match operator {
            "+" | "-" | "*" | "/" | "%" if fraction => {
                Some("write `60.0` instead of `60`, or `double(..)`".to_owned())
            }
            "+" if text => Some("turn the number into text with `string(..)`".to_owned()),
            "<" | "<=" | ">" | ">=" if text => Some("leave the quotes away, or compare `int(..)`".to_owned()),
            "contains" if kinds.contains(&"a list") => Some("write `value in list`".to_owned()),
            "in" => Some("`in` asks a list; for text write `.contains(..)`".to_owned()),
            _ => None,
        };
        (message, hint)
    };
    match error {
        ExecutionError::NoSuchOverload(overload) => {
            let function = overload.function();
            let operator = function.trim_matches(|c| c == '_' || c == '@');
            let operator = if operator.is_empty() { function } else { operator };
            let kinds: Vec<&str> = overload
                .argument_types()
                .iter()
                .map(|kind| kind_of_word(kind))
                .collect();
            if operator == "." || operator == "[_]" || operator == "[" {
                return (format!("{} has no parts", kinds.first().unwrap_or(&"this")), None);
            }
            does_not_work(operator, &kinds)
        }
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            let operator = match *name {
                "add" => "+",
                "sub" => "-",
                "mul" => "*",
                "div" => "/",
                "rem" => "%",
                other => other,
            };
            does_not_work(operator, &[kind(left), kind(right)])
        }
        ExecutionError::ValuesNotComparable(left, right) => (
            format!("{} cannot be compared with {}", kind(left), kind(right)),
            None,
        ),
        ExecutionError::UnexpectedType { got, want } => (
            format!(
                "this is {}, where {} is needed",
                kind_of_word(got),
                kind_of_word(want)
            ),
            None,
        ),
        ExecutionError::NoSuchKey(key) => (format!("there is no `{}`", key.escape_debug()), None),
        ExecutionError::UndeclaredReference(name) => (format!("unknown name `{name}`"), None),
        ExecutionError::InvalidArgumentCount { expected, actual } => (
            format!("{expected} values are needed between the brackets, here are {actual}"),
            None,
        ),
        ExecutionError::FunctionError { function, message } => {
            (format!("`{function}`: {}", message.escape_debug()), None)
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            ("it divides by zero".to_owned(), None)
        }
        ExecutionError::Overflow(..) => ("a number becomes too large".to_owned(), None),
        ExecutionError::IndexOutOfBounds(_) => ("the list is shorter than that".to_owned(), None),
        ExecutionError::DuplicateKey(_) => ("a key is given twice".to_owned(), None),
        ExecutionError::InternalError(text) => (text.clone(), None),
        // The library's texts for the rest show whole values, which may be long and hostile.
        _ => ("its values do not fit together".to_owned(), None),
    }
}
