//! A message to be sent by a service that is told no envelope: who is hidden goes into a Bcc field before it, which the
//! service takes out again. Read by pieces, off the runtime's threads.

use crate::mail::Envelope;
use crate::mail::parsed::{self, NotForThem};
use crate::transport::Content;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Reader of a message's bytes.
pub type Bytes = Box<dyn ReadSeek>;

/// Both.
pub trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// A message with its Bcc field.
#[derive(Clone, Debug)]
pub struct Source {
    bcc: Arc<[u8]>,
    content: Content,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Our own copy.
    #[error("cannot read the stored message: {0}")]
    Read(#[from] io::Error),
    /// Its header.
    #[error(transparent)]
    Header(#[from] NotForThem),
}

/// Opens the bytes of a message.
pub fn open(content: &Content) -> io::Result<Bytes> {
    Ok(match content {
        Content::Bytes(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
        Content::File { path, len } => {
            let file = File::open(path)?;
            let found = file.metadata()?.len();
            if found != *len {
                return Err(io::Error::other(format!("it has {found} bytes, not {len}")));
            }
            Box::new(BufReader::with_capacity(64 * 1024, file))
        }
    })
}

/// Runs what blocks.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SourceError::Read(io::Error::other(error)))?
}

impl Source {
    /// Reads the header.
    pub async fn new(content: &Content, envelope: &Envelope) -> Result<Source, SourceError> {
        let (content, recipients) = (content.clone(), envelope.recipients().to_vec());
        blocking(move || {
            let head = parsed::head(&mut BufReader::new(open(&content)?))?;
            let bcc = parsed::bcc_field(&parsed::hidden(&head, &recipients)?);
            Ok(Source {
                bcc: bcc.into_bytes().into(),
                content,
            })
        })
        .await
    }

    /// The Bcc field, or nothing.
    pub fn bcc(&self) -> &[u8] {
        &self.bcc
    }

    /// The message as it is kept.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// All bytes, the Bcc field included.
    pub fn size(&self) -> u64 {
        let len = match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { len, .. } => *len,
        };
        len + self.bcc.len() as u64
    }

    /// The bytes from `start`, at most `most`.
    pub async fn piece(&self, start: u64, most: u64) -> Result<Vec<u8>, SourceError> {
        let source = self.clone();
        blocking(move || {
            let field = source.bcc.len() as u64;
            let mut reader = open(&source.content)?;
            reader.seek(SeekFrom::Start(start.saturating_sub(field)))?;
            let at = usize::try_from(start.min(field)).unwrap_or(usize::MAX);
            let mut piece = Vec::new();
            Cursor::new(&source.bcc[at..])
                .chain(reader)
                .take(most)
                .read_to_end(&mut piece)?;
            Ok(piece)
        })
        .await
    }

    /// All of it.
    pub async fn whole(&self) -> Result<Vec<u8>, SourceError> {
        self.piece(0, u64::MAX).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hidden_stand_before_the_message_and_pieces_make_the_whole() {
        let message = b"To: b@x.example\r\n\r\ntext\r\n";
        let to = ["b@x.example", "c@x.example"].map(|text| text.parse().unwrap());
        let envelope = Envelope::new("a@x.example".parse().unwrap(), to.to_vec()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spooled");
        std::fs::write(&path, message).unwrap();
        for content in [
            Content::Bytes(Arc::from(&message[..])),
            Content::File {
                path,
                len: message.len() as u64,
            },
        ] {
            let source = Source::new(&content, &envelope).await.unwrap();
            let whole = source.whole().await.unwrap();
            assert_eq!(whole, b"Bcc: c@x.example\r\nTo: b@x.example\r\n\r\ntext\r\n");
            assert_eq!(source.size(), whole.len() as u64);
            let mut pieces = Vec::new();
            while (pieces.len() as u64) < source.size() {
                pieces.extend(source.piece(pieces.len() as u64, 7).await.unwrap());
            }
            assert_eq!(pieces, whole);
        }
    }

    #[tokio::test]
    async fn a_stored_message_that_shrank_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spooled");
        std::fs::write(&path, "short").unwrap();
        let envelope = Envelope::new(
            "a@x.example".parse().unwrap(),
            vec!["b@x.example".parse().unwrap()],
        )
        .unwrap();
        let error = Source::new(&Content::File { path, len: 100 }, &envelope)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("5 bytes, not 100"), "{error}");
    }
}
