//! What happens in a world: as its test says, in the way it would happen outside.

use super::super::{Doing, FileMade, Happening};
use super::{Parts, World, WorldError, plans};
use crate::action::run::Scripted;
use crate::action::{output, work};
use crate::dispatch::pause::{self, How, Pause};
use crate::source::emitted::CloudEvent;
use crate::source::job::{self, JobReport};
use crate::source::running::{Mark, Process};
use crate::source::watch::Hint;
use crate::store::Batch;
use crate::template::{RenderError, Text};
use jiff::Timestamp;
use rustix::fs::{AtFlags, Timespec, Timestamps};
use serde_json::{Map, json};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl World<'_> {
    pub(super) async fn happen(
        &mut self,
        happening: &Happening,
        parts: &mut Parts,
    ) -> Result<(), WorldError> {
        let now = self.clock.now();
        match &happening.what {
            Doing::Files(files) => {
                for file in files {
                    let path = self.make(file)?;
                    parts.sources.files.told(Some(&Hint::RenamedTo(path)));
                }
            }
            Doing::Removes(paths) => {
                for path in paths {
                    let path = self.path(path)?;
                    let place = self.settings.ground.at(&path).into_owned();
                    let removed = match fs::symlink_metadata(&place) {
                        Ok(about) if about.is_dir() => fs::remove_dir_all(&place),
                        Ok(_) => fs::remove_file(&place),
                        Err(error) => Err(error),
                    };
                    match removed {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            let line = happening.line;
                            return Err(WorldError::NotThere { line, path });
                        }
                        other => other?,
                    }
                    self.ledger
                        .line(now, format!("{} is taken away", path.display()), Vec::new());
                    parts.sources.files.told(Some(&Hint::Left(path)));
                }
            }
            Doing::Starts(job) => self.start(job).await?,
            Doing::Emits(event) => self.emit(event).await?,
            Doing::Reports { job, end } => self.report(job, end).await?,
            Doing::Ends { rule, end } => {
                let what = format!(
                    "from now on the command of {rule} ends otherwise: it {}",
                    how(end)
                );
                self.ledger.line(now, what, Vec::new());
                self.ends.from_now_on(rule, end.clone());
            }
            Doing::Answers {
                account,
                answer,
                times,
            } => {
                let what = match answer {
                    Some(answer) => {
                        self.stand_in.answer(account, answer.clone(), *times);
                        format!("the server of {account} answers otherwise")
                    }
                    None => {
                        self.stand_in.accept(account);
                        format!("the server of {account} accepts")
                    }
                };
                self.ledger.line(now, what, Vec::new());
            }
            Doing::Pauses(rule, lasts) => {
                let until = lasts.map(|lasts| now.saturating_add(lasts).unwrap_or(Timestamp::MAX));
                let pause = Pause::new(rule, now, until, None, "the test");
                pause::pause(&self.store, vec![pause]).await?;
                self.ledger
                    .line(now, format!("rule {rule} is paused"), Vec::new());
            }
            Doing::Resumes { rule, drop } => {
                let how = if *drop { How::Drop } else { How::Send };
                let mut paused = pause::paused(&self.store, now).await?;
                paused.retain(|pause| pause.rule == *rule);
                pause::resume(&self.store, paused, how, "the test").await?;
                self.ledger.line(now, format!("rule {rule} goes on"), Vec::new());
            }
            Doing::Restart => {
                let fresh = self.parts().await?;
                std::mem::replace(parts, fresh).delivery.abort().await;
                self.store.recover(work::lost).await?;
                // What the sources know is in the store; they begin once more after what was lost is told.
                parts.sources = self.sources().await?;
                self.ledger.line(now, "restart", Vec::new());
            }
            Doing::Reload => {
                let (rules, delivery) = plans(
                    self.setup,
                    &self.settings,
                    &self.keeper,
                    &self.stand_in,
                    &self.ends,
                );
                self.rules.send_replace(Arc::new(rules));
                self.delivery.send_replace(Arc::new(delivery));
                parts.delivery.replanned();
                parts.sources = self.sources().await?;
                self.ledger.line(now, "reload", Vec::new());
            }
        }
        Ok(())
    }

    fn rendered(&self, text: &Text) -> Result<String, RenderError> {
        let now = self.clock.now().to_zoned(self.settings.defaults.timezone.clone());
        text.render(&json!({ "now": now.to_string() }))
    }

    fn path(&self, text: &Text) -> Result<PathBuf, RenderError> {
        Ok(self
            .settings
            .dir
            .join(self.rendered(text)?)
            .components()
            .collect())
    }

    /// Makes a file whole under another name, and renames it into place. Its time is that of the test's clock.
    pub(super) fn make(&mut self, file: &FileMade) -> Result<PathBuf, WorldError> {
        let path = self.path(&file.path)?;
        let content = match &file.content {
            Some(content) => self.rendered(content)?,
            None => String::new(),
        };
        let place = self.settings.ground.at(&path).into_owned();
        let folder = place.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let temporary = folder.join(".tidings-test.part");
        let mut made = fs::File::create(&temporary)?;
        made.write_all(content.as_bytes())?;
        let size = file.size.unwrap_or(0).max(content.len() as u64);
        made.set_len(size)?;
        drop(made);
        let now = self.clock.now();
        let time = now.saturating_sub(file.age).unwrap_or(Timestamp::MIN);
        let time = Timespec {
            tv_sec: time.as_second(),
            tv_nsec: i64::from(time.subsec_nanosecond()).max(0) as _,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(rustix::fs::CWD, &temporary, &times, AtFlags::empty())
            .map_err(io::Error::from)?;
        fs::rename(&temporary, &place)?;
        self.ledger.line(
            now,
            format!("{} is put there, {size} bytes", path.display()),
            Vec::new(),
        );
        Ok(path)
    }

    /// A job elsewhere reports, as `tidings exec` does.
    async fn report(&mut self, name: &str, end: &Scripted) -> Result<(), WorldError> {
        let now = self.clock.now();
        let report = JobReport {
            name: name.to_owned(),
            ok: end.signal.is_none() && end.exit == Some(0),
            exit_code: end.exit,
            signal: end.signal.clone(),
            duration: end.takes.as_secs_f64(),
            attempt: 1,
            summary: how(end),
            output_tail: output::tail(end.output.as_bytes()),
            started: now.saturating_sub(end.takes).unwrap_or(now).to_string(),
            ended: now.to_string(),
            command: name.to_owned(),
            ..JobReport::default()
        };
        let key = match self.running.remove(name) {
            Some(key) => key,
            None => self.key_of_report(),
        };
        let mark = job::mark_of(&key);
        let event = job::outcome(&report, None, &Map::new(), None, key);
        self.store
            .record(Batch {
                events: vec![event],
                unmarked: mark.into_iter().collect(),
                ..Batch::default()
            })
            .await?;
        self.ledger
            .line(now, format!("job {name} {}", how(end)), Vec::new());
        Ok(())
    }

    fn key_of_report(&mut self) -> String {
        self.told += 1;
        format!("job:exec:test-{}", self.told)
    }

    /// A job elsewhere begins, as `tidings exec` tells it.
    async fn start(&mut self, name: &str) -> Result<(), WorldError> {
        let now = self.clock.now();
        let key = self.key_of_report();
        let mark = Mark {
            name: name.to_owned(),
            started: now.to_string(),
            command: name.to_owned(),
            process: Process::own(),
        };
        if let (Some(key), Ok(mark)) = (job::mark_of(&key), serde_json::to_value(mark)) {
            self.store.set_marks(vec![(key, mark)]).await?;
        }
        self.running.insert(name.to_owned(), key);
        self.ledger.line(now, format!("job {name} begins"), Vec::new());
        Ok(())
    }

    /// Somebody emits an event.
    async fn emit(&mut self, event: &CloudEvent) -> Result<(), WorldError> {
        let now = self.clock.now();
        let mut event = event.clone();
        if event.id.is_empty() {
            self.told += 1;
            event.id = format!("test-{}", self.told);
        }
        let what = format!("{} emits {}", event.source, event.kind);
        let batch = Batch {
            events: vec![event.happening(now)],
            ..Batch::default()
        };
        self.store.record(batch).await?;
        self.ledger.line(now, what, Vec::new());
        Ok(())
    }
}

/// How a command ends, as a sentence's end.
fn how(end: &Scripted) -> String {
    match &end.signal {
        Some(signal) => format!("was ended by {signal}"),
        None => format!("ended with exit code {}", end.exit.unwrap_or_default()),
    }
}
