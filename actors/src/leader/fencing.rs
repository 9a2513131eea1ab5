//! Has the power of silent hosts cut, when VMs wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use domain::{
    State,
    envelope::Command,
    host::{Evidence, Host, HostCommand, Status},
    id::HostId,
    name::Name,
    setting::Key,
    vm::Desired,
};
use raft_store::{Consistency, Store};
use tokio::{task::JoinHandle, time::Instant};

use crate::root::StaffOptions;

/// A program that cuts the power of a host. It exits with 0 only after it has read it back as off.
#[derive(Clone, Debug)]
pub struct FencingAgent {
    /// The host.
    pub host: Name,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Before an agent that failed is sent again: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A lease that was not renewed for so long is silence, milliseconds.
const BEATS_MISSED_MS: u64 = 1_500;
/// What is kept of what an agent that failed has said.
const SAID_BYTES_MAX: usize = 500;

/// The agents, and what they were sent to last.
pub(super) struct Fencers {
    agents: Arc<[FencingAgent]>,
    /// This node's own hosts: whoever runs this is not off.
    own: BTreeSet<HostId>,
    /// Since when this leader has seen hosts silent: what it has only read of may be long over, as after a
    /// cold start of all.
    silent: BTreeMap<HostId, Instant>,
    sent: BTreeMap<HostId, Sent>,
}

struct Sent {
    work: JoinHandle<()>,
    times: u32,
    at: Instant,
}

impl Fencers {
    pub(super) fn new(options: &StaffOptions) -> Fencers {
        Fencers {
            agents: options.agents.clone(),
            own: options.hosts.iter().map(|host| host.id).collect(),
            silent: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Forgets what it has seen: another node leads.
    pub(super) fn rest(&mut self) {
        self.silent.clear();
        self.sent.clear();
    }

    /// Sends agents to the hosts that need it; does not wait for them.
    pub(super) fn act(&mut self, store: &Store) {
        let (view, followers) = (store.view(), store.status().followers);
        for agent in self.agents.iter() {
            let Some(host) = view.state.host_named(&agent.host) else { continue };
            // A node that answers is not off, whatever holds its host up.
            let answers = followers
                .get(&host.node)
                .and_then(|follower| follower.silent_ms)
                .is_some_and(|silent_ms| silent_ms < BEATS_MISSED_MS);
            if answers || self.own.contains(&host.id) || !is_due(&view.state, host) {
                self.silent.remove(&host.id);
                self.sent.remove(&host.id);
                continue;
            }
            let patience_ms = view.state.setting(Key::FencingAfterMs) - BEATS_MISSED_MS;
            let patience = Duration::from_millis(patience_ms);
            let since = *self.silent.entry(host.id).or_insert_with(Instant::now);
            if since.elapsed() < patience {
                continue;
            }
            let times = match self.sent.get(&host.id) {
                Some(sent) if !sent.work.is_finished() || sent.at.elapsed() < pause(sent.times) => {
                    continue;
                }
                Some(sent) => sent.times.saturating_add(1),
                None => 0,
            };
            let work = tokio::spawn(fence(store.clone(), agent.clone(), Host::clone(host)));
            self.sent.insert(host.id, Sent { work, times, at: Instant::now() });
        }
    }
}

fn pause(times: u32) -> Duration {
    (RETRY_MIN * 2_u32.saturating_pow(times.min(8))).min(RETRY_MAX)
}

/// Whether a host is silent, and somebody waits for it. One that was not heard of in this epoch is left
/// to people.
fn is_due(state: &State, host: &Host) -> bool {
    let silent = match (host.status, state.leases.get(&host.id)) {
        (Status::Lost, _) => true,
        (Status::Ready, Some(lease)) => state.now_ms > lease.at_ms + BEATS_MISSED_MS,
        (Status::Ready, None) => false,
    };
    let known = |evidence: Evidence| evidence > Evidence::Guard;
    silent
        && host.fence.epoch() == state.epoch
        && !host.ended.is_some_and(known)
        && state.instances_on(host.id).any(|body| {
            let wants = state.vms.get(&body.vm).is_some_and(|vm| {
                vm.spec.failover.goes_elsewhere()
                    && matches!(vm.desired, Desired::Running | Desired::Paused)
            });
            let active = state.instance_of(body.vm).is_some_and(|active| active.id == body.id);
            wants && active && !host.ended.is_some_and(|evidence| evidence.covers(body))
        })
}

/// Sends one agent, and tells the cluster when the host is off. What fails is tried again.
async fn fence(store: Store, agent: FencingAgent, host: Host) {
    // A leader that was paused and is none any more must not cut the power of a host that is well.
    let newest = match store.read(Consistency::Linearizable).await {
        Ok(newest) => newest,
        Err(error) => {
            tracing::debug!(%error, "the newest state cannot be read");
            return;
        }
    };
    let still = newest.state.hosts.get(&host.id).filter(|row| row.fence == host.fence);
    if !still.is_some_and(|row| is_due(&newest.state, row)) {
        return;
    }
    tracing::warn!(host = %host.name, program = %agent.program.display(), "a silent host's power is cut");
    if let Err(why) = run(&agent).await {
        tracing::error!(host = %host.name, why, "the fencing agent failed; it is sent again");
        return;
    }
    let command = HostCommand::PoweredOff { host: host.id, boot: host.boot, fence: host.fence };
    match store.propose_as_node(Command::Host(command)).await {
        Ok(_) => tracing::warn!(host = %host.name, "the host is off"),
        Err(error) => {
            tracing::warn!(host = %host.name, %error, "that the host is off was not told");
        }
    }
}

/// Runs an agent to its end.
async fn run(agent: &FencingAgent) -> Result<(), String> {
    let child = tokio::process::Command::new(&agent.program)
        .args(&agent.arguments)
        .env("NOVACRON_HOST", agent.host.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", agent.program.display()))?;
    let ended = tokio::time::timeout(agent.timeout, child.wait_with_output()).await;
    let output = ended
        .map_err(|_| format!("no answer in {:?}", agent.timeout))?
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{}: {}", output.status, domain::limit::clip_to(&said, SAID_BYTES_MAX)))
}
