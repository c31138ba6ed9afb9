//! Transcripts: what was said on the wire, line by line, for people who look for a fault.
//!
//! Secrets are masked before a line gets here, always: the dialogue hands over what may be shown
//! ([`super::dialogue::Words`]), and nothing here has a switch for more. A message's own bytes are
//! never shown, only how many they were. Lines of sessions at the same time may mix; each bears the
//! number of its session.

use crate::clock::Clock;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where sessions are written down.
pub struct Transcript {
    sink: Mutex<Box<dyn Write + Send>>,
    clock: Clock,
    /// Kept in memory, where somebody wants to read it afterwards.
    kept: Option<Mutex<Vec<(Said, String)>>>,
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transcript")
    }
}

/// Who said a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// We did.
    Client,
    /// The server did.
    Server,
    /// Nobody: a note about the connection.
    Note,
}

impl Transcript {
    /// Appends to the file at `path`; a new one is made for the owner's eyes only (0600).
    pub fn open(path: &Path, clock: Clock) -> std::io::Result<Transcript> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        Ok(Transcript::to(Box::new(file), clock))
    }

    /// Writes to `sink`, for instance a terminal.
    pub fn to(sink: Box<dyn Write + Send>, clock: Clock) -> Transcript {
        Transcript {
            sink: Mutex::new(sink),
            clock,
            kept: None,
        }
    }

    /// Writes nowhere, and remembers.
    pub(crate) fn heard() -> Transcript {
        Transcript {
            kept: Some(Mutex::default()),
            ..Transcript::to(Box::new(std::io::sink()), Clock::system())
        }
    }

    /// What it remembers.
    pub(crate) fn said(&self) -> Vec<(Said, String)> {
        let kept = self
            .kept
            .as_ref()
            .map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner));
        kept.map(|kept| kept.clone()).unwrap_or_default()
    }

    /// Writes one line. `text` holds no control characters and no secret. A sink that fails loses
    /// the line, never the mail.
    pub(crate) fn line(&self, session: u64, said: Said, text: &str) {
        if let Some(kept) = &self.kept {
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((said, text.to_owned()));
        }
        let mark = match said {
            Said::Client => "C:",
            Said::Server => "S:",
            Said::Note => "--",
        };
        let line = format!("{:.3} #{session} {mark} {text}\n", self.clock.now());
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sink.write_all(line.as_bytes()).and_then(|()| sink.flush());
    }

    /// A number for a new session, unique in this process.
    pub(crate) fn session() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}
