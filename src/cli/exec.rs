//! `tidings exec`.
use super::{Exit, Global};

/// Options of `tidings exec`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub async fn run(_global: &Global, _args: Args) -> Exit {
    Exit::Software
}
