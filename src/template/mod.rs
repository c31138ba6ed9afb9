//! Templates: handlebars, strict, rendered in this process within limits.

use std::path::{Path, PathBuf};

/// A short template in a setting (`to`, `subject`, `attach`, `command`, `move`), compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    source: String,
}

/// Stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TextError {
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// Stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Variable {
    pub path: Vec<String>,
    pub offset: usize,
}

#[allow(missing_docs)]
impl Text {
    pub fn compile(source: &str) -> Result<Text, TextError> {
        Ok(Text {
            source: source.to_owned(),
        })
    }
    pub fn variables(&self) -> Vec<Variable> {
        let Some(start) = self.source.find("{{") else {
            return Vec::new();
        };
        let Some(end) = self.source.find("}}") else {
            return Vec::new();
        };
        vec![Variable {
            path: self.source[start + 2..end]
                .trim()
                .split('.')
                .map(str::to_owned)
                .collect(),
            offset: start + 2,
        }]
    }
    pub fn literal(&self) -> Option<&str> {
        (!self.source.contains("{{")).then_some(self.source.as_str())
    }
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Stand-in.
#[derive(Debug)]
pub struct Templates {}

/// Stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TemplateProblem {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
    pub source_line: String,
}

/// Stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Use {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub path: Vec<String>,
}

#[allow(missing_docs)]
impl Templates {
    pub fn load(_dir: Option<&Path>) -> Result<Templates, Vec<TemplateProblem>> {
        Ok(Templates {})
    }
    pub fn shipped() -> Templates {
        Templates {}
    }
    pub fn contains(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }
    pub fn names(&self) -> Vec<String> {
        [
            "file-arrived",
            "job-failed",
            "job-recovered",
            "job-succeeded",
            "plain",
            "test-message",
            "trouble",
        ]
        .map(str::to_owned)
        .to_vec()
    }
    pub fn variables(&self, _name: &str) -> Vec<Use> {
        Vec::new()
    }
}
