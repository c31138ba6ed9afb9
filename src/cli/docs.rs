//! `tidings completions` and `tidings man`: made from the command line itself.

use super::{Cli, Exit, tell};
use clap::CommandFactory as _;
use std::io::Write as _;

/// Options of `tidings completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Options of `tidings man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {}

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidings", &mut script);
    print(&script)
}

/// Prints the manual page: the program, then each command.
pub fn man(_args: &ManArgs) -> Exit {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let mut written = clap_mangen::Man::new(command.clone()).render(&mut page);
    for sub in command.get_subcommands() {
        let name = format!("tidings-{}", sub.get_name());
        written = written.and_then(|()| {
            let sub = sub
                .clone()
                .name(Box::leak(name.clone().into_boxed_str()) as &'static str);
            clap_mangen::Man::new(sub).render(&mut page)
        });
    }
    match written {
        Ok(()) => print(&page),
        Err(error) => {
            tell(format_args!("error: cannot make the manual page: {error}"));
            Exit::Software
        }
    }
}

fn print(bytes: &[u8]) -> Exit {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Io,
        _ => Exit::Done,
    }
}
