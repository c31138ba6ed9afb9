//! Secrets: where they come from, and a type that does not print.
//!
//! A secret is read anew each time it is needed, so a rotated file or variable takes effect without
//! a restart. No error and no log line here holds a byte of what was read, nor anything a command
//! printed: a helper that fails may well have printed half of the secret.

use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Longest secret we take, bytes. A JSON key file of a service account has about 2,400.
const LONGEST: u64 = 64 * 1024;

/// How long a command may take to print a secret.
const PATIENCE: Duration = Duration::from_secs(30);

/// A secret in hand. Prints as `***` everywhere; wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a secret's text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself, for the one place that must send it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Reads an address that is itself a secret: https, or http to this machine. What is wrong is said
/// without it.
pub fn address(text: &str) -> Result<url::Url, &'static str> {
    let url = url::Url::parse(text.trim()).map_err(|_| "this is not an address")?;
    let here = match url.host() {
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err("this address names no host"),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err("the address must begin with https:// (http:// is for this machine only)"),
    }
}

/// Where a secret is to be had, as a setting says it. Read anew each time it is needed, so that a
/// changed file or variable takes effect.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// Written in the setting itself; `check` warns about it.
    Literal(Secret),
    /// An environment variable.
    Env(String),
    /// A file, without its last line end.
    File(PathBuf),
    /// What a command prints, without the last line end. No shell.
    Command(Vec<String>),
}

/// Why a secret could not be had. Names where it should have come from, never what was there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such variable.
    #[error(
        "the environment variable {0} is not set; set it where tidings is started (systemd: Environment or EnvironmentFile)"
    )]
    Unset(String),
    /// It is not text.
    #[error("the secret from {0} is not UTF-8 text")]
    NotText(String),
    /// There is nothing.
    #[error("the secret from {0} is empty")]
    Empty(String),
    /// It cannot be a secret.
    #[error("the secret from {0} is longer than {LONGEST} bytes: is this the right place?")]
    TooLong(String),
    /// The file cannot be read.
    #[error("cannot read the secret from {from}: {source}")]
    Unreadable {
        /// Where from.
        from: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The command said no.
    #[error("{from} gave no secret: {ended}; run it by hand, as the user of the service, to see why")]
    Failed {
        /// Which command.
        from: String,
        /// How it ended.
        ended: String,
    },
}

impl fmt::Display for SecretSource {
    /// Names the place for people: `the file /run/secrets/office`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::Literal(_) => f.write_str("the settings"),
            SecretSource::Env(name) => write!(f, "the environment variable {}", name.escape_debug()),
            SecretSource::File(path) => write!(f, "the file {}", path.display().to_string().escape_debug()),
            // Arguments may hold secrets themselves; the program's name is enough to find it.
            SecretSource::Command(argv) => write!(
                f,
                "the command {}",
                argv.first()
                    .map(String::as_str)
                    .unwrap_or_default()
                    .escape_debug()
            ),
        }
    }
}

impl SecretSource {
    /// Fetches the secret.
    ///
    /// Waits for a file or, at most 30 s, for a command, which is ended with everything it started.
    /// One line end at the end is taken off; nothing else is trimmed.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let bytes = match self {
            SecretSource::Literal(secret) => return Ok(secret.clone()),
            SecretSource::Env(name) => Zeroizing::new(
                std::env::var_os(name)
                    .map(std::os::unix::ffi::OsStringExt::into_vec)
                    .ok_or_else(|| SecretError::Unset(name.escape_debug().to_string()))?,
            ),
            SecretSource::File(path) => self.file(path).await?,
            SecretSource::Command(argv) => self.command(argv, PATIENCE).await?,
        };
        self.secret(bytes)
    }

    async fn file(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let unreadable = |source| SecretError::Unreadable {
            from: self.to_string(),
            source,
        };
        // O_NONBLOCK: a FIFO in this place must not block the service for ever.
        let file = tokio::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .await
            .map_err(unreadable)?;
        if file.metadata().await.map_err(unreadable)?.is_dir() {
            return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(LONGEST + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(unreadable)?;
        Ok(bytes)
    }

    async fn command(&self, argv: &[String], patience: Duration) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let failed = |ended: String| SecretError::Failed {
            from: self.to_string(),
            ended,
        };
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| failed("no program is named".to_owned()))?;
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("it cannot be started: {error}")))?;
        let group = Group(child.id());
        let mut bytes = Zeroizing::new(Vec::new());
        let outcome = tokio::time::timeout(patience, async {
            if let Some(stdout) = child.stdout.take() {
                stdout.take(LONGEST + 1).read_to_end(&mut bytes).await?;
            }
            if bytes.len() as u64 > LONGEST {
                return Ok(None);
            }
            child.wait().await.map(Some)
        })
        .await;
        match outcome {
            Err(_) => Err(failed(format!("it took longer than {patience:?}"))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok(None)) => Err(SecretError::TooLong(self.to_string())),
            Ok(Ok(Some(status))) if status.success() => {
                group.ended();
                Ok(bytes)
            }
            Ok(Ok(Some(status))) => {
                group.ended();
                Err(failed(format!("it ended with {status}")))
            }
        }
    }

    fn secret(&self, bytes: Zeroizing<Vec<u8>>) -> Result<Secret, SecretError> {
        if bytes.len() as u64 > LONGEST {
            return Err(SecretError::TooLong(self.to_string()));
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(SecretError::NotText(self.to_string()));
        };
        let text = text
            .strip_suffix("\r\n")
            .or_else(|| text.strip_suffix('\n'))
            .unwrap_or(text);
        if text.is_empty() {
            return Err(SecretError::Empty(self.to_string()));
        }
        let mut owned = text.to_owned();
        let secret = Secret::new(owned.as_str());
        owned.zeroize();
        Ok(secret)
    }
}

/// A command's process group; whatever of it still runs when we lose patience is killed.
struct Group(Option<u32>);

impl Group {
    /// The command ended by itself. What it may have left behind on purpose (an agent that keeps a
    /// vault open) lives on.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> SecretSource {
        SecretSource::Command(argv.iter().map(|&word| word.to_owned()).collect())
    }

    #[tokio::test]
    async fn one_line_end_is_taken_off_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (written, meant) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            (" a b \n\n", " a b \n"),
        ] {
            std::fs::write(&path, written).unwrap();
            let secret = SecretSource::File(path.clone()).read().await.unwrap();
            assert_eq!(secret.expose(), meant);
        }
    }

    #[tokio::test]
    async fn a_command_is_run_without_a_shell() {
        let secret = command(&["/bin/echo", "$HOME;*"]).read().await.unwrap();
        assert_eq!(secret.expose(), "$HOME;*");
    }

    #[tokio::test]
    async fn errors_name_the_place_and_never_the_secret() {
        let failing = command(&["/bin/sh", "-c", "echo hunter2; echo hunter2 >&2; exit 3"]);
        let error = failing.read().await.unwrap_err();
        let said = format!("{error} {error:?} {failing:?}");
        assert!(error.to_string().contains("/bin/sh"), "{said}");
        assert!(error.to_string().contains("exit status: 3"), "{said}");
        assert!(!error.to_string().contains("hunter2"), "{said}");
        let literal = SecretSource::Literal(Secret::new("hunter2"));
        assert!(!format!("{literal:?} {literal}").contains("hunter2"));
    }

    #[tokio::test]
    async fn empty_endless_missing_and_binary_secrets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "\n").unwrap();
        let file = SecretSource::File(path.clone());
        assert!(matches!(file.read().await, Err(SecretError::Empty(_))));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(file.read().await, Err(SecretError::NotText(_))));
        let endless = SecretSource::File("/dev/zero".into());
        assert!(matches!(endless.read().await, Err(SecretError::TooLong(_))));
        let yes = command(&["/usr/bin/yes"]);
        assert!(matches!(yes.read().await, Err(SecretError::TooLong(_))));
        let unset = SecretSource::Env("TIDINGS_NO_SUCH_VARIABLE".to_owned());
        assert!(matches!(unset.read().await, Err(SecretError::Unset(_))));
        let folder = SecretSource::File(dir.path().to_owned());
        assert!(matches!(folder.read().await, Err(SecretError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_given_up() {
        let argv = ["/bin/sleep".to_owned(), "3600".to_owned()];
        let source = SecretSource::Command(argv.to_vec());
        let error = source
            .command(&argv, Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("longer than 20ms"), "{error}");
    }
}
