//! The key that grants are sealed with: where it comes from, told plainly.
//!
//! | looked for, in this order | |
//! |---|---|
//! | `tidings-key` in `$CREDENTIALS_DIRECTORY` | a systemd credential (`LoadCredentialEncrypted=`) |
//! | `$TIDINGS_KEY` | 64 hexadecimal digits |
//! | `key` in the state folder | made at first, 0600 |
//!
//! Which one was used first is noted in the state folder, with a fingerprint. Whoever comes without
//! it, as a command run by hand beside the service may, is told so, and makes no second key.

use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a key.
pub const LEN: usize = 32;
/// The name of the credential.
const CREDENTIAL: &str = "tidings-key";
/// The environment variable.
const VARIABLE: &str = "TIDINGS_KEY";
/// What notes the source, in the state folder.
const NOTE: &str = "key.from";

/// Where the key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A credential of systemd.
    Credential(PathBuf),
    /// The environment.
    Variable,
    /// A file in the state folder.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Credential(_) => write!(f, "the systemd credential `{CREDENTIAL}`"),
            KeySource::Variable => write!(f, "the environment variable {VARIABLE}"),
            KeySource::File(path) => write!(f, "the key file {}", path.display()),
        }
    }
}

/// What there is to find a key in, besides the state folder.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// `$TIDINGS_KEY`.
    pub variable: Option<Zeroizing<String>>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Surroundings {
        Surroundings {
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            variable: std::env::var(VARIABLE)
                .ok()
                .filter(|text| !text.trim().is_empty())
                .map(Zeroizing::new),
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or made.
    #[error("cannot use {from}: {source}")]
    Unreadable {
        /// Which.
        from: KeySource,
        /// What happened.
        source: std::io::Error,
    },
    /// It is no key.
    #[error(
        "{from} is not 32 bytes (it has {len})\n\nhint: put the right key back from a backup; or remove it and sign in again"
    )]
    Length {
        /// Which.
        from: KeySource,
        /// What it has.
        len: usize,
    },
    /// Not hexadecimal.
    #[error("{0} is not 64 hexadecimal digits\n\nhint: openssl rand -hex 32 makes such a key")]
    Digits(KeySource),
    /// Another key sealed what is here.
    #[error(
        "the grants in {} are sealed with {was}, and here is {now}; nothing was changed\n\nhint: run this where that key is to be had, as the service is run ({how}); to begin anew, remove {} and sign in again",
        state.display(), note.display()
    )]
    Another {
        /// The state folder.
        state: PathBuf,
        /// The source noted there.
        was: String,
        /// What was found.
        now: String,
        /// How to have the right one.
        how: &'static str,
        /// The note.
        note: PathBuf,
    },
}

/// Finds the key of a state folder, which must be there; makes one at first. Of two processes that do
/// so at once, one wins and both use the same. Blocks on the disk.
pub fn find(state: &Path, around: &Surroundings) -> Result<(Zeroizing<Vec<u8>>, KeySource), KeyError> {
    let note = state.join(NOTE);
    let noted = std::fs::read_to_string(&note).ok();
    let found = given(around)?;
    let file = KeySource::File(state.join("key"));
    let (key, source) = match found {
        Some(found) => found,
        // What is noted came from elsewhere: a new key file would open nothing.
        None if noted.is_some() && !state.join("key").exists() => {
            return Err(another(state, note, noted, "no key at all".to_owned()));
        }
        None => (from_file(state, &file)?, file),
    };
    if key.len() != LEN {
        return Err(KeyError::Length {
            from: source,
            len: key.len(),
        });
    }
    let line = format!("{source}, fingerprint {}\n", fingerprint(&key));
    let print = |line: &str| line.rsplit(' ').next().map(|word| word.trim().to_owned());
    let from_there = |noted: &str| noted.starts_with(&format!("{source}, fingerprint "));
    match &noted {
        // From the same place another key was put there on purpose: what it does not open says so.
        Some(noted) if print(noted) != print(&line) && !from_there(noted) => {
            let now = format!("{source}, which is another");
            return Err(another(state, note, Some(noted.clone()), now));
        }
        Some(noted) if *noted == line => {}
        _ => write_note(&note, &line).map_err(|error| KeyError::Unreadable {
            from: source.clone(),
            source: error,
        })?,
    }
    Ok((key, source))
}

fn another(state: &Path, note: PathBuf, noted: Option<String>, now: String) -> KeyError {
    let was = noted.unwrap_or_default();
    let was = was.split(", fingerprint").next().unwrap_or_default();
    KeyError::Another {
        state: state.to_owned(),
        how: if was.contains("credential") {
            "systemd-run -p LoadCredentialEncrypted=.. with the service's own line"
        } else {
            "with the same environment, or the same key file"
        },
        was: was.trim().chars().filter(|c| !c.is_control()).take(200).collect(),
        now,
        note,
    }
}

/// A key that somebody gave us.
fn given(around: &Surroundings) -> Result<Option<(Zeroizing<Vec<u8>>, KeySource)>, KeyError> {
    if let Some(folder) = &around.credentials {
        let path = folder.join(CREDENTIAL);
        let source = KeySource::Credential(path.clone());
        match read(&path) {
            Ok(bytes) => return Ok(Some((either(bytes), source))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(KeyError::Unreadable {
                    from: source,
                    source: error,
                });
            }
        }
    }
    match &around.variable {
        None => Ok(None),
        Some(text) => match digits(text.as_bytes()) {
            Some(key) => Ok(Some((key, KeySource::Variable))),
            None => Err(KeyError::Digits(KeySource::Variable)),
        },
    }
}

/// 32 bytes as they are, or written as digits.
fn either(bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.len() == LEN {
        return bytes;
    }
    digits(&bytes).unwrap_or(bytes)
}

fn digits(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii();
    if text.len() != 2 * LEN {
        return None;
    }
    let mut key = Zeroizing::new(Vec::with_capacity(LEN));
    for pair in text.chunks(2) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return None;
        };
        key.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(key)
}

/// Eight digits that tell keys apart and say nothing of them.
fn fingerprint(key: &[u8]) -> String {
    let hash = blake3::derive_key("tidings 2026-11 fingerprint of a key", key);
    hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_file(state: &Path, source: &KeySource) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let path = state.join("key");
    let unreadable = |error| KeyError::Unreadable {
        from: source.clone(),
        source: error,
    };
    match read_own(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(state, &path).map_err(unreadable)?;
            read_own(&path).map_err(unreadable)
        }
        other => other.map_err(unreadable),
    }
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    File::open(path)?.take(256).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_own(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "the key file could be read by others; made it 0600");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    read(path)
}

/// Written beside and linked into place: nobody ever sees half a key, and who comes second finds it
/// taken.
fn make(state: &Path, path: &Path) -> std::io::Result<()> {
    let random = SystemRandom::new();
    let mut key = Zeroizing::new([0_u8; LEN]);
    random.fill(&mut *key).map_err(no_random)?;
    let beside = beside(state, "key")?;
    let made = put(&beside, &*key).and_then(|()| match std::fs::hard_link(&beside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = std::fs::remove_file(&beside);
    made?;
    removed?;
    File::open(state)?.sync_all()
}

fn write_note(note: &Path, line: &str) -> std::io::Result<()> {
    let state = note.parent().unwrap_or(Path::new("."));
    let beside = beside(state, NOTE)?;
    put(&beside, line.as_bytes())?;
    std::fs::rename(&beside, note)
}

fn beside(state: &Path, name: &str) -> std::io::Result<PathBuf> {
    let mut bytes = [0_u8; 8];
    SystemRandom::new().fill(&mut bytes).map_err(no_random)?;
    Ok(state.join(format!("{name}.{:016x}", u64::from_be_bytes(bytes))))
}

fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn no_random(_: ring::error::Unspecified) -> std::io::Error {
    std::io::Error::other("the system gives no random bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn variable(text: &str) -> Surroundings {
        Surroundings {
            variable: Some(Zeroizing::new(text.to_owned())),
            ..Surroundings::default()
        }
    }

    #[test]
    fn key_comes_from_the_credential_then_the_environment_then_a_file() {
        let (state, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(credentials.path().join(CREDENTIAL), format!("{DIGITS}\n")).unwrap();
        let around = Surroundings {
            credentials: Some(credentials.path().to_owned()),
            ..variable(&DIGITS.replace("00", "ff"))
        };
        let (key, source) = find(state.path(), &around).unwrap();
        assert_eq!(key[31], 0x1f);
        assert_eq!(source.to_string(), "the systemd credential `tidings-key`");
        assert!(!state.path().join("key").exists());
        // The same key from elsewhere is the same key.
        let (_, source) = find(state.path(), &variable(DIGITS)).unwrap();
        assert_eq!(source, KeySource::Variable);
    }

    #[test]
    fn who_comes_without_the_key_is_told_so_and_makes_no_second_one() {
        let state = tempfile::tempdir().unwrap();
        find(state.path(), &variable(DIGITS)).unwrap();
        let error = find(state.path(), &Surroundings::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sealed with the environment variable TIDINGS_KEY"),
            "{text}"
        );
        assert!(!state.path().join("key").exists());
        let credentials = tempfile::tempdir().unwrap();
        std::fs::write(credentials.path().join(CREDENTIAL), [9; LEN]).unwrap();
        let around = Surroundings {
            credentials: Some(credentials.path().to_owned()),
            ..Surroundings::default()
        };
        let other = find(state.path(), &around).unwrap_err();
        assert!(other.to_string().contains("which is another"), "{other}");
    }

    #[test]
    fn key_of_an_older_version_is_found_and_noted() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("key"), [7; LEN]).unwrap();
        let (key, _) = find(state.path(), &Surroundings::default()).unwrap();
        assert_eq!(key[0], 7);
        let note = std::fs::read_to_string(state.path().join(NOTE)).unwrap();
        assert!(note.starts_with("the key file "), "{note}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let state = tempfile::tempdir().unwrap();
        assert!(matches!(
            find(state.path(), &variable("short")),
            Err(KeyError::Digits(_))
        ));
        std::fs::write(state.path().join("key"), "short").unwrap();
        assert!(matches!(
            find(state.path(), &Surroundings::default()),
            Err(KeyError::Length { len: 5, .. })
        ));
    }
}
