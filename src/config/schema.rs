//! The JSON Schema of what may be written: for editors, and for [`crate::config::shape`].

use crate::config::raw;
use serde_json::Value;
use std::sync::LazyLock;

/// The schema of `tidings.yaml` (JSON Schema, draft 2020-12).
pub static SETTINGS: LazyLock<Value> = LazyLock::new(made::<raw::settings::Settings>);

/// The schema of a file in `rules/`.
pub static RULES: LazyLock<Value> = LazyLock::new(made::<raw::rules::Rules>);

/// The schema of a file `rules/*.test.yaml`.
pub static TESTS: LazyLock<Value> = LazyLock::new(made::<raw::tests::Tests>);

fn made<T: schemars::JsonSchema>() -> Value {
    let mut schema = schemars::SchemaGenerator::default()
        .into_root_schema_for::<T>()
        .to_value();
    refuse_null(&mut schema);
    schema
}

/// An absent key is how a setting is left out. `key:` with nothing behind it is a slip of the pen
/// far more often than a wish, so `null` is allowed nowhere.
fn refuse_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(refuse_null),
        Value::Object(map) => {
            map.values_mut().for_each(refuse_null);
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    map.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("anyOf") {
                options.retain(|option| option.get("type").is_none_or(|kind| kind != "null"));
                if let [one] = options.as_slice() {
                    let one = one.clone();
                    map.remove("anyOf");
                    if let Value::Object(one) = one {
                        for (key, value) in one {
                            map.entry(key).or_insert(value);
                        }
                    }
                }
            }
            map.remove("default");
        }
        _ => {}
    }
}
