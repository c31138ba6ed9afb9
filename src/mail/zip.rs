//! A ZIP archive, written as a stream: what is too big to attach is packed.
//!
//! Only what that needs (APPNOTE 6.3.10): deflate, UTF-8 names, sizes behind the content (4.3.9). Without Zip64
//! an archive ends at 4 GiB, far beyond what any server takes.

use flate2::write::DeflateEncoder;
use flate2::{Compression, CrcReader};
use std::io::{self, Read, Write};

/// Made by version 2.0: deflate.
const VERSION: u16 = 20;
/// Sizes follow the content (bit 3), the name is UTF-8 (bit 11).
const FLAGS: u16 = (1 << 3) | (1 << 11);
const DEFLATED: u16 = 8;

/// An archive being written.
pub struct Archive<W: Write> {
    out: Counted<W>,
    directory: Vec<u8>,
    entries: u16,
}

struct Counted<W: Write> {
    out: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A number that ZIP without Zip64 can hold.
fn small(number: u64) -> io::Result<[u8; 4]> {
    u32::try_from(number)
        .map(u32::to_le_bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 GiB"))
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Archive<W> {
        Archive {
            out: Counted { out, count: 0 },
            directory: Vec::new(),
            entries: 0,
        }
    }

    /// Adds a file. Its time is `time`, in any zone; ZIP knows none.
    pub fn add(&mut self, name: &str, time: jiff::civil::DateTime, content: impl Read) -> io::Result<()> {
        let offset = small(self.out.count)?;
        let length = u16::try_from(name.len()).map_err(io::Error::other)?;
        let mut header = Vec::new();
        for field in [VERSION, FLAGS, DEFLATED, dos_time(time), dos_date(time)] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        self.out.write_all(b"PK\x03\x04")?;
        self.out.write_all(&header)?;
        self.out.write_all(&[0; 12])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&[0; 2])?;
        self.out.write_all(name.as_bytes())?;
        let start = self.out.count;
        let mut content = CrcReader::new(content);
        let mut deflated = DeflateEncoder::new(&mut self.out, Compression::default());
        io::copy(&mut content, &mut deflated)?;
        deflated.finish()?;
        let packed = small(self.out.count - start)?;
        // The library counts modulo 2^32; an archive over that size fails above, content that packs better here.
        let mut sizes = content.crc().sum().to_le_bytes().to_vec();
        sizes.extend_from_slice(&packed);
        sizes.extend_from_slice(&content.crc().amount().to_le_bytes());
        self.out.write_all(b"PK\x07\x08")?;
        self.out.write_all(&sizes)?;

        self.directory.extend_from_slice(b"PK\x01\x02");
        self.directory.extend_from_slice(&VERSION.to_le_bytes());
        self.directory.extend_from_slice(&header);
        self.directory.extend_from_slice(&sizes);
        self.directory.extend_from_slice(&length.to_le_bytes());
        self.directory.extend_from_slice(&[0; 12]);
        self.directory.extend_from_slice(&offset);
        self.directory.extend_from_slice(name.as_bytes());
        self.entries = self
            .entries
            .checked_add(1)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "more than 65535 files"))?;
        Ok(())
    }

    /// Ends it; the bytes written.
    pub fn finish(mut self) -> io::Result<u64> {
        let offset = small(self.out.count)?;
        let length = small(self.directory.len() as u64)?;
        self.out.write_all(&self.directory)?;
        self.out.write_all(b"PK\x05\x06\0\0\0\0")?;
        self.out.write_all(&self.entries.to_le_bytes())?;
        self.out.write_all(&self.entries.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(&offset)?;
        self.out.write_all(&[0; 2])?;
        self.out.flush()?;
        Ok(self.out.count)
    }
}

/// Hours, minutes and pairs of seconds.
fn dos_time(time: jiff::civil::DateTime) -> u16 {
    let part = |number: i8| u16::from(number.unsigned_abs());
    (part(time.hour()) << 11) | (part(time.minute()) << 5) | (part(time.second()) / 2)
}

/// Years since 1980, month, day.
fn dos_date(time: jiff::civil::DateTime) -> u16 {
    let year = u16::try_from(time.year().clamp(1980, 2107) - 1980).unwrap_or(0);
    (year << 9) | (u16::from(time.month().unsigned_abs()) << 5) | u16::from(time.day().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_can_be_read_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let mut archive = Archive::new(std::fs::File::create(&path).unwrap());
        let time = jiff::civil::date(2026, 11, 22).at(14, 5, 6, 0);
        let content = b"line\n".repeat(10_000);
        archive.add("Rechnung ä.txt", time, &content[..]).unwrap();
        archive.add("empty", time, io::empty()).unwrap();
        let written = archive.finish().unwrap();
        assert_eq!(written, std::fs::metadata(&path).unwrap().len());
        assert!(written < 1000);
        let python = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                      print([(i.filename,i.file_size,i.date_time) for i in z.infolist()])\n";
        let Ok(output) = std::process::Command::new("python3")
            .args(["-c", python])
            .arg(&path)
            .output()
        else {
            return; // no other reader here
        };
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "[('Rechnung ä.txt', 50000, (2026, 11, 22, 14, 5, 6)), ('empty', 0, (2026, 11, 22, 14, 5, 6))]\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
