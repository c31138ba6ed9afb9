//! The `file` transport: each message becomes an `.eml` file in a folder.
//!
//! It takes responsibility once the file *and* its name are durable: written beside its place,
//! synced, linked to its name, folder synced. The name comes from the Message-ID, so the same mail
//! submitted again, after a crash for instance, finds itself and is accepted as the same file; a
//! different message under that name is never overwritten and gets the next number.

use super::{Content, Gate, Parcel, RecipientVerdict, Report, Verdict};
use crate::advice::Local;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Longest file name we make from a Message-ID, without number and ending; file systems take 255.
const NAME_MAX: usize = 180;
/// How many different messages may share a Message-ID before something is plainly wrong.
const NUMBERS: u32 = 1000;

/// Writes the message into `folder`, which is made if it is missing. The gate is asked when the
/// bytes are durable and only the name is missing; a crash before that leaves a `.tmp` file that no
/// one reads and the next try replaces.
pub async fn submit(folder: &Path, parcel: &Parcel, gate: &dyn Gate) -> Report {
    let job = (
        folder.to_owned(),
        parcel.content.clone(),
        name(&parcel.message_id),
    );
    let (folder, content, name) = job.clone();
    let prepared = blocking(move || prepare(&folder, &content, &name)).await;
    let temporary = match prepared {
        Ok(Prepared::Present(path)) => return accepted(parcel, &path),
        Ok(Prepared::Written(temporary)) => temporary,
        Err(error) => return unreached(folder_text(&job.0, &error)),
    };
    if let Err(closed) = gate.pass().await {
        let _ = blocking(move || fs::remove_file(temporary)).await;
        return Report::of(Verdict::GateClosed(closed));
    }
    let (folder, content, name) = job.clone();
    match blocking(move || place(&folder, &content, &name, &temporary)).await {
        Ok(path) => accepted(parcel, &path),
        // Writing the same again finds itself: a retry cannot double it, so this is no `Unknown`.
        Err(error) => unreached(folder_text(&job.0, &error)),
    }
}

fn accepted(parcel: &Parcel, path: &Path) -> Report {
    let recipients = parcel.envelope.recipients().iter();
    Report {
        verdict: Verdict::Accepted {
            reply: path.display().to_string(),
        },
        recipients: recipients
            .map(|to| (to.clone(), RecipientVerdict::Accepted))
            .collect(),
    }
}

fn unreached(text: String) -> Report {
    Report::of(Verdict::Unreached {
        text,
        transient: true,
        local: Local::FolderUnwritable,
    })
}

fn folder_text(folder: &Path, error: &io::Error) -> String {
    format!("cannot write the message into {}: {error}", folder.display())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

enum Prepared {
    /// It is there already, under this name.
    Present(PathBuf),
    /// Durable, under a temporary name.
    Written(PathBuf),
}

fn prepare(folder: &Path, content: &Content, name: &str) -> io::Result<Prepared> {
    fs::create_dir_all(folder)?;
    if let Slot::Same(path) = slot(folder, content, name)? {
        // The last try may have died between naming it and syncing the folder.
        File::open(folder)?.sync_all()?;
        return Ok(Prepared::Present(path));
    }
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = (|| {
        match content {
            Content::Bytes(bytes) => file.write_all(bytes)?,
            Content::File { path, len } => {
                let copied = io::copy(&mut File::open(path)?, &mut file)?;
                if copied != *len {
                    let text = format!("{} has {copied} bytes, not {len}", path.display());
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
            }
        }
        file.sync_all()
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(Prepared::Written(temporary))
}

fn place(folder: &Path, content: &Content, name: &str, temporary: &Path) -> io::Result<PathBuf> {
    let placed = loop {
        let path = match slot(folder, content, name)? {
            Slot::Same(path) => break path,
            Slot::Free(path) => path,
        };
        // A link, since a rename would overwrite what somebody else put there meanwhile.
        match fs::hard_link(temporary, &path) {
            Ok(()) => break path,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // File systems without links (FAT, some network shares); the name was free a moment ago.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
                ) =>
            {
                fs::rename(temporary, &path)?;
                break path;
            }
            Err(error) => return Err(error),
        }
    };
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    File::open(folder)?.sync_all()?;
    Ok(placed)
}

enum Slot {
    /// This very message lies there.
    Same(PathBuf),
    /// The first name nobody has.
    Free(PathBuf),
}

fn slot(folder: &Path, content: &Content, name: &str) -> io::Result<Slot> {
    for number in 1..=NUMBERS {
        let path = match number {
            1 => folder.join(format!("{name}.eml")),
            _ => folder.join(format!("{name}-{number}.eml")),
        };
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slot::Free(path)),
            Err(error) => return Err(error),
            Ok(file) => {
                if same(file, content)? {
                    return Ok(Slot::Same(path));
                }
            }
        }
    }
    Err(io::Error::other(format!(
        "{NUMBERS} different messages are called {name}"
    )))
}

fn same(mut there: File, content: &Content) -> io::Result<bool> {
    let metadata = there.metadata()?;
    let mut ours: Box<dyn Read + '_> = match content {
        Content::Bytes(bytes) if metadata.is_file() && metadata.len() == bytes.len() as u64 => {
            Box::new(&bytes[..])
        }
        Content::File { path, len } if metadata.is_file() && metadata.len() == *len => {
            Box::new(File::open(path)?)
        }
        _ => return Ok(false),
    };
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let read = there.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        ours.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// A file name from a Message-ID: letters, digits and `@ . _ + = -`; all else becomes `_`, and so
/// does a dot in front, which would hide it.
fn name(message_id: &str) -> String {
    let inner = message_id.trim().trim_start_matches('<').trim_end_matches('>');
    let safe = |c: char| c.is_ascii_alphanumeric() || "@._+=-".contains(c);
    let mut name: String = inner
        .chars()
        .take(NAME_MAX)
        .map(|c| if safe(c) { c } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Envelope;
    use crate::transport::{GateClosed, Open};
    use std::future::Future;
    use std::pin::Pin;

    fn parcel(id: &str, text: &str) -> Parcel {
        let address = |text: &str| text.parse().unwrap();
        Parcel {
            envelope: Envelope::new(address("a@contoso.com"), vec![address("b@contoso.com")]).unwrap(),
            content: Content::Bytes(text.as_bytes().into()),
            message_id: id.to_owned(),
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_message_becomes_a_file_named_after_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made/on/the/way");
        let report = submit(
            &folder,
            &parcel("<1.x/../y@contoso.com>", "Subject: a\r\n\r\nb\r\n"),
            &Open,
        )
        .await;
        let Verdict::Accepted { reply } = report.verdict else {
            panic!("{report:?}")
        };
        assert_eq!(files(&folder), ["1.x_.._y@contoso.com.eml"]);
        assert_eq!(fs::read_to_string(reply).unwrap(), "Subject: a\r\n\r\nb\r\n");
        assert_eq!(report.recipients.len(), 1);
    }

    #[tokio::test]
    async fn the_same_message_again_is_the_same_file_and_another_one_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["one", "one", "two", "two", "one"] {
            let report = submit(folder.path(), &parcel("<i@x>", text), &Open).await;
            assert!(matches!(report.verdict, Verdict::Accepted { .. }), "{report:?}");
        }
        assert_eq!(files(folder.path()), ["i@x-2.eml", "i@x.eml"]);
        assert_eq!(fs::read_to_string(folder.path().join("i@x.eml")).unwrap(), "one");
    }

    #[tokio::test]
    async fn nothing_is_left_behind_a_shut_gate() {
        struct Shut;
        impl Gate for Shut {
            fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), GateClosed>> + Send + '_>> {
                Box::pin(std::future::ready(Err(GateClosed("the lease is lost".into()))))
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let report = submit(folder.path(), &parcel("<i@x>", "one"), &Shut).await;
        assert!(matches!(report.verdict, Verdict::GateClosed(_)));
        assert!(files(folder.path()).is_empty());
    }

    #[tokio::test]
    async fn a_spooled_message_that_shrank_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let spooled = folder.path().join("spooled");
        fs::write(&spooled, "short").unwrap();
        let mut parcel = parcel("<i@x>", "");
        parcel.content = Content::File {
            path: spooled,
            len: 100,
        };
        let report = submit(&folder.path().join("out"), &parcel, &Open).await;
        assert!(matches!(report.verdict, Verdict::Unreached { .. }), "{report:?}");
        assert!(files(&folder.path().join("out")).is_empty());
    }
}
