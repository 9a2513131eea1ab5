//! Lives of VMs, on simulated and on real hosts: each is made by a client, then started, stopped, moved and deleted by
//! the same one, one thing after the other. Some requests are sent once more when they have been answered.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use client::{
    Client, Error,
    v1::{self, vms_client::VmsClient},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{GUEST, HostKind, Load, registers, think};
use crate::history::Process;

pub(crate) const MODEL: &str = "life";

/// What is done to one at most, before it is deleted or, now and then, left as it is.
const STEPS_MAX: u8 = 6;
/// How long what cannot be done just now is asked again, under the same request id.
const PERSISTS: Duration = Duration::from_secs(20);
/// VMs that are made anew elsewhere when their host is lost; the others wait for it.
const GO_ELSEWHERE_PERCENT: u8 = 70;
/// VMs that run from the beginning.
const RUN_PERCENT: u8 = 75;
/// What is done to a VM is to move it.
const MOVE_PERCENT: u8 = 40;
/// Of a page.
const PAGE: u32 = 500;
/// How long VMs may take to become what they are to be.
const SETTLE: Duration = Duration::from_secs(60);
/// A guest that crashed so often waits for half a minute and more before it starts again, for five minutes in the end.
const CRASHED_OFTEN: u32 = 6;
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(500);

/// What is asked of a VM.
#[derive(Clone)]
enum Ask {
    Create(Box<v1::CreateVmRequest>),
    Start(v1::VmActionRequest),
    Stop(v1::StopVmRequest),
    Migrate(v1::MigrateVmRequest),
    Delete(v1::DeleteVmRequest),
}

/// All lives.
#[derive(Default)]
pub(crate) struct Lives {
    begun: AtomicU64,
}

impl HostKind {
    /// VMs that are left as they are: they take room on the hosts to the end of a run.
    fn left_percent(self) -> u8 {
        match self {
            HostKind::Simulated => 30,
            HostKind::Real => 0,
        }
    }

    /// Between two things that are done to a VM. What is done to real ones is more work for this machine.
    fn pause_ms(self) -> Range<u64> {
        match self {
            HostKind::Simulated => 100..3_000,
            HostKind::Real => 2_000..6_000,
        }
    }

    fn spec(self, random: &mut fastrand::Rng) -> v1::VmSpec {
        match self {
            HostKind::Simulated => {
                let elsewhere = random.u8(..100) < GO_ELSEWHERE_PERCENT;
                let failover = if elsewhere { "rebuild" } else { "stay" }.to_owned();
                v1::VmSpec { failover, ..registers::spec(0) }
            }
            // Nothing tells the cluster for certain that a real host's guests have ended.
            HostKind::Real => v1::VmSpec {
                vcpus: 1,
                memory_mib: 16,
                image: GUEST.to_owned(),
                placement: Some(HostKind::Real.only()),
                ..Default::default()
            },
        }
    }
}

impl Lives {
    /// So many clients lead VMs through their lives until the load is over.
    pub(crate) fn lead(
        self: &Arc<Lives>,
        load: &Load,
        kind: HostKind,
        clients: u64,
        seed: u64,
    ) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for number in 0..clients {
            let (lives, load) = (self.clone(), load.clone());
            let mut random = fastrand::Rng::with_seed(seed ^ (number << 24) ^ kind as u64);
            all.spawn(async move {
                let mut process = load.history.process(MODEL);
                while !load.is_over() {
                    let name = format!("v{}", lives.begun.fetch_add(1, Ordering::Relaxed));
                    live(&load, kind, &mut process, &name, &mut random).await;
                    think(&mut random, 50..500).await;
                }
            });
        }
        all
    }

    /// Looks at what has become of them all, when nothing more is about to: it belongs to the history. The error is
    /// that they do not come to rest.
    pub(crate) async fn look(&self, load: &Load) -> Result<(), String> {
        let begun = Instant::now();
        let (all, resting) = loop {
            let all = list(&load.patient).await.map_err(|error| error.to_string())?;
            let rests = |vm: &&v1::Vm| match vm.phase.as_str() {
                "running" | "stopped" => vm.operation.is_empty(),
                "restarting" => vm.restarts >= CRASHED_OFTEN,
                _ => false,
            };
            let restless = all.values().find(|vm| !rests(vm));
            let told = restless.map(|vm| format!("{} is {}: {}", vm.name, vm.phase, vm.message));
            match told {
                None => break (all, Ok(())),
                told if begun.elapsed() > SETTLE => break (all, Err(told.unwrap_or_default())),
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        let mut process = load.history.process(MODEL);
        for number in 0..self.begun.load(Ordering::Relaxed) {
            let name = format!("v{number}");
            let found = all.get(&name).map(|vm| json!({ "id": vm.id, "phase": vm.phase }));
            let call = process.invoke("found", &name, Value::Null);
            call.ok(found.unwrap_or_else(|| json!({})));
        }
        resting
    }
}

/// The VMs that live, by their names.
async fn list(client: &Client) -> Result<BTreeMap<String, v1::Vm>, Error> {
    let mut all = BTreeMap::new();
    let mut page = v1::Page { page_size: PAGE, ..Default::default() };
    loop {
        let request = v1::ListVmsRequest { page: Some(page.clone()), ..Default::default() };
        let listed = client
            .call(request, async |channel, request| VmsClient::new(channel).list_vms(request).await)
            .await?;
        let ours = listed.vms.into_iter().filter(|vm| vm.name.starts_with('v'));
        all.extend(ours.map(|vm| (vm.name.clone(), vm)));
        if listed.next_page_token.is_empty() {
            return Ok(all);
        }
        page.page_token = listed.next_page_token;
    }
}

/// A life, until something is not known or there is enough of it.
async fn live(
    load: &Load,
    kind: HostKind,
    process: &mut Process,
    name: &str,
    random: &mut fastrand::Rng,
) {
    let mut runs = random.u8(..100) < RUN_PERCENT;
    let asked = json!({ "runs": runs });
    let stopped = !runs;
    let spec = kind.spec(random);
    let create = |mutation| {
        Ask::Create(Box::new(v1::CreateVmRequest {
            mutation: Some(mutation),
            name: name.to_owned(),
            spec: Some(spec),
            stopped,
            ..Default::default()
        }))
    };
    if !act(load, process, "create", name, asked, create, random).await {
        return;
    }
    for _ in 0..random.u8(..STEPS_MAX) {
        think(random, kind.pause_ms()).await;
        if load.is_over() {
            return;
        }
        let vm = name.to_owned();
        if random.u8(..100) < MOVE_PERCENT {
            let migrate = |mutation| {
                let mutation = Some(mutation);
                Ask::Migrate(v1::MigrateVmRequest { mutation, vm, ..Default::default() })
            };
            // There may be nowhere to go just now.
            act(load, process, "migrate", name, Value::Null, migrate, random).await;
            continue;
        }
        let done = if runs {
            let stop = |mutation| {
                let mutation = Some(mutation);
                Ask::Stop(v1::StopVmRequest { mutation, vm, force: true, ..Default::default() })
            };
            act(load, process, "stop", name, Value::Null, stop, random).await
        } else {
            let start = |mutation| {
                let mutation = Some(mutation);
                Ask::Start(v1::VmActionRequest { mutation, vm, ..Default::default() })
            };
            act(load, process, "start", name, Value::Null, start, random).await
        };
        if !done {
            // Of real ones none is left: they would fill their hosts.
            if kind.left_percent() == 0 {
                break;
            }
            return;
        }
        runs = !runs;
    }
    // What there is in the end is left to be looked at.
    if !load.is_over() && random.u8(..100) >= kind.left_percent() {
        let delete = |mutation| {
            let (mutation, vm) = (Some(mutation), name.to_owned());
            Ask::Delete(v1::DeleteVmRequest { mutation, vm, ..Default::default() })
        };
        act(load, process, "delete", name, Value::Null, delete, random).await;
    }
}

/// Asks for something, some of it once more under the same request id; whether it was done.
async fn act(
    load: &Load,
    process: &mut Process,
    f: &'static str,
    name: &str,
    asked: Value,
    ask: impl FnOnce(v1::Mutation) -> Ask,
    random: &mut fastrand::Rng,
) -> bool {
    let client = load.to_change(random);
    // What is not even sent needs no line.
    let Ok(Some(mutation)) = client.mutation().await else { return false };
    let ask = ask(mutation);
    let call = process.invoke(f, name, asked);
    let begun = Instant::now();
    let answer = loop {
        let answer = send(client, ask.clone()).await;
        let passes = matches!(&answer, Err(error) if passes(error));
        if !passes || load.is_over() || begun.elapsed() > PERSISTS {
            break answer;
        }
        think(random, 100..500).await;
    };
    let told = |done: &v1::Outcome| json!({ "id": done.object, "etag": done.revision });
    call.hear(&answer, told);
    let Ok(done) = answer else { return false };
    client.note(done.revision);
    if random.u8(..100) < 20 {
        let call = process.invoke("again", name, json!({ "etag": done.revision }));
        call.hear(&send(load.to_change(random), ask).await, told);
    }
    true
}

/// Whether a refusal is of this moment: something else is being done to the VM, or a disk is full.
fn passes(error: &Error) -> bool {
    matches!(error.reason().as_str(), "VM_BUSY" | "DISK_FULL")
}

async fn send(client: &Client, ask: Ask) -> Result<v1::Outcome, Error> {
    match ask {
        Ask::Create(request) => {
            let call = client.call(*request, async |channel, request| {
                VmsClient::new(channel).create_vm(request).await
            });
            call.await
        }
        Ask::Start(request) => {
            let call = client.call(request, async |channel, request| {
                VmsClient::new(channel).start_vm(request).await
            });
            call.await
        }
        Ask::Stop(request) => {
            let call = client.call(request, async |channel, request| {
                VmsClient::new(channel).stop_vm(request).await
            });
            call.await
        }
        Ask::Migrate(request) => {
            let call = client.call(request, async |channel, request| {
                VmsClient::new(channel).migrate_vm(request).await
            });
            call.await
        }
        Ask::Delete(request) => {
            let call = client.call(request, async |channel, request| {
                VmsClient::new(channel).delete_vm(request).await
            });
            call.await
        }
    }
}
