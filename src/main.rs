//! `tidings`: see the library's front page for the map.

use clap::Parser as _;
use std::process::ExitCode;
use tidings::cli::{self, Exit};

fn main() -> ExitCode {
    // One crypto provider in the process; a second call would only say so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(call) = cli::sendmail::called(&arguments) {
        return block_on(cli::sendmail::serve(call));
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return exit.into();
        }
    };
    block_on(cli::run(cli))
}

fn block_on(work: impl Future<Output = Exit>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::tell(format_args!("cannot start the runtime: {error}"));
            return Exit::Software.into();
        }
    };
    let exit = runtime.block_on(work);
    // A thread that still reads a terminal or a pipe must not keep the process alive.
    runtime.shutdown_background();
    exit.into()
}
