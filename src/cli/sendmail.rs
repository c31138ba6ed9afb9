//! `tidings sendmail`: the sendmail command line, so that whatever calls sendmail sends through the outbox.
//!
//! Also under the names `sendmail`, `mailq` and `newaliases`, by a link. It says 0 only when the mail is on disk; any
//! other code is one that callers of sendmail know (sysexits), with a sentence on stderr.

mod options;
mod over;

use self::options::{Mode, Options};
use super::{Exit, Global, out, outbox, show, tell};
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::entry::State;
use crate::rule::load;
use crate::store::{EntryFilter, Store, StoreError};
use crate::submission::intake::{self, Handed, Way};
use crate::submission::listener::{self, Client, House, Shared};
use crate::submission::policy::{Policy, Refusal, What};
use jiff::Timestamp;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where the setup is, if a link was called and nothing says so: programs that call sendmail clear the environment and
/// run anywhere, and a setup in a folder of somebody else could name commands to run.
pub const SYSTEM: &str = "/etc/tidings";

/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `tidings sendmail`.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE)]
pub struct Args {
    /// What sendmail takes: -t -i -f ADDRESS -F NAME .. RECIPIENT..
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

const USAGE: &str = "\
  -t            recipients are in To, Cc and Bcc, besides those that are given
  -i, -oi       a line with only a dot does not end the message
  -f, -r ADDR   whose it is, where the message has no From
  -F NAME       the name beside that
  -bs           speak SMTP on stdin and stdout
  -bp           what waits (also: mailq)
  -bv ADDR      who is meant by ADDR, and whether it may be written to
  -v            say what became of it
Everything else that sendmail knows is read and ignored. Called by a link (sendmail, mailq, newaliases) the setup is
TIDINGS_CONFIG or /etc/tidings.";

/// A call that speaks sendmail's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The setup folder, where the command line names one before the command.
    config: Option<PathBuf>,
    /// By a link, and so with the system's setup.
    linked: bool,
    /// What stands behind the command's name.
    arguments: Vec<String>,
}

/// Whether a whole command line is such a call: by the name of the program, or by its first command. What is behind
/// is not for the command line's own reader, which would take options out of it.
pub fn called(command_line: &[OsString]) -> Option<Call> {
    let words: Vec<String> = command_line
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (program, rest) = words.split_first()?;
    let name = Path::new(program).file_name()?.to_string_lossy().into_owned();
    let linked = |first: Option<&str>| Call {
        config: std::env::var_os("TIDINGS_CONFIG").map(PathBuf::from),
        linked: true,
        arguments: first
            .into_iter()
            .map(str::to_owned)
            .chain(rest.iter().cloned())
            .collect(),
    };
    match name.as_str() {
        "sendmail" | "send-mail" => return Some(linked(None)),
        "mailq" => return Some(linked(Some("-bp"))),
        "newaliases" => return Some(linked(Some("-bi"))),
        _ => {}
    }
    let mut config = std::env::var_os("TIDINGS_CONFIG").map(PathBuf::from);
    let mut rest = rest.iter();
    loop {
        let word = rest.next()?;
        if word == "sendmail" {
            return Some(Call {
                config,
                linked: false,
                arguments: rest.cloned().collect(),
            });
        }
        config = Some(match word.as_str() {
            "-C" | "--config" => rest.next()?.into(),
            other => other
                .strip_prefix("--config=")
                .or_else(|| other.strip_prefix("-C"))
                .filter(|value| !value.is_empty())?
                .into(),
        });
    }
}

/// As clap read it: only for who has got here by another way.
pub async fn run(global: &Global, args: Args) -> Exit {
    serve(Call {
        config: global.config.clone(),
        linked: false,
        arguments: args.arguments,
    })
    .await
}

/// Does it.
pub async fn serve(call: Call) -> Exit {
    let options = match options::read(&call.arguments) {
        Ok(options) => options,
        Err(why) => {
            tell(format_args!("sendmail: {why}"));
            return Exit::Usage;
        }
    };
    let named = options
        .config
        .clone()
        .filter(|folder| folder.is_dir())
        .or(call.config);
    let setup = named.unwrap_or_else(|| match call.linked {
        true => SYSTEM.into(),
        false => ".".into(),
    });
    match options.mode {
        Mode::Help => {
            out(format_args!(
                "Usage: tidings sendmail [OPTIONS] [RECIPIENT]..\n\n{USAGE}"
            ));
            Exit::Done
        }
        Mode::Aliases => {
            // Called by the scripts of packages.
            tell(
                "sendmail: who is meant by a name stands in tidings.yaml (`recipients: groups:`, `handed_in:`)",
            );
            Exit::Done
        }
        Mode::Flush => {
            tell("sendmail: nothing to be done: `tidings run` sends what waits by itself");
            Exit::Done
        }
        Mode::List => list(setup).await,
        Mode::Verify => verify(setup, &options).await,
        Mode::Smtp => smtp(setup).await,
        Mode::Deliver => deliver(setup, options).await,
    }
}

/// Takes the message from stdin.
async fn deliver(setup: PathBuf, options: Options) -> Exit {
    if options.recipients.is_empty() && !options.by_header {
        tell("sendmail: no recipient is named (-t takes them from the header)");
        return Exit::Usage;
    }
    let settings = match settings(setup).await {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let (most, dot_ends) = (settings.handed_in.max_size, options.dot_ends);
    let read = tokio::task::spawn_blocking(move || message(io::stdin().lock(), most, dot_ends));
    let raw = match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(raw) => raw,
        Err(error) => {
            tell(format_args!("sendmail: cannot read the message: {error}"));
            return Exit::Io;
        }
    };
    let user = User::current();
    let by_header = options.by_header;
    let handed = Handed {
        way: Way::Sendmail,
        by: user.to_string(),
        client: user.to_string(),
        other: options
            .sender
            .filter(|sender| !sender.is_empty())
            .unwrap_or(user.name),
        full_name: options.full_name,
        given: options.recipients,
        by_header,
        raw: &raw,
        nonce: intake::nonce(),
        once: false,
    };
    let prepared = match intake::prepare(&handed, &settings, &crate::app::host(), Timestamp::now()) {
        Ok(prepared) => prepared,
        Err(refusal) => return refused(&refusal),
    };
    let kept = tokio::time::timeout(PATIENCE, async {
        let store = Store::open(&settings.outbox.store, Clock::system()).await?;
        intake::take(&store, prepared.clone(), Duration::ZERO).await
    });
    match kept.await {
        Ok(Err(error)) if over::may_help(&error) => match over::address(&settings) {
            Some(address) => over::hand_over(address, prepared.entry, options.verbose).await,
            None => {
                let exit = not_kept(&error);
                tell(
                    "hint: call it as root or as the user of tidings, or let the daemon listen: `submission: {}` in tidings.yaml",
                );
                exit
            }
        },
        Ok(Ok(admitted)) => {
            if options.verbose {
                tell(format_args!(
                    "sendmail: kept as entry {} of the outbox",
                    admitted.id
                ));
            }
            Exit::Done
        }
        Ok(Err(error)) => not_kept(&error),
        Err(_) => {
            tell(format_args!(
                "sendmail: the mail is NOT taken: the store did not answer for {} s",
                PATIENCE.as_secs()
            ));
            Exit::TryLater
        }
    }
}

/// Speaks SMTP on stdin and stdout.
async fn smtp(setup: PathBuf) -> Exit {
    let settings = match settings(setup).await {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let clock = Clock::system();
    let store = match Store::open(&settings.outbox.store, clock.clone()).await {
        Ok(store) => store,
        Err(error) => return not_kept(&error),
    };
    let house = House::at_home(Arc::new(settings), crate::app::host());
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let client = Client::User(User::current().to_string());
    let (shared, stop) = (Shared::new(store, clock), CancellationToken::new());
    listener::serve(Box::new(stream), client, &house, &shared, &stop).await;
    Exit::Done
}

/// The settings; what is wrong with them is said. A message that cannot be judged may be judged later.
async fn settings(setup: PathBuf) -> Result<Settings, Exit> {
    let shown = setup.display().to_string();
    match tokio::task::spawn_blocking(move || load::settings(&setup)).await {
        Ok(Ok(settings)) => Ok(settings),
        Ok(Err(problems)) => {
            tell(format_args!(
                "sendmail: the setup {} is of no use:",
                show::clean(&shown)
            ));
            for problem in problems.iter().filter(|problem| problem.is_error()).take(5) {
                tell(problem.render(false));
            }
            Err(Exit::Config)
        }
        Err(error) => {
            tell(format_args!("sendmail: {error}"));
            Err(Exit::Software)
        }
    }
}

/// The whole message; one byte more than may be is enough of one that is too large. Where `dot_ends`, a line with
/// only a dot is its end.
fn message(from: impl io::BufRead, most: u64, dot_ends: bool) -> io::Result<Vec<u8>> {
    let mut from = from.take(most.saturating_add(1));
    let mut raw = Vec::new();
    if !dot_ends {
        from.read_to_end(&mut raw)?;
        return Ok(raw);
    }
    loop {
        let start = raw.len();
        if from.read_until(b'\n', &mut raw)? == 0 {
            return Ok(raw);
        }
        if matches!(&raw[start..], b".\n" | b".\r\n" | b".") {
            raw.truncate(start);
            return Ok(raw);
        }
    }
}

/// Why it was not taken, and the code that says so.
fn refused(refusal: &Refusal) -> Exit {
    tell(format_args!(
        "sendmail: the mail is NOT taken: {}",
        show::clean(&refusal.text)
    ));
    if !refusal.step.is_empty() {
        tell(format_args!("hint: {}", show::clean(&refusal.step)));
    }
    match refusal.what {
        What::Nobody => Exit::Usage,
        What::Message | What::Size => Exit::BadInput,
        What::Unknown => Exit::Code(67),
        What::Sender | What::Forbidden => Exit::Code(77),
    }
}

fn not_kept(error: &StoreError) -> Exit {
    tell(format_args!("sendmail: the mail is NOT taken: {error}"));
    match error {
        StoreError::Newer { .. } | StoreError::Foreign { .. } | StoreError::Network { .. } => Exit::Config,
        _ => Exit::TryLater,
    }
}

/// What waits, in a table; the words of an empty queue are those that programs look for.
async fn list(setup: PathBuf) -> Exit {
    let settings = match settings(setup).await {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let filter = EntryFilter {
        kind: Some(crate::entry::Kind::Mail),
        states: vec![
            State::Ready,
            State::Leased,
            State::Deferred,
            State::Held,
            State::Unknown,
        ],
        limit: 10_000,
        ..EntryFilter::default()
    };
    let found = async {
        let store = Store::open(&settings.outbox.store, Clock::system()).await?;
        store.entries(filter).await
    };
    match found.await {
        Ok(found) if found.is_empty() => out("Mail queue is empty"),
        Ok(found) => {
            outbox::print(&found);
            out(format_args!(
                "-- {} in the outbox",
                show::count(found.len() as u64, "mail")
            ));
        }
        Err(error) => return not_kept(&error),
    }
    Exit::Done
}

/// Who is meant by each recipient.
async fn verify(setup: PathBuf, options: &Options) -> Exit {
    let settings = match settings(setup).await {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let host = crate::app::host();
    let policy = Policy {
        settings: &settings,
        host: &host,
    };
    let mut exit = Exit::Done;
    for text in &options.recipients {
        match policy.recipient(text) {
            Ok(meant) => {
                let meant: Vec<String> = meant.iter().map(ToString::to_string).collect();
                out(format_args!("{} ... {}", show::clean(text), meant.join(", ")));
            }
            Err(refusal) => exit = refused(&refusal),
        }
    }
    exit
}

/// Who calls.
struct User {
    name: String,
    uid: u32,
}

impl User {
    /// By the list of users; a number has to do for one who is not in it.
    fn current() -> User {
        let uid = rustix::process::getuid().as_raw();
        let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let mut lines = list.lines().map(|line| line.split(':'));
        let name = lines.find_map(|mut parts| {
            let name = parts.next()?;
            (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        User {
            name: name
                .or_else(|| std::env::var("LOGNAME").ok())
                .unwrap_or_else(|| format!("uid-{uid}")),
            uid,
        }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (uid {})", self.name, self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Option<(bool, Option<PathBuf>, Vec<String>)> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        called(&words).map(|call| (call.linked, call.config, call.arguments))
    }

    #[test]
    fn a_link_and_the_command_are_told_apart_from_all_else() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            call("/usr/sbin/sendmail -t -i"),
            Some((true, None, words(&["-t", "-i"])))
        );
        assert_eq!(call("mailq"), Some((true, None, words(&["-bp"]))));
        assert_eq!(call("newaliases"), Some((true, None, words(&["-bi"]))));
        assert_eq!(
            call("tidings -C /srv/t sendmail -- -C x"),
            Some((false, Some("/srv/t".into()), words(&["--", "-C", "x"])))
        );
        assert_eq!(
            call("tidings --config=/srv/t sendmail -t"),
            Some((false, Some("/srv/t".into()), words(&["-t"])))
        );
        for other in [
            "tidings run",
            "tidings",
            "tidings send --to sendmail",
            "tidings outbox list",
        ] {
            assert_eq!(call(other), None, "{other}");
        }
    }

    #[test]
    fn a_dot_ends_the_message_unless_it_is_told_not_to() {
        let text = b"a\n.\nb\n";
        assert_eq!(message(&text[..], 100, true).unwrap(), b"a\n");
        assert_eq!(message(&text[..], 100, false).unwrap(), text);
        assert_eq!(message(&b"a\n.."[..], 100, true).unwrap(), b"a\n..");
        assert_eq!(message(&text[..], 2, false).unwrap().len(), 3);
    }
}
