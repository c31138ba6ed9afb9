//! Where a command that only reports leaves its report: found without the whole setup being in order.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where reports go.
pub struct Places {
    /// The database.
    pub store: PathBuf,
    /// The folder of all that is kept.
    pub state: PathBuf,
    /// The folder for events, besides the one in `state`.
    pub events: Option<PathBuf>,
}

/// Only this is read of the settings: a mistake in a rule or an account keeps nothing from being
/// reported.
pub fn places(setup: &Path) -> Result<Places, String> {
    #[derive(Default, Deserialize)]
    struct Written {
        #[serde(default)]
        outbox: Outbox,
        #[serde(default)]
        emitted: Emitted,
    }
    #[derive(Default, Deserialize)]
    struct Outbox {
        store: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Emitted {
        folder: Option<String>,
    }
    let path = setup.join("tidings.yaml");
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    // A file that is no YAML at the moment: the place everybody has who says nothing else.
    let written: Written = serde_saphyr::from_str(&text).unwrap_or_default();
    let store = written
        .outbox
        .store
        .unwrap_or_else(|| "sqlite:state/tidings.db".to_owned());
    let store = setup.join(store.strip_prefix("sqlite:").unwrap_or(&store));
    let state = store.parent().unwrap_or(setup).to_owned();
    let events = written.emitted.folder.map(|folder| setup.join(folder));
    Ok(Places { store, state, events })
}
