//! Lists, labels of VMs that never start: elements are only ever appended, by reading the list and writing it back with
//! one more if nobody else has. A list is left for a new one when it is full.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use client::{Client, Error, v1};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Load, registers, think};
use crate::history::Process;

pub(crate) const MODEL: &str = "list";

/// How many labels a VM may have, less the one that registers have.
const ELEMENTS_MAX: usize = 60;

/// The list in use.
pub(crate) struct Lists {
    name: Mutex<String>,
    made: AtomicU64,
    next_element: AtomicU64,
}

impl Lists {
    /// Makes the first one.
    ///
    /// # Errors
    /// What the cluster answered.
    pub(crate) async fn make(load: &Load) -> Result<Arc<Lists>, Error> {
        let lists = Lists {
            name: Mutex::default(),
            made: AtomicU64::new(0),
            next_element: AtomicU64::new(1),
        };
        lists.renew(&load.patient).await?;
        Ok(Arc::new(lists))
    }

    /// So many clients read and append until the load is over.
    pub(crate) fn use_them(self: &Arc<Lists>, load: &Load, clients: u64, seed: u64) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for number in 0..clients {
            let (lists, load) = (self.clone(), load.clone());
            let mut random = fastrand::Rng::with_seed(seed ^ (number << 48));
            all.spawn(async move {
                let mut process = load.history.process(MODEL);
                while !load.is_over() {
                    lists.step(&load, &mut process, &mut random).await;
                    think(&mut random, 50..300).await;
                }
            });
        }
        all
    }

    async fn step(&self, load: &Load, process: &mut Process, random: &mut fastrand::Rng) {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((spec, etag)) = read(load.to_read(random), process, &name).await else { return };
        let count = elements(&spec).len();
        if count >= ELEMENTS_MAX {
            // When it cannot be made just now, the next one who comes does it.
            let _ = self.renew(&load.patient).await;
        } else if random.bool() {
            let element = self.next_element.fetch_add(1, Ordering::Relaxed);
            let mut spec = spec;
            spec.labels.insert(format!("e{count:02}"), element.to_string());
            let way = load.way(random);
            // What is not even sent needs no line.
            let Ok(Some(mutation)) = way.client().mutation().await else { return };
            let asked = json!({ "element": element, "at": count });
            let call = process.invoke("append", &name, asked);
            let request = v1::UpdateVmRequest {
                mutation: Some(mutation),
                vm: name,
                spec: Some(spec),
                etag,
                ..Default::default()
            };
            let answer = registers::update(way, request).await;
            call.hear(&answer, |done| json!({ "etag": done.revision }));
        }
    }

    async fn renew(&self, client: &Client) -> Result<(), Error> {
        let name = format!("l{}", self.made.fetch_add(1, Ordering::Relaxed));
        registers::create(client, &name).await?;
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
        Ok(())
    }
}

async fn read(client: &Client, process: &mut Process, name: &str) -> Option<(v1::VmSpec, u64)> {
    let call = process.invoke("read", name, Value::Null);
    let request = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
    let answer = registers::get(client, request).await;
    let told = |vm: &v1::Vm| json!(elements(&vm.spec.clone().unwrap_or_default()));
    call.hear_of(&answer, told);
    let vm = answer.ok()?;
    Some((vm.spec?, vm.etag))
}

/// The elements, by their places.
fn elements(spec: &v1::VmSpec) -> Vec<u64> {
    let places: BTreeMap<&String, u64> = spec
        .labels
        .iter()
        .filter(|(label, _)| label.starts_with('e'))
        .filter_map(|(label, element)| Some((label, element.parse().ok()?)))
        .collect();
    places.into_values().collect()
}
