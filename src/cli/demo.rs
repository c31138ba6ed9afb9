//! `tidings demo`: the whole mission on this machine, in a minute.
//!
//! A sandbox stands in for the world: a sign-in server with tokens that live a few seconds, and a
//! submission server that knows shared mailboxes. Everything between them is the real program: the
//! demo writes a setup into a folder, signs in, starts the daemon on it, and drops files.

mod tour;

use super::{Exit, out, show, tell};
use crate::app::notify::Stop;
use crate::app::{App, Options};
use crate::clock::Clock;
use crate::sandbox::oauth::{self, Rotation, User};
use crate::sandbox::{Authority, smtp};
use mail_parser::{MessageParser, MimeHeaders as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long an access token of the demo lives.
const LIFE: Duration = Duration::from_secs(10);

/// Who signs in.
const ALICE: &str = "alice@sandbox.example";

/// The shared mailbox she is a member of.
const INVOICES: &str = "invoices@sandbox.example";

/// Options of `tidings demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do the tour, and exit 0 only if every mail of it really arrived
    #[arg(long)]
    once: bool,
    /// Where to put the demo's setup; it must not exist [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Show the program's log as well
    #[arg(long)]
    log: bool,
}

/// What the demo cannot do without.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the sandbox does not start: {0}")]
    Sandbox(String),
    #[error(transparent)]
    App(#[from] crate::app::AppError),
    #[error("the sign-in failed: {0}")]
    SignIn(String),
    #[error("{0}")]
    Tour(String),
}

/// The stage: the two servers, and the folder of the setup.
pub(super) struct Stage {
    /// The setup's folder.
    pub(super) dir: PathBuf,
    /// The sign-in server.
    pub(super) sign_in: Arc<oauth::Handle>,
    /// The submission server.
    pub(super) mail: smtp::Server,
}

/// Does it.
pub async fn run(args: Args) -> Exit {
    if args.log {
        super::run::start_logging(super::run::LogFormat::Text);
    }
    let (dir, temporary) = match args.dir {
        Some(dir) => (dir, false),
        None => (
            std::env::temp_dir().join(format!("tidings-demo-{}", std::process::id())),
            true,
        ),
    };
    let ended = play(&dir, args.once).await;
    if temporary {
        // What is left of a demo is of no use to anybody.
        let _ = std::fs::remove_dir_all(&dir);
    }
    match ended {
        Ok(()) => Exit::Done,
        Err(DemoError::App(error)) => super::run::failed(&error),
        Err(error) => {
            tell(format_args!("error: {error}"));
            Exit::Unavailable
        }
    }
}

async fn play(dir: &Path, once: bool) -> Result<(), DemoError> {
    let stage = set(dir).await?;
    let dir = &stage.dir;
    out(format_args!(
        "A sandbox runs on this machine: sign-in at {}, mail at {}.",
        stage.sign_in.url(),
        stage.mail.address()
    ));
    out(format_args!(
        "The setup is in {} - look at tidings.yaml and rules/demo.yaml.\n",
        dir.display()
    ));

    let app = App::build(Options {
        setup: dir.clone(),
        transcript: None,
        what: "demo",
    })
    .await?;
    tour::sign_in(&app).await?;
    out(format_args!(
        "1. {ALICE} signed in through the authorization page (PKCE); the token lives {} seconds.",
        LIFE.as_secs()
    ));

    let stop = Stop::default();
    stop.on_signals()
        .map_err(|error| DemoError::App(crate::app::AppError::Signals(error)))?;
    let (started, ready) = oneshot::channel();
    let store = app.store().clone();
    let running = tokio::spawn(app.run(stop.clone(), started));
    // An error here shows in `running`.
    let _ = ready.await;
    let toured = tokio::select! {
        toured = tour::tour(&stage, &store) => toured,
        () = stop.soon.cancelled() => Err(DemoError::Tour("stopped".to_owned())),
    };
    if toured.is_ok() && !once {
        visit(&stage, &stop.soon).await;
    }
    stop.soon.cancel();
    match running.await {
        Ok(ended) => ended?,
        Err(error) => return Err(DemoError::Tour(error.to_string())),
    }
    toured
}

/// Starts the servers and writes the setup.
async fn set(dir: &Path) -> Result<Stage, DemoError> {
    let sandbox = |error: &dyn std::fmt::Display| DemoError::Sandbox(error.to_string());
    let mut settings = oauth::Settings::new(Clock::system());
    settings.users = vec![User {
        address: ALICE.to_owned(),
        shared: vec![INVOICES.to_owned()],
    }];
    settings.approve = Some(ALICE.to_owned());
    settings.life = LIFE;
    settings.rotation = Rotation::Strict;
    let sign_in = Arc::new(
        oauth::Server::start(settings)
            .await
            .map_err(|error| sandbox(&error))?,
    );
    let authority = Authority::new().map_err(|error| sandbox(&error))?;
    let certificate = authority.server().map_err(|error| sandbox(&error))?;

    let tokens = Arc::clone(&sign_in);
    let authorize: smtp::Authorize = Arc::new(move |mailbox, token| {
        let account = tokens.check(token).ok_or_else(smtp::AuthRefusal::exchange)?;
        let member =
            account.user.address == mailbox || account.user.shared.iter().any(|shared| shared == mailbox);
        if member {
            Ok(account.user.address)
        } else {
            Err(smtp::AuthRefusal::exchange())
        }
    });
    let may_send: smtp::MaySend = Arc::new(|login, mailbox, from| {
        if from == mailbox {
            Ok(())
        } else {
            Err(smtp::send_as_denied(login, from))
        }
    });
    let mail = smtp::Server::start(smtp::Settings::exchange(certificate, authorize, may_send))
        .await
        .map_err(|error| sandbox(&error))?;

    let made = |path: &Path, result: std::io::Result<()>| {
        result.map_err(|source| DemoError::Write {
            path: path.to_owned(),
            source,
        })
    };
    made(dir, std::fs::create_dir_all(dir.parent().unwrap_or(dir)))?;
    made(dir, std::fs::create_dir(dir))?;
    // Watches report what the kernel calls the folder; so does the tour.
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    for folder in [
        "rules",
        "drop/invoices",
        "drop/orders",
        "drop/done",
        "drop/failed",
        "drop/yours",
    ] {
        let path = dir.join(folder);
        made(&path, std::fs::create_dir_all(&path))?;
    }
    let written = include_str!("demo/tidings.yaml")
        .replace("ISSUER", sign_in.url().as_str())
        .replace("SMTP_PORT", &mail.address().port().to_string());
    for (name, content) in [
        ("tidings.yaml", written.as_str()),
        ("rules/demo.yaml", include_str!("demo/rules.yaml")),
        ("import-order", include_str!("demo/import-order")),
        ("ca.pem", &authority.pem()),
    ] {
        let path = dir.join(name);
        made(&path, std::fs::write(&path, content))?;
    }
    let script = dir.join("import-order");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    made(&script, std::fs::set_permissions(&script, executable))?;
    Ok(Stage { dir, sign_in, mail })
}

/// After the tour: shows what arrives until somebody stops it.
async fn visit(stage: &Stage, stop: &CancellationToken) {
    out(format_args!(
        "\nNow you: drop any file into\n  {}\nand its mail shows here. Ctrl-C ends the demo.",
        stage.dir.join("drop/yours").display()
    ));
    let mut shown = stage.mail.messages().len();
    loop {
        let all = tokio::select! {
            () = stop.cancelled() => return,
            all = stage.mail.received(shown + 1) => all,
        };
        for message in &all[shown..] {
            out(described(message));
        }
        shown = all.len();
    }
}

/// A message as it arrived: from, to, subject, attachments with their sizes.
pub(super) fn described(message: &smtp::Received) -> String {
    let Some(parsed) = MessageParser::default().parse(&message.bytes) else {
        return "   (a message that cannot be read)".to_owned();
    };
    let attached: Vec<String> = parsed
        .attachments()
        .map(|part| {
            let name = show::clean(part.attachment_name().unwrap_or("unnamed"));
            format!("{name} ({})", show::bytes(part.contents().len() as u64))
        })
        .collect();
    let mut lines = vec![
        format!("   from    {}", show::clean(&message.from)),
        format!("   to      {}", show::clean(&message.to.join(", "))),
        format!("   subject {}", show::clean(parsed.subject().unwrap_or(""))),
    ];
    if !attached.is_empty() {
        lines.push(format!("   with    {}", attached.join(", ")));
    }
    if let (Some(account), Some(mailbox)) = (&message.account, &message.mailbox)
        && account != mailbox
    {
        lines.push(format!(
            "   signed in as {account}, sent from the shared mailbox {mailbox}"
        ));
    }
    lines.join("\n")
}
