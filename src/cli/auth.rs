//! `tidings auth`.
use super::{Exit, Global};

/// Options of `tidings auth`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub async fn run(_global: &Global, _args: Args) -> Exit {
    Exit::Software
}
