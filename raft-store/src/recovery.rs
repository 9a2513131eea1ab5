//! What a node begins with: the newest state that can be trusted, and the log behind it.

use std::path::Path;

use crate::{
    copy,
    directory::Directory,
    error::DamageError,
    snapshot::{self, SnapshotFile},
    types::Position,
    view::View,
    wal::Index,
};

/// A state to begin with.
pub(crate) struct Base {
    pub(crate) view: View,
    /// The newest whole snapshot.
    pub(crate) snapshot: Option<SnapshotFile>,
    /// The view that the copy in sled holds, when it may be continued.
    pub(crate) copy: Option<View>,
}

/// Chooses among snapshots and, unless it is to be left alone, the copy. The log from there on is
/// applied by openraft.
///
/// # Errors
/// When nothing that can be trusted reaches the log.
pub(crate) fn recover(
    directory: &Directory,
    log: &Index,
    with_copy: bool,
) -> Result<Base, DamageError> {
    remove_unfinished(&directory.snapshots())?;
    let (snapshot, damage) = newest_snapshot(&directory.snapshots())?;
    let copy = if with_copy { copy::load(&directory.copy()) } else { Err(copy::CopyError::Absent) };
    let copy = match copy {
        Ok(view) if fits(view.at, log) => Some(view),
        Ok(_) => {
            tracing::warn!("the copy of the state does not fit the log; it is made again");
            None
        }
        Err(copy::CopyError::Absent) => None,
        Err(error) => {
            tracing::warn!(%error, "the copy of the state is not usable; it is made again");
            None
        }
    };
    let (file, from_snapshot) = snapshot.unzip();
    let view = match (&copy, from_snapshot) {
        (Some(copy), Some(snapshot)) if copy.at >= snapshot.at => copy.clone(),
        (_, Some(snapshot)) => snapshot,
        (Some(copy), None) => copy.clone(),
        (None, None) => View::default(),
    };
    if view.at.map(|at| at.index) < log.purged.map(|purged| purged.index) {
        return Err(damage.unwrap_or_else(|| DamageError::Inconsistent {
            directory: directory.root().to_owned(),
            what: "no snapshot reaches the log".to_owned(),
        }));
    }
    // A snapshot from before the log's beginning is of no use to a peer; Raft then makes a new one.
    let reaches = |file: &SnapshotFile| {
        file.header.at.map(|at| at.index) >= log.purged.map(|purged| purged.index)
    };
    Ok(Base { view, snapshot: file.filter(reaches), copy })
}

/// Whether a state that ends at `at` may be continued by the log: the log must know that entry.
/// A copy that is ahead of the log is not used: what it holds was not on this node's disk yet.
fn fits(at: Option<Position>, log: &Index) -> bool {
    let Some(at) = at else { return log.last().is_none() };
    log.purged == Some(at) || log.range(at.index, at.index + 1).any(|entry| entry.at == at)
}

type Read = (SnapshotFile, View);

/// The newest snapshot that is whole, and what is wrong with a newer one. A damaged one is put
/// aside, for a person to look at.
fn newest_snapshot(directory: &Path) -> Result<(Option<Read>, Option<DamageError>), DamageError> {
    let mut damage = None;
    for path in snapshot::list(directory)?.into_iter().rev() {
        match snapshot::read(&path) {
            Ok((file, state)) => {
                let header = file.header.clone();
                let view = View {
                    state,
                    at: header.at,
                    members: header.members,
                    members_at: header.members_at,
                };
                return Ok((Some((file, view)), damage));
            }
            Err(error @ DamageError::Damaged { .. }) => {
                tracing::error!(%error, "a snapshot is put aside");
                let aside = path.with_extension("damaged");
                std::fs::rename(&path, &aside).map_err(DamageError::io(&path))?;
                damage.get_or_insert(error);
            }
            // It may be whole: what hindered the reading is to be mended first.
            Err(other) => return Err(other),
        }
    }
    Ok((None, damage))
}

/// Removes what a crash left half written.
fn remove_unfinished(directory: &Path) -> Result<(), DamageError> {
    for file in std::fs::read_dir(directory).map_err(DamageError::io(directory))? {
        let path = file.map_err(DamageError::io(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            std::fs::remove_file(&path).map_err(DamageError::io(&path))?;
        }
    }
    Ok(())
}
