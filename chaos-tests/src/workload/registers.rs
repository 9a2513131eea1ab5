//! Registers: labels of VMs that never start. They are read, written, and changed if they hold what they held.
//! Every value is written once. A register is used for a while and then left for a new one: so the search for
//! an order of what was done to it ends.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use client::{
    Client, Error,
    v1::{
        self, images_client::ImagesClient, make_changes_request::Change,
        make_changes_response::Answer, vms_client::VmsClient,
    },
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{HostKind, Load, Way, think};
use crate::history::Process;

pub(crate) const MODEL: &str = "register";
/// How a change is refused that is based on another value.
pub(crate) const NOT_THAT_ONE: &str = "ETAG_MISMATCH";

const IMAGE: &str = "none";
const LABEL: &str = "value";
/// Registers in use at one time.
const IN_USE: usize = 8;
/// What is done to one at most, and of that without an answer.
const STEPS_MAX: usize = 400;
const UNKNOWN_MAX: usize = 16;

/// How long it may take until a VM is there that is not to run.
const MADE_WITHIN: Duration = Duration::from_secs(30);

/// A register in use.
struct Register {
    name: String,
    /// A value that it held, and the revision that wrote it.
    seen: Mutex<(u64, u64)>,
    /// Steps, and those of them without an answer.
    steps: Mutex<(usize, usize)>,
    /// Whether somebody makes the next one.
    replaced: AtomicBool,
}

/// All of them.
pub(crate) struct Registers {
    in_use: Mutex<Vec<Arc<Register>>>,
    left: Mutex<Vec<Arc<Register>>>,
    made: AtomicU64,
    next_value: AtomicU64,
}

impl Registers {
    /// Makes the first ones.
    ///
    /// # Errors
    /// What the cluster answered.
    pub(crate) async fn make(load: &Load) -> Result<Arc<Registers>, Error> {
        let image = v1::CreateImageRequest {
            mutation: load.patient.mutation().await?,
            name: IMAGE.to_owned(),
            ..Default::default()
        };
        let made = load.patient.call(image, async |channel, request| {
            ImagesClient::new(channel).create_image(request).await
        });
        load.patient.note(made.await?.revision);
        let registers = Arc::new(Registers {
            in_use: Mutex::default(),
            left: Mutex::default(),
            made: AtomicU64::new(0),
            next_value: AtomicU64::new(1),
        });
        let mut process = load.history.process(MODEL);
        for _ in 0..IN_USE {
            let register = registers.create(load, &mut process).await?;
            registers.in_use().push(register);
        }
        Ok(registers)
    }

    /// So many clients use them until the load is over.
    pub(crate) fn use_them(
        self: &Arc<Registers>,
        load: &Load,
        clients: u64,
        seed: u64,
    ) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for number in 0..clients {
            let (registers, load) = (self.clone(), load.clone());
            let mut random = fastrand::Rng::with_seed(seed ^ (number << 40));
            all.spawn(async move {
                let mut process = load.history.process(MODEL);
                while !load.is_over() {
                    registers.step(&load, &mut process, &mut random).await;
                    think(&mut random, 5..40).await;
                }
            });
        }
        all
    }

    /// Reads all of them through a node, also those that were left: what comes back belongs to the history like
    /// any other read. It ends with the first one of which nothing comes back.
    ///
    /// # Errors
    /// The name of that one.
    pub(crate) async fn read_all(&self, load: &Load, node: usize) -> Result<(), String> {
        let mut process = load.history.process(MODEL);
        let patient = load.node(node).clone().within(super::PATIENT);
        let all: Vec<_> =
            [&self.in_use, &self.left].iter().flat_map(|all| lock(all).clone()).collect();
        for register in all {
            if !read(&patient, &mut process, &register, "read", None).await {
                return Err(register.name.clone());
            }
        }
        Ok(())
    }

    /// The names of all that there ever were.
    pub(crate) fn names(&self) -> Vec<String> {
        let all = [&self.in_use, &self.left];
        all.iter().flat_map(|all| lock(all).clone()).map(|register| register.name.clone()).collect()
    }

    /// Asks for one, for what is no part of the registers' own history: its value and its etag.
    ///
    /// # Errors
    /// What the cluster answered.
    pub(crate) async fn ask(&self, client: &Client, name: &str) -> Result<(u64, u64), Error> {
        let request = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
        let vm = get(client, request).await?;
        Ok((value(&vm), vm.etag))
    }

    /// Writes one; the answer is the revision.
    ///
    /// # Errors
    /// What the cluster answered.
    pub(crate) async fn write_one(&self, load: &Load) -> Result<u64, Error> {
        let register = self.in_use()[0].clone();
        let mut process = load.history.process(MODEL);
        let value = self.value();
        let call = process.invoke("write", &register.name, json!({ "value": value }));
        let answer =
            change(Way::Call(&load.patient), &register, value, 0).await.map(|(outcome, _)| outcome);
        call.hear(&answer, |outcome| json!({ "etag": outcome.revision }));
        Ok(answer?.revision)
    }

    async fn create(&self, load: &Load, process: &mut Process) -> Result<Arc<Register>, Error> {
        let name = format!("r{}", self.made.fetch_add(1, Ordering::Relaxed));
        let call = process.invoke("create", &name, json!({}));
        let made = create(&load.patient, &name).await;
        call.hear(&made, |made| json!({ "id": made.id, "etag": made.etag }));
        let seen = Mutex::new((0, made?.etag));
        let (steps, replaced) = (Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(Register { name, seen, steps, replaced }))
    }

    async fn step(&self, load: &Load, process: &mut Process, random: &mut fastrand::Rng) {
        let place = random.usize(..IN_USE);
        let register = self.in_use()[place].clone();
        if register.is_spent() {
            // One client makes the next one; the others find it.
            if !register.replaced.swap(true, Ordering::Relaxed) {
                match self.create(load, process).await {
                    Ok(new) => {
                        lock(&self.left).push(std::mem::replace(&mut self.in_use()[place], new));
                    }
                    Err(_) => register.replaced.store(false, Ordering::Relaxed),
                }
            }
            return;
        }
        let client = load.to_read(random);
        let (seen, etag) = *lock(&register.seen);
        let known = match random.u8(..100) {
            0..35 => read(client, process, &register, "read", None).await,
            35..40 => {
                let stale = v1::Freshness { stale: true, ..Default::default() };
                read(client, process, &register, "read-any", Some(stale)).await
            }
            40..45 => {
                let since = v1::Freshness { min_revision: etag, ..Default::default() };
                read(client, process, &register, "read-since", Some(since)).await
            }
            45..50 => {
                let aged = v1::Freshness { max_age_ms: 500, ..Default::default() };
                read(client, process, &register, "read-aged", Some(aged)).await
            }
            50..75 => self.change(load, process, &register, None, random).await,
            _ => self.change(load, process, &register, Some((seen, etag)), random).await,
        };
        register.count(known);
    }

    /// Writes a new value, over any other or over one that was seen. Some requests are sent once more when
    /// they have been answered.
    async fn change(
        &self,
        load: &Load,
        process: &mut Process,
        register: &Register,
        over: Option<(u64, u64)>,
        random: &mut fastrand::Rng,
    ) -> bool {
        let (value, way) = (self.value(), load.way(random));
        let call = match over {
            None => process.invoke("write", &register.name, json!({ "value": value })),
            Some((from, _)) => {
                let asked = json!({ "from": from, "value": value });
                process.invoke("swap", &register.name, asked)
            }
        };
        let etag = over.map_or(0, |(_, etag)| etag);
        let answer = change(way, register, value, etag).await;
        call.hear(&answer, |(outcome, _)| json!({ "etag": outcome.revision }));
        match answer {
            Ok((outcome, request)) => {
                way.client().note(outcome.revision);
                register.note(value, outcome.revision);
                if random.u8(..100) < 20 {
                    let asked = json!({ "etag": outcome.revision });
                    let call = process.invoke("again", &register.name, asked);
                    let again = update(load.way(random), request).await;
                    call.hear(&again, |again| json!({ "etag": again.revision }));
                }
                true
            }
            Err(error) => error.reason() == NOT_THAT_ONE,
        }
    }

    fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    fn in_use(&self) -> MutexGuard<'_, Vec<Arc<Register>>> {
        lock(&self.in_use)
    }
}

impl Register {
    fn is_spent(&self) -> bool {
        let (steps, unknown) = *lock(&self.steps);
        steps >= STEPS_MAX || unknown >= UNKNOWN_MAX
    }

    fn count(&self, known: bool) {
        let mut steps = lock(&self.steps);
        steps.0 += 1;
        steps.1 += usize::from(!known);
    }

    fn note(&self, value: u64, etag: u64) {
        let mut seen = lock(&self.seen);
        if etag > seen.1 {
            *seen = (value, etag);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a register; false when nobody answered.
async fn read(
    client: &Client,
    process: &mut Process,
    register: &Register,
    f: &'static str,
    freshness: Option<v1::Freshness>,
) -> bool {
    let asked = freshness.as_ref().map_or(
        json!({}),
        |freshness| json!({ "since": freshness.min_revision, "age_ms": freshness.max_age_ms }),
    );
    let call = process.invoke(f, &register.name, asked);
    let request = v1::GetVmRequest { vm: register.name.clone(), freshness, ..Default::default() };
    let answer = get(client, request).await;
    call.hear_of(&answer, |vm| json!({ "value": value(vm), "etag": vm.etag }));
    if let Ok(vm) = &answer {
        register.note(value(vm), vm.etag);
    }
    answer.is_ok()
}

pub(super) async fn get(client: &Client, request: v1::GetVmRequest) -> Result<v1::Vm, Error> {
    let got = client
        .call(request, async |channel, request| VmsClient::new(channel).get_vm(request).await);
    got.await
}

fn value(vm: &v1::Vm) -> u64 {
    let label = vm.spec.as_ref().and_then(|spec| spec.labels.get(LABEL)?.parse().ok());
    label.unwrap_or_default()
}

/// Makes a VM, and waits until nothing more happens to it: its etag changes by what is written alone.
pub(super) async fn create(client: &Client, name: &str) -> Result<v1::Vm, Error> {
    let request = v1::CreateVmRequest {
        mutation: client.mutation().await?,
        name: name.to_owned(),
        spec: Some(spec(0)),
        stopped: true,
        ..Default::default()
    };
    let made = client
        .call(request, async |channel, request| VmsClient::new(channel).create_vm(request).await);
    let made = made.await?;
    if !made.operation.is_empty() {
        client.wait(&made.operation, MADE_WITHIN, |_| ()).await?;
    }
    get(client, v1::GetVmRequest { vm: made.object, ..Default::default() }).await
}

async fn change(
    way: Way<'_>,
    register: &Register,
    value: u64,
    etag: u64,
) -> Result<(v1::Outcome, v1::UpdateVmRequest), Error> {
    let request = v1::UpdateVmRequest {
        mutation: way.client().mutation().await?,
        vm: register.name.clone(),
        spec: Some(spec(value)),
        etag,
        ..Default::default()
    };
    Ok((update(way, request.clone()).await?, request))
}

pub(super) async fn update(
    way: Way<'_>,
    request: v1::UpdateVmRequest,
) -> Result<v1::Outcome, Error> {
    match way {
        Way::Call(client) => {
            let done = client.call(request, async |channel, request| {
                VmsClient::new(channel).update_vm(request).await
            });
            done.await
        }
        Way::Stream(_, changes) => match changes.make(Change::UpdateVm(request)).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            other @ (Answer::Lock(_) | Answer::Refusal(_)) => {
                unreachable!("an update was answered with {other:?}")
            }
        },
    }
}

/// A VM that takes next to nothing.
pub(super) fn spec(value: u64) -> v1::VmSpec {
    v1::VmSpec {
        vcpus: 1,
        memory_mib: 16,
        image: IMAGE.to_owned(),
        labels: [(LABEL.to_owned(), value.to_string())].into(),
        placement: Some(HostKind::Simulated.only()),
        ..Default::default()
    }
}
