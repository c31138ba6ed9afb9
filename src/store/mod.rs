//! The store: journal, outbox, seen files, cases, grants. To be written.
