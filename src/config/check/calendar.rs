//! `calendars:` of the settings.

use super::{Checker, plain};
use crate::config::calendar::{Calendar, ics};
use crate::config::diagnostic::{Place, Problem};
use crate::config::document::At;
use crate::config::raw::absence as raw;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

impl Checker<'_> {
    /// The calendars by name. One that is wrong is there, too, so that nobody asks for it in vain.
    pub(super) fn calendars(
        &mut self,
        at: &At<'_>,
        raw: BTreeMap<String, raw::Calendar>,
    ) -> BTreeMap<String, Arc<Calendar>> {
        let mut calendars = BTreeMap::new();
        for (name, written) in raw {
            self.name(&at.name(&name), "a calendar", &name);
            let calendar = self.calendar(&at.key(&name), &written);
            calendars.insert(name, Arc::new(calendar));
        }
        calendars
    }

    fn calendar(&mut self, at: &At<'_>, raw: &raw::Calendar) -> Calendar {
        let mut calendar = Calendar::default();
        if raw.dates.is_none() && raw.file.is_none() {
            self.complain(
                at.error("this calendar has no days")
                    .hint("write `dates: [2026-12-25, 2026-12-24..2027-01-02]`, or `file: holidays.ics`"),
            );
        }
        for (index, text) in raw.dates.iter().flat_map(|many| &many.0).enumerate() {
            if let Err(help) = calendar.add(text) {
                let spot = at.key("dates").item(index);
                self.complain(spot.error(format!("`{text}` is not a day")).hint(help));
            }
        }
        let Some(file) = &raw.file else {
            return calendar;
        };
        let spot = at.key("file");
        let path = self.path(file);
        let text = match text(&path) {
            Ok(text) => text,
            Err(why) => {
                self.complain(
                    spot.error(format!("cannot use `{file}` as a calendar: {why}"))
                        .hint(format!("looked for {}", path.display())),
                );
                return calendar;
            }
        };
        match ics::read(&text) {
            Ok(read) if read.spans.is_empty() && read.repeats.is_empty() => {
                self.complain(
                    spot.warning(format!("`{file}` has no event that lasts whole days"))
                        .hint("only such events are holidays; an event of some hours is none"),
                );
            }
            Ok(read) => calendar.add_ics(read),
            Err(fault) => {
                let line = text.lines().nth(fault.line.saturating_sub(1)).unwrap_or_default();
                let problem = Problem::error(
                    Path::new(file),
                    format!("this calendar cannot be used: {}", fault.message),
                )
                .at(Place::at(fault.line, 1, line))
                .hint(format!("it is named at {}", spot.shown()));
                self.complain(problem);
            }
        }
        calendar
    }
}

/// A calendar file: regular, of a bearable size. Never waits for a FIFO. Bytes that are no UTF-8 stand in
/// summaries, which nobody reads here.
fn text(path: &Path) -> Result<String, String> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| plain(&error))?;
    let about = file.metadata().map_err(|error| plain(&error))?;
    if !about.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(ics::LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| plain(&error))?;
    if bytes.len() as u64 > ics::LARGEST {
        return Err(format!("it has more than {} MB", ics::LARGEST / 1_000_000));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
