//! The functions of a condition beside CEL's own.

use cel::common::types::{CelBool, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What may be called by name, for "did you mean". Macros are expanded before anybody asks.
pub(super) const NAMES: [&str; 15] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "lowerAscii",
    "upperAscii",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "dyn",
    "type",
];

/// The macros of CEL.
pub(super) const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

/// CEL's standard library without optional values, and our functions.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    let text = || STRING_TYPE;
    let declared = [
        env.add_overload("matches", "tidings_matches", vec![text(), text()], matches),
        env.add_member_overload("matches", "tidings_matches_member", text(), vec![text()], matches),
        env.add_member_overload("lowerAscii", "tidings_lower_ascii", text(), vec![], lower),
        env.add_member_overload("upperAscii", "tidings_upper_ascii", text(), vec![], upper),
    ];
    debug_assert!(declared.iter().all(Result::is_ok), "{declared:?}");
    Arc::new(env)
});

/// Compiles a pattern (RE2 syntax, linear time), or gives it from the ones kept.
pub(super) fn pattern(source: &str) -> Result<Regex, String> {
    /// Rules have few patterns; only patterns made from facts could be many.
    const KEPT: usize = 256;
    static CACHE: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut kept = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pattern) = kept.get(source) {
        return Ok(pattern.clone());
    }
    let pattern = RegexBuilder::new(source)
        .size_limit(1 << 20)
        .dfa_size_limit(2 << 20)
        .nest_limit(50)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too big".to_owned(),
            // The library draws its complaint over several lines; the last one says it.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })?;
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(source.to_owned(), pattern.clone());
    Ok(pattern)
}

fn text<'a>(function: &str, value: Option<&'a CowVal<'_, '_>>) -> Result<&'a str, ExecutionError> {
    value
        .and_then(|value| value.downcast_ref::<CelString>())
        .map(CelString::inner)
        .ok_or_else(|| ExecutionError::function_error(function, "needs text"))
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (subject, source) = (text("matches", args.first())?, text("matches", args.get(1))?);
    let pattern = pattern(source)
        .map_err(|why| ExecutionError::function_error("matches", format!("the pattern is wrong: {why}")))?;
    Ok(CowVal::owned(CelBool::from(pattern.is_match(subject))))
}

fn lower<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let lower = text("lowerAscii", args.first())?.to_ascii_lowercase();
    Ok(CowVal::owned(CelString::from(lower)))
}

fn upper<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let upper = text("upperAscii", args.first())?.to_ascii_uppercase();
    Ok(CowVal::owned(CelString::from(upper)))
}
