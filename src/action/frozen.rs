//! The bytes of a message while it is composed.

use crate::entry::Body;
use crate::store::spool::{Spool, SpoolFile};
use std::io::{self, Write};

/// Longest message kept in the store itself, bytes; a longer one goes to the spool.
const INLINE: usize = 256 * 1024;

/// A message on its way: in memory while it is short, in the spool from then on.
pub(super) struct Frozen<'a> {
    spool: &'a Spool,
    short: Vec<u8>,
    long: Option<io::BufWriter<SpoolFile>>,
    pub(super) size: u64,
    /// What the spool said, beside what reading an attachment said.
    pub(super) failed: Option<io::Error>,
}

impl<'a> Frozen<'a> {
    pub(super) fn new(spool: &'a Spool) -> Frozen<'a> {
        Frozen {
            spool,
            short: Vec::new(),
            long: None,
            size: 0,
            failed: None,
        }
    }

    pub(super) fn keep(self) -> io::Result<Body> {
        match self.long {
            None => Ok(Body::Inline(self.short)),
            Some(long) => long.into_inner().map_err(io::IntoInnerError::into_error)?.keep(),
        }
    }
}

impl Frozen<'_> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.long.is_none() && self.short.len() + bytes.len() > INLINE {
            let mut long = io::BufWriter::new(self.spool.create()?);
            long.write_all(&std::mem::take(&mut self.short))?;
            self.long = Some(long);
        }
        match &mut self.long {
            Some(long) => long.write_all(bytes),
            None => {
                self.short.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

impl Write for Frozen<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.long {
            Some(long) => long.flush(),
            None => Ok(()),
        }
    }
}
