//! Secrets: where they come from, and a type that does not print.

use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;

/// A secret in hand. Prints as `***` everywhere; wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a secret's text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself, for the one place that must send it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is to be had, as a setting says it. Read anew each time it is needed, so that a
/// changed file or variable takes effect.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// Written in the setting itself; `check` warns about it.
    Literal(Secret),
    /// An environment variable.
    Env(String),
    /// A file, without its last line end.
    File(PathBuf),
    /// What a command prints, without the last line end. No shell.
    Command(Vec<String>),
}
