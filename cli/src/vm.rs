//! VMs.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use client::v1::{self, operations_client::OperationsClient, vms_client::VmsClient};

use crate::{
    Session, all_pages, call, console,
    exit::Exit,
    metrics,
    output::{Column, at, bytes, column, number, plain, wide},
    spec::SpecFlags,
};

/// Which project.
#[derive(Clone, Debug, Args)]
pub struct Project {
    /// The project.
    #[arg(short, long, env = "NOVACRON_PROJECT", default_value = "default", value_name = "NAME")]
    pub(crate) project: String,
}

/// Which VMs: by name, or by what they have in common.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Names or ids.
    #[arg(value_name = "VM")]
    names: Vec<String>,
    /// All that pass a filter, such as `labels.tier=gold AND phase=running`.
    #[arg(short = 'l', long = "selector", value_name = "FILTER", conflicts_with = "names")]
    selector: Option<String>,
    #[command(flatten)]
    project: Project,
}

/// How guests are migrated.
#[derive(Clone, Debug, Args)]
pub struct MigrateFlags {
    /// The host they are to go to; any that can take them, when none is named.
    #[arg(long, value_name = "HOST", default_value = "")]
    to: String,
    /// Most bandwidth, MiB/s; 0 for what its migration policy says, or as much as there is.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    bandwidth: u32,
    /// Longest time a guest may stand still at the end, milliseconds; 0 for what the policy says, or 300.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    downtime: u32,
    /// Do not slow a guest down that writes faster than can be copied.
    #[arg(long)]
    never_slow_down: bool,
    /// Of the migrations that wait for their turn, the one with the higher priority goes first.
    #[arg(long, value_name = "0-100", default_value_t = 0)]
    priority: u32,
}

/// What may be done with VMs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Promise a VM and start it.
    #[command(
        after_help = "Example:\n  novacron vm create web --image tiny --vcpus 2 --memory 1G --label tier=gold"
    )]
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        project: Project,
        #[command(flatten)]
        spec: Box<SpecFlags>,
        /// Make it ready, but do not start it.
        #[arg(long)]
        stopped: bool,
    },
    /// Show one VM.
    Get {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
    },
    /// Show all VMs, or those that pass a filter.
    List {
        #[command(flatten)]
        project: Project,
        /// In all projects.
        #[arg(short = 'A', long)]
        all_projects: bool,
        /// A filter, such as `phase=running AND name:web`.
        #[arg(short = 'l', long, value_name = "FILTER", default_value = "")]
        selector: String,
        /// A field to order by, with ` desc` for the other direction.
        #[arg(long, value_name = "FIELD", default_value = "")]
        sort: String,
        /// Go on showing what changes.
        #[arg(short, long)]
        watch: bool,
    },
    /// Everything about one VM, and its last operations.
    Describe {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
    },
    /// Why a VM is where it is, or nowhere: what each host would be to it if it were placed now.
    #[command(
        visible_alias = "why-not",
        after_help = "Examples:\n  novacron vm why web\n  novacron vm why-not web --host h2"
    )]
    Why {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
        /// Look at one host only.
        #[arg(long, value_name = "HOST", default_value = "")]
        host: String,
    },
    /// What a guest wrote to its serial console.
    Logs {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
        /// Go on as it is written.
        #[arg(short, long)]
        follow: bool,
    },
    /// Type at a guest's serial console; Ctrl-] leaves it. What is piped in is typed.
    Console {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
    },
    /// What a running guest uses.
    Usage {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
    },
    /// What VMs use now, those first that use most.
    Top {
        /// The VMs of this project; those of all, when none is named.
        #[arg(short, long, env = "NOVACRON_PROJECT", default_value = "", value_name = "NAME")]
        project: String,
        #[command(flatten)]
        top: metrics::Order,
    },
    /// What a VM used over time: within the last hour, or as far back as 30 days.
    #[command(after_help = "Example:\n  novacron vm metrics web --since 7d")]
    Metrics {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
        #[command(flatten)]
        window: metrics::Window,
    },
    /// Change a VM's spec; what is not given stays.
    Update {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        project: Project,
        #[command(flatten)]
        spec: Box<SpecFlags>,
    },
    /// Run guests.
    Start(Selection),
    /// Shut guests down; after a grace period their power is cut.
    Stop {
        #[command(flatten)]
        selection: Selection,
        /// Cut the power at once.
        #[arg(long)]
        force: bool,
    },
    /// Restart guests.
    Reboot(Selection),
    /// Let guests stand still in memory.
    Pause(Selection),
    /// Let paused guests go on.
    Resume(Selection),
    /// Move VMs to other hosts; running guests run on all the while, stopped ones take their disks along.
    #[command(after_help = "Example:\n  novacron vm migrate web --to h2 --bandwidth 100")]
    Migrate {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        flags: MigrateFlags,
    },
    /// End guests, remove their disks, forget the VMs.
    Delete(Selection),
}

const USAGE_COLUMNS: &[Column] = &[
    column("CPU SECONDS", |row| {
        let ns = number(row, "cpuNs").parse::<u64>().unwrap_or(0);
        format!("{:.1}", std::time::Duration::from_nanos(ns).as_secs_f64())
    }),
    column("MEMORY", |row| format!("{} MiB", number(row, "memoryMib"))),
    column("DISK READ", |row| bytes(row, "diskReadBytes")),
    column("WRITTEN", |row| bytes(row, "diskWrittenBytes")),
    column("NETWORK IN", |row| bytes(row, "networkReceivedBytes")),
    column("OUT", |row| bytes(row, "networkSentBytes")),
];

pub(crate) const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    wide("PROJECT", |row| at(row, "project")),
    column("PHASE", |row| at(row, "phase")),
    column("HOST", |row| at(row, "host")),
    column("VCPUS", |row| number(row, "spec.vcpus")),
    column("MEMORY", |row| format!("{} MiB", number(row, "spec.memoryMib"))),
    column("IMAGE", |row| at(row, "spec.image")),
    wide("POLICY", |row| at(row, "spec.runPolicy")),
    wide("RESTARTS", |row| number(row, "restarts")),
    wide("CREATED", |row| at(row, "createdAt")),
    wide("ID", |row| at(row, "id")),
    wide("MESSAGE", |row| at(row, "message")),
];

const VERDICT_COLUMNS: &[Column] = &[
    column("HOST", |row| at(row, "host")),
    column("VM IS", |row| if row["here"] == true { "here" } else { "" }.to_owned()),
    column("FITS", |row| if row["fits"] == true { "yes" } else { "no" }.to_owned()),
    column("FREE", |row| {
        let ppm = number(row, "freePpm").parse::<u64>().unwrap_or(0);
        format!("{}.{} %", ppm / 10_000, ppm / 1_000 % 10)
    }),
    column("REASONS", |row| {
        let reasons = row["reasons"].as_array().into_iter().flatten();
        reasons.filter_map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ")
    }),
];

/// Which verb, for many VMs at once.
#[derive(Clone, Copy)]
enum Action<'a> {
    Start,
    Stop { force: bool },
    Reboot,
    Pause,
    Resume,
    Migrate(&'a MigrateFlags),
    Delete,
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create { name, project, spec, stopped } => {
            create(session, name, project.project, *spec, stopped).await
        }
        Verb::Get { name, project } => {
            let vm = get(session, &project.project, &name).await?;
            session.output.row(&vm, COLUMNS)
        }
        Verb::List { project, all_projects, selector, sort, watch } => {
            let project = if all_projects { "-".to_owned() } else { project.project };
            let page = v1::Page {
                filter: selector,
                order_by: sort,
                page_size: 1000,
                ..Default::default()
            };
            let (vms, revision) = list(session, &project, page).await?;
            session.output.rows(&vms, COLUMNS)?;
            if watch { follow(session, &project, revision).await } else { Ok(()) }
        }
        Verb::Describe { name, project } => describe(session, &project.project, &name).await,
        Verb::Why { name, project, host } => {
            let request =
                v1::ExplainVmRequest { project: project.project, vm: name, host, freshness: None };
            let answer = call!(session, VmsClient<_>, explain_vm, request).await?;
            if !answer.message.is_empty() {
                eprintln!("{}", plain(&answer.message));
            }
            session.output.rows(&answer.hosts, VERDICT_COLUMNS)
        }
        Verb::Logs { name, project, follow } => {
            console::logs(session, &project.project, &name, follow).await
        }
        Verb::Console { name, project } => console::attach(session, &project.project, &name).await,
        Verb::Usage { name, project } => {
            let request = v1::GetVmUsageRequest { project: project.project, vm: name };
            let usage = call!(session, VmsClient<_>, get_vm_usage, request).await?;
            session.output.row(&usage, USAGE_COLUMNS)
        }
        Verb::Top { project, top } => metrics::top_vms(session, &project, &top).await,
        Verb::Metrics { name, project, window } => {
            metrics::of_vm(session, project, name, &window).await
        }
        Verb::Update { name, project, spec } => {
            update(session, &project.project, &name, *spec).await
        }
        Verb::Start(selection) => each(session, selection, Action::Start).await,
        Verb::Stop { selection, force } => each(session, selection, Action::Stop { force }).await,
        Verb::Reboot(selection) => each(session, selection, Action::Reboot).await,
        Verb::Pause(selection) => each(session, selection, Action::Pause).await,
        Verb::Resume(selection) => each(session, selection, Action::Resume).await,
        Verb::Migrate { selection, flags } => {
            each(session, selection, Action::Migrate(&flags)).await
        }
        Verb::Delete(selection) => each(session, selection, Action::Delete).await,
    }
}

/// Small enough for anybody's first try.
fn modest() -> v1::VmSpec {
    v1::VmSpec { vcpus: 1, memory_mib: 256, ..Default::default() }
}

async fn create(
    session: &Session,
    name: String,
    project: String,
    flags: SpecFlags,
    stopped: bool,
) -> Result<()> {
    let mut spec = modest();
    flags.put_into(&mut spec)?;
    let what = format!("VM {name} created");
    let request = v1::CreateVmRequest {
        mutation: session.client.mutation().await?,
        project,
        name,
        spec: Some(spec),
        stopped,
    };
    let outcome = call!(session, VmsClient<_>, create_vm, request).await?;
    session.settle(&what, Some(outcome)).await
}

pub(crate) async fn get(session: &Session, project: &str, name: &str) -> Result<v1::Vm> {
    let (project, vm) = (project.to_owned(), name.to_owned());
    let request = v1::GetVmRequest { project, vm, freshness: None };
    Ok(call!(session, VmsClient<_>, get_vm, request).await?)
}

async fn list(session: &Session, project: &str, page: v1::Page) -> Result<(Vec<v1::Vm>, u64)> {
    let request =
        v1::ListVmsRequest { project: project.to_owned(), page: Some(page), freshness: None };
    Ok(all_pages!(session, VmsClient<_>, list_vms, request, vms))
}

async fn follow(session: &Session, project: &str, revision: u64) -> Result<()> {
    let project = if project == "-" { String::new() } else { project.to_owned() };
    let kinds = vec!["vm".to_owned()];
    let request = v1::WatchRequest { since_revision: revision, kinds, project };
    let mut watch = session.client.watch(request);
    loop {
        for change in watch.next().await?.changes {
            match change.vm {
                Some(vm) => {
                    let host = if vm.host.is_empty() { "-" } else { &vm.host };
                    println!("{:<24} {:<12} {host}", vm.name, vm.phase);
                }
                None if change.deleted => println!("{:<24} gone", change.object),
                // It will be said that it is gone.
                None => {}
            }
        }
    }
}

async fn describe(session: &Session, project: &str, name: &str) -> Result<()> {
    let vm = get(session, project, name).await?;
    print!("{}", describe_text(&serde_json::to_value(&vm)?));
    let page = v1::Page {
        filter: format!("project={} AND vm={}", vm.project, vm.name),
        order_by: "created_at desc".to_owned(),
        page_size: 10,
        ..Default::default()
    };
    let request = v1::ListOperationsRequest { page: Some(page), freshness: None };
    let found = call!(session, OperationsClient<_>, list_operations, request).await?;
    println!("last operations:");
    for operation in found.operations {
        println!(
            "  {}  {:<8} {:<12} {}",
            operation.created_at,
            operation.kind,
            operation.status,
            plain(&operation.message)
        );
    }
    Ok(())
}

/// Every field on a line of its own.
fn describe_text(value: &serde_json::Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

async fn update(session: &Session, project: &str, name: &str, flags: SpecFlags) -> Result<()> {
    let vm = get(session, project, name).await?;
    let mut spec = vm.spec.unwrap_or_default();
    flags.put_into(&mut spec)?;
    let request = v1::UpdateVmRequest {
        mutation: session.client.mutation().await?,
        project: project.to_owned(),
        vm: vm.id,
        spec: Some(spec),
        etag: vm.etag,
    };
    let outcome = call!(session, VmsClient<_>, update_vm, request).await?;
    session.settle(&format!("VM {name} updated"), Some(outcome)).await?;
    if get(session, project, name).await?.restart_needed {
        eprintln!("part of the change takes effect when the VM is stopped and started again");
    }
    Ok(())
}

/// Asks for all first and waits afterwards, so that they happen side by side.
async fn each(session: &Session, selection: Selection, action: Action<'_>) -> Result<()> {
    let project = selection.project.project;
    let names = match selection.selector {
        None if selection.names.is_empty() => bail!("name VMs, or select some with --selector"),
        None => selection.names,
        Some(filter) => {
            let page = v1::Page { filter, page_size: 1000, ..Default::default() };
            let (vms, _) = list(session, &project, page).await?;
            if vms.is_empty() {
                return Err(Exit::NotFound("no VM passes the filter".to_owned()).into());
            }
            vms.into_iter().map(|vm| vm.name).collect()
        }
    };
    let mut asked = BTreeMap::new();
    let mut failed = None;
    for name in names {
        match ask(session, &project, &name, action).await {
            Ok(outcome) => drop(asked.insert(name, outcome)),
            Err(error) => {
                eprintln!("VM {name}: {error}");
                failed = Some(error);
            }
        }
    }
    for (name, outcome) in asked {
        let done = match action {
            Action::Start => "started",
            Action::Stop { .. } => "stopped",
            Action::Reboot => "rebooted",
            Action::Pause => "paused",
            Action::Resume => "resumed",
            Action::Migrate(_) => "migrated",
            Action::Delete => "deleted",
        };
        session.settle(&format!("VM {name} {done}"), Some(outcome)).await?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn ask(
    session: &Session,
    project: &str,
    name: &str,
    action: Action<'_>,
) -> Result<v1::Outcome, client::Error> {
    let (project, vm) = (project.to_owned(), name.to_owned());
    let mutation = session.client.mutation().await?;
    let plain = v1::VmActionRequest { mutation, project: project.clone(), vm: vm.clone() };
    match action {
        Action::Start => call!(session, VmsClient<_>, start_vm, plain).await,
        Action::Reboot => call!(session, VmsClient<_>, reboot_vm, plain).await,
        Action::Pause => call!(session, VmsClient<_>, pause_vm, plain).await,
        Action::Resume => call!(session, VmsClient<_>, resume_vm, plain).await,
        Action::Stop { force } => {
            let mutation = session.client.mutation().await?;
            let stop = v1::StopVmRequest { mutation, project, vm, force };
            call!(session, VmsClient<_>, stop_vm, stop).await
        }
        Action::Migrate(flags) => {
            let mutation = session.client.mutation().await?;
            let migrate = v1::MigrateVmRequest {
                mutation,
                project,
                vm,
                host: flags.to.clone(),
                bandwidth_mib_per_second: flags.bandwidth,
                downtime_ms: flags.downtime,
                never_slow_down: flags.never_slow_down,
                priority: flags.priority,
            };
            call!(session, VmsClient<_>, migrate_vm, migrate).await
        }
        Action::Delete => {
            let mutation = session.client.mutation().await?;
            let delete = v1::DeleteVmRequest { mutation, project, vm, etag: 0 };
            call!(session, VmsClient<_>, delete_vm, delete).await
        }
    }
}
