//! What rules look for in a watched folder, asked once a file for all rules together.
//!
//! A pattern is matched against the path below the root; `ignore` against that or the bare name, and
//! also against every folder on the way: an ignored folder hides what is in it.

use crate::source::Wanted;
use globset::{Candidate, Glob, GlobSet, GlobSetBuilder};
use std::path::Path;

/// Patterns of what is left out; it knows which of them did it.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    set: GlobSet,
    patterns: Vec<String>,
}

impl Ignore {
    /// Takes patterns that were understood one by one.
    pub fn new(patterns: &[Glob]) -> Ignore {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(pattern.clone());
        }
        Ignore {
            set: set.build().unwrap_or_default(),
            patterns: patterns.iter().map(|pattern| pattern.glob().to_owned()).collect(),
        }
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether this path, or its bare name, meets one of the patterns.
    pub fn is_match(&self, path: &Path) -> bool {
        self.set.is_match(path) || path.file_name().is_some_and(|name| self.set.is_match(name))
    }

    /// The pattern that leaves a path below the root out, and the path it meets: the file, or a folder on the way.
    pub fn by<'a>(&self, relative: &'a Path) -> Option<(&str, &'a Path)> {
        let way: Vec<&Path> = relative
            .ancestors()
            .take_while(|part| !part.as_os_str().is_empty())
            .collect();
        way.into_iter().rev().find_map(|part| {
            let name = part.file_name().map(Path::new).unwrap_or(part);
            let mut met = self.set.matches(part);
            met.extend(self.set.matches(name));
            met.sort_unstable();
            Some((self.patterns.get(*met.first()?)?.as_str(), part))
        })
    }
}

impl Wanted {
    /// Whether a file with this path below the root is looked for, whatever its size.
    pub fn matches(&self, relative: &Path) -> bool {
        self.matching.is_match(relative) && self.reaches(relative)
    }

    /// Whether this file, at this size, is looked for.
    pub fn wants(&self, relative: &Path, size: u64) -> bool {
        self.fits(size) && self.matches(relative)
    }

    /// Whether files directly in this folder (not the root) could be looked for, given that its
    /// parents are looked into.
    pub fn enters(&self, folder: &Path) -> bool {
        self.recursive && !self.ignores(folder)
    }

    fn fits(&self, size: u64) -> bool {
        size >= self.min_size && self.max_size.is_none_or(|max| size <= max)
    }

    /// Everything but the pattern: depth, and what is ignored.
    fn reaches(&self, relative: &Path) -> bool {
        let mut way = relative
            .ancestors()
            .take_while(|part| !part.as_os_str().is_empty());
        let deep = relative.components().nth(1).is_some();
        (self.recursive || !deep) && !way.any(|part| self.ignores(part))
    }

    fn ignores(&self, path: &Path) -> bool {
        !self.ignore.is_empty() && self.ignore.is_match(path)
    }
}

/// What all rules together look for in one folder.
#[derive(Debug, Default)]
pub struct Wants {
    each: Vec<Wanted>,
    patterns: GlobSet,
}

impl Wants {
    /// Puts the patterns of all rules into one set.
    pub fn new(each: Vec<Wanted>) -> Wants {
        let mut builder = GlobSetBuilder::new();
        for wanted in &each {
            builder.add(wanted.matching.glob().clone());
        }
        // Every pattern was compiled on its own already; a set that cannot be built asks each for itself.
        let patterns = builder.build().unwrap_or_default();
        Wants { each, patterns }
    }

    /// Whether some rule looks for a file with this path, whatever its size.
    pub fn match_path(&self, relative: &Path) -> bool {
        self.any(relative, |wanted| wanted.reaches(relative))
    }

    /// Whether some rule looks for this file at this size.
    pub fn want(&self, relative: &Path, size: u64) -> bool {
        self.any(relative, |wanted| wanted.fits(size) && wanted.reaches(relative))
    }

    /// Whether some rule looks into this folder, given that its parents are looked into.
    pub fn enter(&self, folder: &Path) -> bool {
        self.each.iter().any(|wanted| wanted.enters(folder))
    }

    /// Whether some rule looks into this folder and all folders on the way to it.
    pub fn reach(&self, folder: &Path) -> bool {
        let mut way = folder.ancestors().take_while(|part| !part.as_os_str().is_empty());
        way.all(|part| self.enter(part))
    }

    fn any(&self, relative: &Path, also: impl Fn(&Wanted) -> bool) -> bool {
        if self.patterns.len() != self.each.len() {
            return self
                .each
                .iter()
                .any(|wanted| wanted.matching.is_match(relative) && also(wanted));
        }
        let mut found = Vec::new();
        self.patterns
            .matches_candidate_into(&Candidate::new(relative), &mut found);
        found.into_iter().filter_map(|at| self.each.get(at)).any(also)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use globset::GlobBuilder;

    fn wanted(pattern: &str, ignore: &[&str], recursive: bool) -> Wanted {
        let glob = |pattern: &str| GlobBuilder::new(pattern).literal_separator(true).build().unwrap();
        let ignored: Vec<Glob> = ignore.iter().map(|pattern| glob(pattern)).collect();
        Wanted {
            matching: glob(pattern).compile_matcher(),
            ignore: Ignore::new(&ignored),
            recursive,
            min_size: 2,
            max_size: Some(9),
        }
    }

    #[test]
    fn what_is_left_out_names_its_pattern_and_the_folder_it_lies_in() {
        let ignore = wanted("**/*", &["*.tmp", "old", "x/**/y.csv"], true).ignore;
        let by = |path: &str| {
            ignore
                .by(Path::new(path))
                .map(|(pattern, at)| format!("{pattern} {}", at.display()))
        };
        assert_eq!(by("a/b.tmp").as_deref(), Some("*.tmp a/b.tmp"));
        assert_eq!(by("a/old/b.csv").as_deref(), Some("old a/old"));
        assert_eq!(by("x/z/y.csv").as_deref(), Some("x/**/y.csv x/z/y.csv"));
        assert_eq!(by("a/b.csv"), None);
    }

    #[test]
    fn patterns_reach_as_deep_as_they_say() {
        let flat = Wants::new(vec![wanted("*.csv", &[], false)]);
        assert!(flat.want(Path::new("a.csv"), 5));
        assert!(!flat.want(Path::new("sub/a.csv"), 5));
        assert!(!flat.enter(Path::new("sub")));
        let deep = Wants::new(vec![
            wanted("*.csv", &[], false),
            wanted("**/*.pdf", &["~*", "old"], true),
        ]);
        assert!(deep.want(Path::new("x/y/a.pdf"), 5) && deep.want(Path::new("a.pdf"), 5));
        assert!(!deep.want(Path::new("x/a.csv"), 5));
        assert!(!deep.want(Path::new("x/~a.pdf"), 5));
        assert!(
            !deep.want(Path::new("x/old/a.pdf"), 5),
            "an ignored folder hides what is in it"
        );
        assert!(deep.enter(Path::new("x")) && !deep.enter(Path::new("x/old")));
        assert!(deep.reach(Path::new("x/y")) && !deep.reach(Path::new("old/y")));
    }

    #[test]
    fn sizes_have_bounds_that_belong_to_it() {
        let wants = Wants::new(vec![wanted("*", &[], false)]);
        let sizes: Vec<_> = (0..12).filter(|size| wants.want(Path::new("a"), *size)).collect();
        assert_eq!(sizes, (2..=9).collect::<Vec<_>>());
        assert!(wants.match_path(Path::new("a")));
    }

    #[test]
    fn names_that_are_not_utf_8_match() {
        use std::os::unix::ffi::OsStrExt as _;
        let name = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.csv"));
        assert!(Wants::new(vec![wanted("*.csv", &[], false)]).want(name, 5));
    }
}
