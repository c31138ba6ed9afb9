//! Where files really lie: on this machine, or below a folder that stands for it.
//!
//! A test of rules plays on files of its own. Facts, conditions and mails name `/srv/drop/a.csv`, as they will
//! when the rule is in force; only who opens, makes, moves or looks at a file asks the ground where that is.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Where files really lie. Cheap to clone; by default the machine itself.
#[derive(Clone, Debug, Default)]
pub struct Ground(Option<Arc<Stage>>);

#[derive(Debug)]
struct Stage {
    below: PathBuf,
    lent: PathBuf,
}

impl Ground {
    /// Everything lies below `folder`. What is only read, and is not there, is read from the setup folder `lent`
    /// where it is: texts and pictures that rules attach belong to the setup.
    pub fn below(folder: &Path, lent: &Path) -> Ground {
        Ground(Some(Arc::new(Stage {
            below: folder.to_owned(),
            lent: lent.to_owned(),
        })))
    }

    /// Where an absolute path really lies. No `..` leads out of the ground.
    pub fn at<'a>(&self, path: &'a Path) -> Cow<'a, Path> {
        let Some(stage) = &self.0 else {
            return Cow::Borrowed(path);
        };
        let mut place = PathBuf::new();
        for step in path.components() {
            match step {
                Component::Normal(name) => place.push(name),
                Component::ParentDir => {
                    place.pop();
                }
                _ => {}
            }
        }
        Cow::Owned(stage.below.join(place))
    }

    /// Where a path lies that is only to be read.
    pub fn to_read<'a>(&self, path: &'a Path) -> Cow<'a, Path> {
        let place = self.at(path);
        match &self.0 {
            Some(stage) if place.symlink_metadata().is_err() && path.starts_with(&stage.lent) => {
                Cow::Borrowed(path)
            }
            _ => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_changes_no_path() {
        let path = Path::new("/srv/../a/");
        assert_eq!(Ground::default().at(path).as_os_str(), path.as_os_str());
    }

    #[test]
    fn nothing_leads_out_of_the_ground() {
        let ground = Ground::below(Path::new("/tmp/t"), Path::new("/etc/tidings"));
        let at = |path: &str| ground.at(Path::new(path)).into_owned();
        assert_eq!(at("/srv/drop/a"), Path::new("/tmp/t/srv/drop/a"));
        assert_eq!(at("/../../etc/passwd"), Path::new("/tmp/t/etc/passwd"));
        assert_eq!(at("/srv/../../../x"), Path::new("/tmp/t/x"));
        assert_eq!(at("/"), Path::new("/tmp/t"));
    }

    #[test]
    fn what_belongs_to_the_setup_is_read_from_it_unless_the_ground_has_it() {
        let (stage, setup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ground = Ground::below(stage.path(), setup.path());
        let terms = setup.path().join("terms.pdf");
        std::fs::write(&terms, "x").unwrap();
        assert_eq!(ground.to_read(&terms), terms);
        let copy = ground.at(&terms).into_owned();
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(&copy, "y").unwrap();
        assert_eq!(ground.to_read(&terms), copy);
        assert_eq!(
            ground.to_read(Path::new("/etc/passwd")),
            stage.path().join("etc/passwd")
        );
    }
}
