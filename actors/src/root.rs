//! The root of the supervision tree.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use raft_store::Store;

use crate::{
    beat::Beat,
    chronicle::{self, Chronicle},
    files::ImageFiles,
    health::Health,
    host::{self, HostActor, LocalHost},
    keeper::Keeper,
    leader::{self, FencingAgent, Leader, Receiver},
    metrics,
    monitor::{Measuring, Monitor},
    reporter::{self, Reporter},
    routine::{Routine, Turn},
    supervision::Failures,
};

/// What a node's staff works with.
#[derive(Clone)]
pub struct StaffOptions {
    /// The state.
    pub store: Store,
    /// The hosts this node drives.
    pub hosts: Vec<Arc<LocalHost>>,
    /// What cuts the power of hosts, of this node and of others.
    pub agents: Arc<[FencingAgent]>,
    /// Who is told of alerts. The leading node tells them.
    pub receivers: Arc<[Receiver]>,
    /// When this node's certificate expires, Unix milliseconds; 0 when that cannot be read.
    pub certificate_until_wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What this node has measured of its hosts.
    pub monitor: Arc<Monitor>,
    /// This node's copies of images.
    pub images: Arc<ImageFiles>,
    /// The data directory, whose disk is watched.
    pub directory: std::path::PathBuf,
    /// What this node says of itself.
    pub peer_address: String,
    /// See [`StaffOptions::peer_address`].
    pub api_address: String,
    /// Bodies of one host that are worked on at one time.
    pub parallel: usize,
}

/// The running staff.
pub struct Staff {
    root: ActorRef<Message>,
    ended: tokio::task::JoinHandle<()>,
}

impl Staff {
    /// Starts everybody.
    ///
    /// # Errors
    /// When the root itself cannot start.
    pub async fn start(options: StaffOptions) -> Result<Staff, String> {
        let spawned = Actor::spawn(None, Root, Arc::new(options)).await;
        let (root, ended) = spawned.map_err(|error| error.to_string())?;
        Ok(Staff { root, ended })
    }

    /// Ends everybody. What was under way is found again in the state.
    pub async fn stop(self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.root.stop(None);
        let _ = tokio::time::timeout(PATIENCE, self.ended).await;
    }

    /// The names of those who are at work: `leader`, `beat`, `host-NAME`.
    pub async fn names(&self) -> Vec<String> {
        let names = ractor::call_t!(self.root, Message::Names, 5_000);
        names.unwrap_or_default()
    }

    /// Kills an actor in the middle of what it does, as a bug would; its supervisor starts it
    /// again. For tests. The answer is whether there was one of that name.
    pub async fn kill(&self, name: &str) -> bool {
        ractor::call_t!(self.root, Message::Kill, 5_000, name.to_owned()).unwrap_or(false)
    }
}

pub(crate) enum Message {
    /// Start this child, if it is not there.
    Start(Role),
    Names(RpcReplyPort<Vec<String>>),
    Kill(String, RpcReplyPort<bool>),
}

/// Who works under the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Reporter,
    Leader,
    Beat,
    Health,
    Keeper,
    Monitor,
    Chronicle,
    /// The host of this number.
    Host(usize),
}

impl Role {
    /// What it is called in metrics: hosts together.
    const fn kind(self) -> &'static str {
        match self {
            Role::Reporter => reporter::NAME,
            Role::Leader => leader::NAME,
            Role::Beat => Beat::NAME,
            Role::Health => Health::NAME,
            Role::Keeper => Keeper::NAME,
            Role::Monitor => Measuring::NAME,
            Role::Chronicle => chronicle::NAME,
            Role::Host(_) => host::NAME,
        }
    }
}

struct Root;

struct RootState {
    options: Arc<StaffOptions>,
    children: BTreeMap<Role, ActorCell>,
    failures: BTreeMap<Role, Failures>,
    reporter: Reporter,
}

impl RootState {
    fn name(&self, role: Role) -> String {
        match role {
            Role::Host(number) => match self.options.hosts.get(number) {
                Some(host) => format!("host-{}", host.name),
                None => format!("host-{number}"),
            },
            Role::Reporter
            | Role::Leader
            | Role::Beat
            | Role::Health
            | Role::Keeper
            | Role::Monitor
            | Role::Chronicle => role.kind().to_owned(),
        }
    }

    async fn start(&mut self, me: &ActorRef<Message>, role: Role) -> Result<(), String> {
        let (options, supervisor) = (self.options.clone(), me.get_cell());
        let reporter = self.reporter.clone();
        let child = match role {
            Role::Reporter => reporter.start(supervisor).await,
            Role::Leader => Leader::start(options, supervisor).await,
            Role::Beat => Routine::<Beat>::start(options, supervisor).await,
            Role::Health => Routine::<Health>::start(options, supervisor).await,
            Role::Keeper => Routine::<Keeper>::start(options, supervisor).await,
            Role::Monitor => Routine::<Measuring>::start(options, supervisor).await,
            Role::Chronicle => Chronicle::start(options, supervisor).await,
            Role::Host(number) => HostActor::start(options, number, reporter, supervisor).await,
        };
        self.children.insert(role, child?);
        Ok(())
    }

    fn again(&mut self, me: &ActorRef<Message>, role: Role, why: &str) {
        metrics::failed(role.kind());
        let pause = self.failures.entry(role).or_default().note();
        let name = self.name(role);
        tracing::warn!(
            actor = name,
            why,
            pause_ms = pause.as_millis(),
            "an actor is started again"
        );
        me.send_after(pause, move || Message::Start(role));
    }
}

impl Actor for Root {
    type Msg = Message;
    type State = RootState;
    type Arguments = Arc<StaffOptions>;

    async fn pre_start(
        &self,
        me: ActorRef<Message>,
        options: Arc<StaffOptions>,
    ) -> Result<RootState, ActorProcessingErr> {
        let hosts = (0..options.hosts.len()).map(Role::Host);
        let own = [
            Role::Reporter,
            Role::Leader,
            Role::Beat,
            Role::Health,
            Role::Keeper,
            Role::Monitor,
            Role::Chronicle,
        ];
        for role in own.into_iter().chain(hosts) {
            me.cast(Message::Start(role))?;
        }
        let reporter = Reporter::new(options.store.clone());
        let (children, failures) = (BTreeMap::new(), BTreeMap::new());
        Ok(RootState { options, children, failures, reporter })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Start(role) => {
                if !state.children.contains_key(&role)
                    && let Err(why) = state.start(&me, role).await
                {
                    state.again(&me, role, &why);
                }
            }
            Message::Names(reply) => {
                let names = state.children.keys().map(|role| state.name(*role)).collect();
                let _ = reply.send(names);
            }
            Message::Kill(name, reply) => {
                let child = state.children.iter().find(|(role, _)| state.name(**role) == name);
                if let Some((_, child)) = child {
                    child.kill();
                }
                let _ = reply.send(child.is_some());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        let (child, why) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child, error.to_string()),
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                (child, reason.unwrap_or_else(|| "it ended".to_owned()))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        let role = state.children.iter().find(|(_, known)| known.get_id() == child.get_id());
        if let Some(role) = role.map(|(role, _)| *role) {
            state.children.remove(&role);
            state.again(&me, role, &why);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        me: ActorRef<Message>,
        _: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        me.stop_children_and_wait(None, Some(Duration::from_secs(5))).await;
        Ok(())
    }
}
