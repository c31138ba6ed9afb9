//! `tidings init`: a commented setup to start from, that passes `check` and does something at once.

use super::{Exit, Global, out, tell};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Options of `tidings init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to make it [default: the setup folder]
    dir: Option<PathBuf>,
}

/// The files of a new setup. The rules are those that ship.
pub const FILES: [(&str, &str); 10] = [
    ("tidings.yaml", include_str!("init/tidings.yaml")),
    ("rules/drop.yaml", include_str!("../../rules/drop.yaml")),
    ("rules/jobs.yaml", include_str!("../../rules/jobs.yaml")),
    ("rules/trouble.yaml", include_str!("../../rules/trouble.yaml")),
    ("rules/drop.test.yaml", include_str!("../../rules/drop.test.yaml")),
    ("rules/jobs.test.yaml", include_str!("../../rules/jobs.test.yaml")),
    (
        "rules/trouble.test.yaml",
        include_str!("../../rules/trouble.test.yaml"),
    ),
    ("templates/README.md", include_str!("init/templates.md")),
    // Kept by version control, left alone by the rule: a checkout without the folder would not pass.
    ("drop/.gitkeep", ""),
    (
        ".gitignore",
        "# What tidings keeps, what it wrote to look at, what nobody else should read.\n/state/\n/preview/\n/secrets/\n/drop/*\n!/drop/.gitkeep\n",
    ),
];

/// Makes the setup; refuses to touch a file that is there.
pub async fn run(global: &Global, args: Args) -> Exit {
    let dir = args.dir.unwrap_or_else(|| global.setup());
    let there: Vec<&str> = FILES
        .iter()
        .map(|(file, _)| *file)
        .filter(|file| dir.join(file).symlink_metadata().is_ok())
        .collect();
    if !there.is_empty() {
        tell(format_args!(
            "nothing was written: {} already has {}\n\nhint: choose an empty folder: tidings init DIR",
            dir.display(),
            there.join(", ")
        ));
        return Exit::CannotCreate;
    }
    for (file, text) in FILES {
        if let Err(error) = write(&dir.join(file), text) {
            tell(format_args!("cannot write {}: {error}", dir.join(file).display()));
            return Exit::CannotCreate;
        }
    }
    let shown = dir.display();
    out(format_args!(
        "A setup is in {shown}. Nothing is sent yet: mails are written to {shown}/preview.\n\n  \
         tidings --config {shown} check     every mistake, with its place\n  \
         tidings --config {shown} run       then copy a file into {shown}/drop\n\n\
         Next, set up an account in {shown}/tidings.yaml."
    ));
    Exit::Done
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Never over a file that came in between.
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(text.as_bytes())
}
