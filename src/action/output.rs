//! The output of a command: in bounded memory its end, in a capped log file its beginning and its end.
//!
//! A log that is cut says so in a line of its own, with how much is left out, and goes on with the
//! last part: what a failed command said last is what people look for.

use crate::visible::turns;
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

/// How much of the end is kept in memory, bytes.
const KEPT: usize = 48 * 1024;
/// Longest tail for people, bytes and lines.
const TAIL: usize = 8 * 1024;
const TAIL_LINES: usize = 60;

/// Output as it arrives.
#[derive(Debug)]
pub struct Capture {
    end: VecDeque<u8>,
    total: u64,
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    /// Bytes written straight through.
    written: u64,
    /// Where the straight part ends; what is left up to the cap is for the end of the output.
    first: u64,
    last: u64,
}

/// Output when it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The last lines, fit to be shown.
    pub tail: String,
    /// The log left something out.
    pub cut: bool,
    /// The log file.
    pub log: Option<PathBuf>,
}

/// Makes a log file (0600) in a folder (0700, made when missing): `NAME-1.log`, or the next number
/// that is free, so that no log is ever written over.
pub async fn create_log(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    let (folder, name) = (folder.to_owned(), name.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let mut number = 1_u32;
        loop {
            let path = folder.join(format!("{name}-{number}.log"));
            let opened = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match opened {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => {
                    number += 1
                }
                Err(error) => return Err(error),
            }
        }
    });
    let (path, file) = made.await.map_err(io::Error::other)??;
    Ok((path, File::from_std(file)))
}

/// Removes the log files of a folder that nobody wrote to for `keep`; returns how many. Blocks.
pub fn purge_logs(folder: &Path, keep: Duration) -> io::Result<usize> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let is_log = Path::new(&entry.file_name())
            .extension()
            .is_some_and(|end| end == "log");
        let age = entry
            .metadata()
            .and_then(|stat| stat.modified())?
            .elapsed()
            .unwrap_or_default();
        if is_log && age > keep {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

impl Capture {
    /// Nothing has arrived. The log takes at most `limit` bytes of output.
    pub fn new(log: Option<(PathBuf, File)>, limit: u64) -> Capture {
        let last = (limit / 4).min(KEPT as u64);
        Capture {
            end: VecDeque::new(),
            total: 0,
            log: log.map(|(path, file)| Log {
                path,
                file,
                written: 0,
                first: limit - last,
                last,
            }),
        }
    }

    /// More has arrived. A log that cannot be written (a full disk) is given up; the job goes on.
    pub async fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let keep = &bytes[bytes.len().saturating_sub(KEPT)..];
        let spare = (self.end.len() + keep.len()).saturating_sub(KEPT);
        self.end.drain(..spare);
        self.end.extend(keep);
        if let Some(log) = &mut self.log {
            let room = usize::try_from(log.first - log.written).unwrap_or(usize::MAX);
            let now = &bytes[..bytes.len().min(room)];
            if now.is_empty() {
                return;
            }
            match log.file.write_all(now).await {
                Ok(()) => log.written += now.len() as u64,
                Err(error) => {
                    tracing::warn!(path = %log.path.display(), %error, "cannot write the log of a job");
                    self.log = None;
                }
            }
        }
    }

    /// It has ended. `open`: somebody still holds it, so more may have been said than arrived.
    pub async fn finish(mut self, open: bool) -> Captured {
        let end: Vec<u8> = self.end.into();
        let mut cut = false;
        let log = match self.log.take() {
            None => None,
            Some(mut log) => {
                let rest = self.total - log.written;
                let last = rest.min(log.last);
                let left_out = rest - last;
                cut = left_out > 0;
                let mut close = Vec::new();
                if cut {
                    close.extend_from_slice(
                        format!("\n[tidings: {left_out} bytes of output are left out here]\n").as_bytes(),
                    );
                }
                let last = usize::try_from(last).unwrap_or(usize::MAX).min(end.len());
                close.extend_from_slice(&end[end.len() - last..]);
                if open {
                    close.extend_from_slice(
                        b"\n[tidings: the command ended, a process it started still holds its output]\n",
                    );
                }
                let written = match log.file.write_all(&close).await {
                    Ok(()) => log.file.flush().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = written {
                    tracing::warn!(path = %log.path.display(), %error, "cannot write the log of a job");
                    cut = true;
                }
                Some(log.path)
            }
        };
        Captured {
            tail: tail(&end),
            cut,
            log,
        }
    }
}

/// The last lines of some output, fit for a terminal, a mail, a log: no colours, control characters
/// visible, what is not UTF-8 replaced.
pub fn tail(bytes: &[u8]) -> String {
    let text = plain(&String::from_utf8_lossy(bytes));
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start > 0
        && let Some(line) = text[start..].find('\n')
    {
        start += line + 1;
    }
    let lines: Vec<&str> = text[start..].lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Text without terminal sequences and with its other control characters made visible. A carriage
/// return becomes a line end: a progress bar is many lines, and nothing is hidden.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => match rest.peek() {
                // CSI (ECMA-48 5.4): parameters, then one final byte.
                Some('[') => {
                    rest.next();
                    while rest.next_if(|c| ('\x20'..='\x3f').contains(c)).is_some() {}
                    rest.next_if(|c| ('\x40'..='\x7e').contains(c));
                }
                // OSC (a window title, a link): up to BEL or ST.
                Some(']') => {
                    rest.next();
                    while let Some(c) = rest.next_if(|c| *c != '\n') {
                        if c == '\x07' || (c == '\x1b' && rest.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                Some('(' | ')') => {
                    rest.next();
                    rest.next_if(|c| c.is_ascii_alphanumeric());
                }
                _ => out.push_str("\\x1b"),
            },
            '\r' => {
                rest.next_if_eq(&'\n');
                out.push('\n');
            }
            '\n' | '\t' => out.push(c),
            // Marks that turn the direction of text can make it read as something else.
            c if turns(c) => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => {
                use std::fmt::Write as _;
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_plain_and_bounded() {
        assert_eq!(
            tail(b"\x1b[31mred\x1b[0m\r\nbell\x07 \xff\x1b]0;title\x07!\n\n"),
            "red\nbell\\x07 \u{fffd}!"
        );
        let many: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        let tail = tail(many.as_bytes());
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 9999"));
        assert!(super::tail(&vec![b'x'; 100_000]).len() <= TAIL);
        assert!(super::tail("\u{fc}".repeat(100_000).as_bytes()).len() <= TAIL);
    }

    #[tokio::test]
    async fn old_logs_go_and_young_ones_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (old, _) = create_log(folder.path(), "7").await.unwrap();
        let (young, _) = create_log(folder.path(), "7").await.unwrap();
        let other = folder.path().join("notes");
        std::fs::write(&other, "").unwrap();
        let day = Duration::from_secs(86_400);
        for path in [&old, &other] {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::SystemTime::now() - day * 31)
                .unwrap();
        }
        assert_eq!(purge_logs(folder.path(), day * 30).unwrap(), 1);
        assert!(!old.exists() && young.exists() && other.exists());
        assert_eq!(purge_logs(&folder.path().join("nowhere"), day).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_cut_log_has_its_beginning_its_end_and_a_line_between() {
        let folder = tempfile::tempdir().unwrap();
        let log = create_log(folder.path(), "7").await.unwrap();
        let mut capture = Capture::new(Some(log), 400);
        for n in 0..1_000 {
            capture.push(format!("line {n}\n").as_bytes()).await;
        }
        let captured = capture.finish(false).await;
        assert!(captured.cut);
        let text = std::fs::read_to_string(captured.log.unwrap()).unwrap();
        assert!(text.starts_with("line 0\nline 1\n"), "{text}");
        assert!(
            text.contains("[tidings: 8490 bytes of output are left out here]"),
            "{text}"
        );
        assert!(text.ends_with("line 998\nline 999\n"), "{text}");
    }

    #[tokio::test]
    async fn output_within_the_cap_is_kept_as_it_came() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 1, 299, 300, 301, 399, 400] {
            let log = create_log(folder.path(), "7").await.unwrap();
            let mut capture = Capture::new(Some(log), 400);
            let bytes: Vec<u8> = (0..=255_u8).cycle().take(len).collect();
            for part in bytes.chunks(7) {
                capture.push(part).await;
            }
            let captured = capture.finish(false).await;
            assert!(!captured.cut);
            assert_eq!(std::fs::read(captured.log.unwrap()).unwrap(), bytes, "{len}");
        }
    }
}
