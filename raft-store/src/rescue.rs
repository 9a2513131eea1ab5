//! What is done to a data directory while its node does not run: a cluster that has lost its majority
//! for good goes on with one node, and one that is gone begins again from a backup.
//!
//! Both end in the same: a snapshot of the cluster's next epoch whose only member is this node, and a
//! log that begins behind it. The snapshot comes first, so that a crash leaves the one or the other.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use domain::{
    State,
    id::{NodeId, StoreId},
    node::Node,
    state::Anew,
};

use crate::{
    directory::Directory,
    error::DamageError,
    ground,
    machine::Successor,
    recovery,
    snapshot::{self, Header},
    store::{Store, StoreError},
    types::{Ballot, Members, Peer, Position},
    view::View,
    wal::{Journal, Record, Wal, WalOptions},
};

/// A data directory whose node does not run.
pub struct Stopped {
    directory: Directory,
    wal: Box<dyn Journal>,
    view: View,
}

impl Stopped {
    /// Opens the directory of a node, and reads all of its log: the newest entries may have been decided,
    /// though this node was not told.
    ///
    /// # Errors
    /// When the directory is in use, was never in use, or cannot be trusted.
    pub fn open(root: &Path) -> Result<Stopped, StoreError> {
        if !root.join("marker").exists() {
            return Err(StoreError::Raft(format!("{} holds no node", root.display())));
        }
        Stopped::open_as(root, StoreId::default())
    }

    fn open_as(root: &Path, fresh: StoreId) -> Result<Stopped, StoreError> {
        let mut directory = Directory::open(root, fresh)?;
        let wal = Wal::open(&directory.log(), WalOptions::default(), directory.marker.begun)?;
        directory.begin()?;
        let base = recovery::recover(&directory, &wal.index(), true)?;
        let from = base.view.at.map_or(0, |at| at.index + 1);
        let mut successor = Successor::of(base.view);
        let entries: Vec<_> = wal.index().range(from, u64::MAX).cloned().collect();
        for entry in entries {
            let failed = |source| DamageError::io(root)(source);
            successor.take(entry).map_err(failed)?;
        }
        Ok(Stopped { directory, wal: Box::new(wal), view: successor.view() })
    }

    /// What it knows.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.view.state
    }

    /// The members of the group.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.view.members.peers.keys().copied().collect()
    }

    /// Has the cluster go on with `node` alone, which is one of its nodes, at its next epoch.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub async fn go_on_alone(self, node: Node) -> Result<State, StoreError> {
        let epoch = self.view.state.epoch.saturating_add(1);
        let anew = Anew { node: node.clone(), epoch, credentials: Vec::new(), tokens: Vec::new() };
        let state = self.view.state.alone(anew, ground::wall_ms());
        self.begin_with(state, &node).await
    }

    async fn begin_with(self, state: State, node: &Node) -> Result<State, StoreError> {
        let (ballot, last) = {
            let log = self.wal.index();
            (log.ballot, log.last())
        };
        // Later than anything that anybody may have written or voted for in the epoch before.
        let term = ballot.map_or(0, |ballot| ballot.term).max(last.map_or(0, |last| last.term));
        let index = state.index.max(last.map_or(0, |last| last.index)) + 1;
        let at = Position { term: term + 1, node: node.id, index };
        let state = state.skip(index);
        let peer = Peer { address: node.peer_address.clone() };
        let members = Members { voters: vec![[node.id].into()], peers: [(node.id, peer)].into() };
        let header = Header { at: Some(at), members, members_at: Some(at) };
        snapshot::write(&self.directory.snapshots(), header, &state)?;
        let ballot = Ballot { term: at.term, node: node.id, committed: false };
        let records = vec![Record::Ballot(ballot), Record::Purge(at), Record::Committed(at)];
        let written = self.wal.write_durably(records).await;
        written.map_err(DamageError::io(&self.directory.log()))?;
        self.wal.close();
        Ok(state)
    }
}

/// Fills the data directory of a node that is being set up with a backup: the cluster goes on from
/// there, with this node alone, at its next epoch. The node's id is the index after the backup's, as if
/// it had joined there: ids are never given twice.
///
/// # Errors
/// When the directory was in use or cannot be written.
pub async fn restore(root: &Path, saved: &State, anew: Anew) -> Result<State, StoreError> {
    let node = anew.node.clone();
    let stopped = Stopped::open_as(root, node.store)?;
    if stopped.view.at.is_some() {
        return Err(StoreError::Raft(format!("{} holds a node already", root.display())));
    }
    let state = saved.skip(node.id).alone(anew, ground::wall_ms());
    stopped.begin_with(state, &node).await
}

/// Reads a backup, all of it.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_backup(file: &Path) -> Result<State, DamageError> {
    snapshot::read(file).map(|(_, state)| state)
}

impl Store {
    /// Writes a view into a directory of its own as a backup, and reads it back. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written, or is not what was written.
    pub fn back_up(view: &View, directory: &Path) -> Result<PathBuf, DamageError> {
        let header =
            Header { at: view.at, members: view.members.clone(), members_at: view.members_at };
        let file = snapshot::write(directory, header, &view.state)?;
        let state = read_backup(&file.path)?;
        if state != view.state {
            let what = "it is not what was written".to_owned();
            return Err(DamageError::Damaged { file: file.path, offset: 0, what });
        }
        Ok(file.path)
    }
}
