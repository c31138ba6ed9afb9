//! Templates: handlebars, strict, rendered in this process within limits.

/// A short template in a setting (`to`, `subject`, `attach`, `command`, `move`), compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    source: String,
}
