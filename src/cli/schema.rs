//! `tidings schema`: what may be written, for editors.

use super::{Exit, Global, out};
use crate::config::schema;

/// Options of `tidings schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of what
    #[arg(value_enum, default_value = "settings")]
    of: Of,
}

/// Of what.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Of {
    /// tidings.yaml
    Settings,
    /// A file rules/*.yaml
    Rules,
    /// A file rules/*.test.yaml
    Tests,
}

/// Prints the JSON Schema.
pub async fn run(_global: &Global, args: Args) -> Exit {
    let schema = match args.of {
        Of::Settings => &*schema::SETTINGS,
        Of::Rules => &*schema::RULES,
        Of::Tests => &*schema::TESTS,
    };
    out(format_args!("{schema:#}"));
    Exit::Done
}
