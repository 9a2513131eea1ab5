//! `apply -f`: makes VMs as a file describes them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use client::v1::{self, vms_client::VmsClient};
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
        wanted.collect()
    }
}

pub(crate) async fn run(session: &Session, apply: Apply) -> Result<()> {
    for vm in apply.read()? {
        one(session, vm.project, vm.name, vm.spec.unwrap_or_default()).await?;
    }
    Ok(())
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

/// Shows what `apply` would do. What would be refused is an error.
pub(crate) async fn plan(session: &Session, apply: Apply) -> Result<()> {
    let request = v1::PlanVmsRequest { vms: apply.read()?, freshness: None };
    let rows = call!(session, VmsClient<_>, plan_vms, request).await?.vms;
    session.output.rows(&rows, PLAN_COLUMNS)?;
    let refused = rows.iter().filter(|row| row.action == "refused").count();
    if refused > 0 {
        bail!("{refused} of {} would be refused", rows.len());
    }
    Ok(())
}

async fn one(session: &Session, project: String, name: String, spec: v1::VmSpec) -> Result<()> {
    let found = vm::get(session, &project, &name).await;
    let found = match found {
        Ok(vm) => Some(vm),
        Err(error) if crate::exit_code(&error) == 4 => None,
        Err(error) => return Err(error),
    };
    let mutation = session.client.mutation().await?;
    match found {
        None => {
            let what = format!("VM {name} created");
            let spec = Some(spec);
            let request = v1::CreateVmRequest { mutation, project, name, spec, stopped: false };
            let outcome = call!(session, VmsClient<_>, create_vm, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        Some(vm) if vm.spec.as_ref() == Some(&spec) => {
            eprintln!("VM {name}: unchanged");
            Ok(())
        }
        Some(vm) => {
            let what = format!("VM {name} updated");
            let (etag, spec) = (vm.etag, Some(spec));
            let request = v1::UpdateVmRequest { mutation, project, vm: vm.id, spec, etag };
            let outcome = call!(session, VmsClient<_>, update_vm, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}
