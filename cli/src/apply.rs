//! `apply -f`: makes VMs as a file describes them.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use client::{
    Changes,
    v1::{
        self, make_changes_request::Change, make_changes_response::Answer, vms_client::VmsClient,
    },
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use crate::{
    Session, call,
    output::{Column, at, column, list, wide},
    vm,
};

/// Make VMs as a file describes them.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A file, YAML or JSON, with one or more documents:\n  kind: vm\n  name: web\n  spec:\n    image: tiny\n    vcpus: 2\n    memoryMib: 1024\n    labels: {tier: gold}"
)]
pub struct Apply {
    /// The file; `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    kind: String,
    name: String,
    #[serde(default = "default_project")]
    project: String,
    spec: serde_json::Value,
}

fn default_project() -> String {
    "default".to_owned()
}

impl Apply {
    /// What the file wants, all of it understood.
    fn read(&self) -> Result<Vec<v1::WantedVm>> {
        let text = if self.file.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())?
        } else {
            std::fs::read_to_string(&self.file)
                .with_context(|| format!("cannot read {}", self.file.display()))?
        };
        let manifests: Vec<Manifest> =
            serde_saphyr::from_multiple(&text).context("the file is not understood")?;
        let wanted = manifests.into_iter().map(|manifest| {
            let Manifest { kind, name, project, spec } = manifest;
            if kind != "vm" {
                bail!("kind {kind:?} is not known; use vm");
            }
            let spec: v1::VmSpec = serde_json::from_value(spec)
                .with_context(|| format!("the spec of VM {name} is not understood"))?;
            Ok(v1::WantedVm { project, name, spec: Some(spec) })
        });
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = wanted.iter().find(|vm| !names.insert((&vm.project, &vm.name))) {
            bail!(
                "VM {} of project {} is there twice; which of both is meant?",
                twice.name,
                twice.project
            );
        }
        Ok(wanted)
    }
}

/// Looked at and changed at a time.
const AT_A_TIME: usize = 64;

/// Asks for all of it, many at a time, and waits for all. What fails fails by itself; the first failure is the
/// command's.
pub(crate) async fn run(session: &Session, apply: Apply) -> Result<()> {
    let wanted = apply.read()?;
    let (all, mut differ) = (wanted.len(), Vec::new());
    let planned = planned(session, &wanted).await?;
    for (vm, planned) in wanted.into_iter().zip(planned) {
        if planned.action == "unchanged" {
            eprintln!("VM {}: unchanged", vm.name);
        } else {
            differ.push(vm);
        }
    }
    let changes = session.client.changes();
    let asked = stream::iter(differ).map(|vm| one(session, &changes, vm));
    let asked: Vec<(String, Result<v1::Outcome>)> = asked.buffered(AT_A_TIME).collect().await;
    let mut failed = Vec::new();
    for (what, outcome) in asked {
        let settled = match outcome {
            Ok(outcome) => session.settle(&what, Some(outcome)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            // A file with one VM fails as that does.
            if all > 1 {
                eprintln!("{error:#}");
            }
            failed.push(error);
        }
    }
    let count = failed.len();
    match failed.into_iter().next() {
        None => Ok(()),
        Some(only) if all == 1 => Err(only),
        Some(first) => {
            Err(first.context(format!("{count} of {all} VMs are not as they are to be")))
        }
    }
}

/// Asks for one of them: what that is, in words, and the answer.
async fn one(
    session: &Session,
    changes: &Changes,
    wanted: v1::WantedVm,
) -> (String, Result<v1::Outcome>) {
    let v1::WantedVm { project, name, spec } = wanted;
    let found = match vm::get(session, &project, &name).await {
        Ok(vm) => Some(vm),
        Err(error) if crate::exit_code(&error) == 4 => None,
        Err(error) => return failed(&name, error),
    };
    let mutation = match session.client.mutation().await {
        Ok(mutation) => mutation,
        Err(error) => return failed(&name, error.into()),
    };
    let (what, change) = match found {
        None => {
            let asked =
                v1::CreateVmRequest { mutation, project, name: name.clone(), spec, stopped: false };
            (format!("VM {name} created"), Change::CreateVm(asked))
        }
        Some(vm) => {
            let asked = v1::UpdateVmRequest { mutation, project, vm: vm.id, spec, etag: vm.etag };
            (format!("VM {name} updated"), Change::UpdateVm(asked))
        }
    };
    let outcome = match changes.make(change).await {
        Ok(Answer::Outcome(outcome)) => Ok(outcome),
        Ok(answer) => Err(anyhow::anyhow!("the node answered something else: {answer:?}")),
        Err(error) => return failed(&name, error.into()),
    };
    (what, outcome)
}

fn failed(name: &str, error: anyhow::Error) -> (String, Result<v1::Outcome>) {
    (String::new(), Err(error.context(format!("VM {name}"))))
}

const PLAN_COLUMNS: &[Column] = &[
    column("VM", |row| at(row, "name")),
    wide("PROJECT", |row| at(row, "project")),
    column("ACTION", |row| at(row, "action")),
    column("FIELDS", |row| list(row, "fields")),
    column("TAKES", |row| at(row, "takes")),
    column("HOST", |row| at(row, "host")),
    column("MESSAGE", |row| at(row, "message")),
];

/// What would come of each.
async fn planned(session: &Session, wanted: &[v1::WantedVm]) -> Result<Vec<v1::PlannedVm>> {
    /// As many as one call takes.
    const TOGETHER: usize = 1_000;
    let mut planned = Vec::new();
    for some in wanted.chunks(TOGETHER) {
        let request = v1::PlanVmsRequest { vms: some.to_vec(), freshness: None };
        planned.extend(call!(session, VmsClient<_>, plan_vms, request).await?.vms);
    }
    Ok(planned)
}

/// Shows what `apply` would do. What would be refused is an error.
pub(crate) async fn plan(session: &Session, apply: Apply) -> Result<()> {
    let rows = planned(session, &apply.read()?).await?;
    session.output.rows(&rows, PLAN_COLUMNS)?;
    let refused = rows.iter().filter(|row| row.action == "refused").count();
    if refused > 0 {
        bail!("{refused} of {} would be refused", rows.len());
    }
    Ok(())
}
