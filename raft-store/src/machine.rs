//! The state machine: applies entries, publishes views, makes and takes snapshots.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use domain::{
    Applier, State,
    cluster::{ClusterCommand, PROTOCOL_VERSION},
    codec,
    envelope::{Command, Envelope},
};
use futures_util::{Stream, TryStreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use crate::{
    ground::Aside,
    is_broken, metrics,
    snapshot::{self, Header, SnapshotFile},
    types::{
        Answer, LogEntry, LogId, Members, Payload, Position, SnapshotMeta, StoredMembership,
        TypeConfig,
    },
    view::View,
};

/// What openraft hands around as a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotContent {
    pub(crate) file: SnapshotFile,
    /// The state in it, where it was read already.
    pub(crate) state: Option<Arc<State>>,
}

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotContent>;

/// The newest snapshot; shared with builders, which run beside the machine.
type Current = Arc<Mutex<Option<SnapshotFile>>>;

/// The state machine of one node.
pub struct Machine {
    views: watch::Sender<Arc<View>>,
    directory: PathBuf,
    current: Current,
    aside: Aside,
}

impl Machine {
    /// Begins with `view`; snapshots go to `directory`.
    pub(crate) fn new(
        view: View,
        current: Option<SnapshotFile>,
        directory: PathBuf,
        aside: Aside,
    ) -> (Machine, watch::Receiver<Arc<View>>) {
        let (views, receiver) = watch::channel(Arc::new(view));
        let current = Arc::new(Mutex::new(current));
        (Machine { views, directory, current, aside }, receiver)
    }
}

/// A view that takes entries in.
pub(crate) struct Successor {
    applier: Applier,
    at: Option<Position>,
    members: Members,
    members_at: Option<Position>,
}

impl Successor {
    /// Of `view`.
    pub(crate) fn of(view: View) -> Successor {
        let View { state, at, members, members_at } = view;
        Successor { applier: Applier::new(state), at, members, members_at }
    }

    /// Takes in the next entry.
    pub(crate) fn take(&mut self, entry: LogEntry) -> io::Result<Answer> {
        let index = entry.at.index;
        let answer = match entry.payload {
            Payload::Blank => {
                self.applier.skip(index);
                Answer(None)
            }
            Payload::Members(members) => {
                self.applier.skip(index);
                self.members = members;
                self.members_at = Some(entry.at);
                Answer(None)
            }
            Payload::Proposal(bytes) => {
                let envelope = decode(self.applier.state(), index, &bytes)?;
                Answer(Some(self.applier.apply(index, envelope)))
            }
        };
        self.at = Some(entry.at);
        Ok(answer)
    }

    /// The view after the last one.
    pub(crate) fn view(self) -> View {
        let Successor { applier, at, members, members_at } = self;
        View { state: applier.finish(), at, members, members_at }
    }
}

/// What is proposed, unless this node must not go on.
fn decode(state: &State, index: u64, bytes: &Bytes) -> io::Result<Envelope> {
    let envelope: Envelope = codec::decode(bytes).map_err(|error| {
        let message = format!(
            "entry {index}: {error}; this program is older than the one that wrote it, or the \
             entry is damaged: it stops before it applies what it does not know"
        );
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    if let Some(to) = begins(state, &envelope.command)
        && to > PROTOCOL_VERSION
    {
        let message = format!(
            "entry {index}: from here on the cluster speaks protocol {to} and this program understands \
             {PROTOCOL_VERSION}; install the newer program"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    if let Command::Cluster(ClusterCommand::Tick(mark)) = &envelope.command
        && mark.index == state.mark.index
        && mark.chain != state.mark.chain
    {
        let message = format!(
            "this node's state differs from the leader's at entry {}: it has diverged and must \
             not serve; run `novacron node reset` and join again, and report it",
            mark.index
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(envelope)
}

/// The protocol that is in force after a command, if that is another one.
fn begins(state: &State, command: &Command) -> Option<u32> {
    let Command::Cluster(command) = command else { return None };
    match command {
        ClusterCommand::Found(founding) => Some(founding.protocol_version),
        // What the law refuses changes nothing.
        ClusterCommand::Raise { to } => Some(*to).filter(|to| *to <= state.protocol_common()),
        ClusterCommand::Tick(_) => None,
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let view = self.views.borrow().clone();
        Ok((view.at.map(Into::into), membership(&view)?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut next_view = Successor::of(View::clone(&self.views.borrow()));
        let mut answers = Vec::new();
        while let Some((mut entry, responder)) = entries.try_next().await? {
            let mut next = None;
            // Not before there is a cluster.
            if entry.log_id.index > 300 && is_broken("apply-out-of-order") {
                next = entries.try_next().await?;
                if let Some((next, _)) = &mut next {
                    std::mem::swap(&mut entry.payload, &mut next.payload);
                }
            }
            for (entry, responder) in [(entry, responder)].into_iter().chain(next) {
                let answer = next_view.take(LogEntry::of(entry))?;
                answers.extend(responder.map(|responder| (responder, answer)));
            }
        }
        let view = next_view.view();
        debug_check(&view.state);
        // Published before it is answered: whoever was answered reads what it wrote.
        self.views.send_replace(Arc::new(view));
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            view: self.views.borrow().clone(),
            directory: self.directory.clone(),
            current: self.current.clone(),
            aside: self.aside,
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotContent,
    ) -> io::Result<()> {
        let begun = std::time::Instant::now();
        let directory = self.directory.clone();
        let installed = self.aside.run(move || {
            let (file, state) = match snapshot.state {
                Some(state) => (snapshot.file, state),
                None => {
                    let (file, state) = snapshot::read(&snapshot.file.path)?;
                    (file, Arc::new(state))
                }
            };
            let file = snapshot::adopt(&directory, &file.path, file.header)?;
            Ok::<_, crate::DamageError>((file, state))
        });
        let (file, state) = installed.await?.map_err(io::Error::other)?;
        metrics::SNAPSHOT.of(["installed"]).record(begun.elapsed().as_secs_f64());
        let header = file.header.clone();
        if header.at.map(LogId::from) != meta.last_log_id {
            return Err(io::Error::other("the snapshot is not the one that was announced"));
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.views.send_replace(Arc::new(View {
            state: Arc::unwrap_or_clone(state),
            at: header.at,
            members: header.members,
            members_at: header.members_at,
        }));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        current.map(announce).transpose()
    }
}

/// Makes snapshots of one view.
pub struct Builder {
    view: Arc<View>,
    directory: PathBuf,
    current: Current,
    aside: Aside,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotContent;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let begun = std::time::Instant::now();
        let (view, directory) = (self.view.clone(), self.directory.clone());
        let written = self.aside.run_yielding(move || {
            let header =
                Header { at: view.at, members: view.members.clone(), members_at: view.members_at };
            snapshot::write(&directory, header, &view.state)
        });
        let file = written.await?.map_err(io::Error::other)?;
        metrics::SNAPSHOT.of(["built"]).record(begun.elapsed().as_secs_f64());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A newer one may have been installed meanwhile.
        if current.as_ref().is_none_or(|current| current.header.at <= file.header.at) {
            *current = Some(file.clone());
        }
        announce(file)
    }
}

fn announce(file: SnapshotFile) -> io::Result<Snapshot> {
    let header = file.header.clone();
    let membership = openraft::Membership::try_from(header.members)?;
    let meta = SnapshotMeta {
        last_log_id: header.at.map(Into::into),
        last_membership: StoredMembership::new(header.members_at.map(Into::into), membership),
    };
    Ok(Snapshot { meta, snapshot: SnapshotContent { file, state: None } })
}

fn membership(view: &View) -> io::Result<StoredMembership> {
    let membership = openraft::Membership::try_from(view.members.clone())?;
    Ok(StoredMembership::new(view.members_at.map(Into::into), membership))
}

/// Debug builds check every invariant now and then while that is cheap; the law's own tests do at each step.
fn debug_check(state: &State) {
    const ROWS_MAX: usize = 500;
    const EVERY: u64 = 16;
    let rows = state.vms.len() + state.events.len();
    if cfg!(debug_assertions) && rows < ROWS_MAX && state.index.is_multiple_of(EVERY) {
        let broken = domain::invariant::check(state).err();
        debug_assert!(broken.is_none(), "{broken:?}");
    }
}
