//! What may be written, as types. Derived from them are the readers and the JSON Schema, so that one
//! cannot say what the other does not know.
//!
//! Texts with an inner form (addresses, times, globs, CEL) are plain strings here; what they mean is
//! for `check` and `rule::load`, which know the place to complain about.

pub mod absence;
pub mod emit;
pub mod files;
pub mod handed;
pub mod ladder;
pub mod mail;
pub mod rules;
pub mod settings;
pub mod telling;
pub mod tests;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// One thing, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Many<T>(pub Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Many<T> {
        Many(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Many<T>, D::Error> {
        struct OneOrMany<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one, or a list")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq))
            }
        }
        deserializer.deserialize_any(OneOrMany(PhantomData)).map(Many)
    }
}

impl<T: JsonSchema> JsonSchema for Many<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Many_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

macro_rules! text {
    ($(#[doc = $doc:literal])+ $name:ident, $description:literal $(, pattern: $pattern:expr)?) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description $(, "pattern": $pattern)? })
            }
        }
    };
}

text!(
    /// A time, as written.
    Time, "A time: 300ms, 30s, 5m, 2h, 1d, 1w, or several added up: 1h30m",
    pattern: crate::config::quantity::TIME_PATTERN
);
text!(
    /// A size, as written.
    Size, "A size: 500kB, 10MB (10^6 bytes), 10MiB (2^20 bytes)",
    pattern: crate::config::quantity::SIZE_PATTERN
);
text!(
    /// A text that may hold `{{..}}`, as written.
    Template, "Text; {{file.name}} and the like are filled in"
);
text!(
    /// A pattern for paths, as written.
    Glob, "A pattern for paths: `*` stays within a folder, `**/` means any folders, {a,b} either"
);

/// A secret, as written.
#[derive(Clone, PartialEq)]
pub enum Secret {
    /// In the open.
    Literal(String),
    /// Somewhere else.
    From(SecretFrom),
}

// What is written in the open must not get out through a log of ours.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Literal(_) => f.write_str("***"),
            Secret::From(from) => from.fmt(f),
        }
    }
}

/// Where a secret is to be had.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretFrom {
    /// An environment variable.
    Env(String),
    /// A file with nothing else in it; one line end at its end is taken off.
    File(String),
    /// What this command prints; program and arguments, no shell.
    Command(Vec<String>),
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret: {env: NAME}, {file: PATH} or {command: [..]}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Literal(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
                SecretFrom::deserialize(MapAccessDeserializer::new(map)).map(Secret::From)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let from = generator.subschema_for::<SecretFrom>();
        json_schema!({
            "description": "A secret: {env: NAME}, {file: PATH} or {command: [program, argument]}; written in the open it draws a warning",
            "anyOf": [{ "type": "string" }, from],
        })
    }
}
