//! `make demo`: a three-node cluster on this machine, shown step by step.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what speaks to people")]

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use client::{
    Client,
    v1::{self, vms_client::VmsClient},
};
use novacron_lab::{Cluster, ClusterOptions, Fencing, Guest, Hosts, is_possible, sweep};

/// How long a guest may take to boot without acceleration, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const VMS: [&str; 3] = ["web-1", "web-2", "db-1"];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--down") {
        let ended = sweep();
        println!("ended {ended} processes that a demo had left behind");
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo_until_interrupted()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == "1")
}

/// Says what is done, and then how long it took.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, what: &str) {
        println!("  {:>6.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

/// At any moment Ctrl-C drops the cluster, and that ends everything it has started.
async fn demo_until_interrupted() -> Result<()> {
    tokio::select! {
        ended = demo() => ended,
        interrupted = tokio::signal::ctrl_c() => {
            println!("\nending everything …");
            Ok(interrupted?)
        }
    }
}

async fn demo() -> Result<()> {
    let (simulated, once) = (set("SIM"), set("ONCE"));
    let real = match is_possible() {
        Ok(()) => !simulated,
        Err(why) if simulated => {
            println!("simulated hosts, as asked ({why})");
            false
        }
        Err(why) if once => bail!("no real VMs: {why}"),
        Err(why) => {
            println!("NO REAL VMS: {why}\nGoing on with simulated hosts.");
            false
        }
    };
    let programs = std::env::current_exe()?.parent().context("no directory")?.to_owned();
    let begun = Instant::now();
    let mut steps = Steps(begun);
    println!("A NovaCron cluster of three nodes on this machine:\n");
    let guest = real.then(|| Guest::make(&programs)).transpose()?;
    if real {
        steps.done("the guest's kernel and its initial file system are made");
    }
    let mut told = Instant::now();
    let hosts = if real { Hosts::Real } else { Hosts::Simulated };
    let options = ClusterOptions {
        fencing: Fencing::Guards,
        ..ClusterOptions::new(3, hosts, programs.clone())
    };
    let started = Cluster::start(options, |step| {
        println!("  {:>6.1} s  … {step}", told.elapsed().as_secs_f64());
        told = Instant::now();
    });
    let mut cluster = started.await?;
    let hosts = if real { "a hypervisor" } else { "a simulated host" };
    steps.done(&format!("three nodes run, each with {hosts}, over mutual TLS"));
    let client = cluster.client()?;

    match &guest {
        Some(guest) => guest.import(&cluster, "tiny")?,
        None => drop(cluster.novacron(0, &["image", "create", "tiny"])?),
    }
    steps.done("the image `tiny` is imported");
    let mut operations = Vec::new();
    for name in VMS {
        operations.push(create(&client, name).await?);
    }
    for operation in operations {
        settle(&client, &operation).await?;
    }
    steps.done("three VMs run");
    if real {
        for name in VMS {
            let vm = get(&client, name).await?;
            await_console(&client, name, &format!("GUEST-UP id={}", vm.id)).await?;
        }
        steps.done("each guest says on its serial console, with its own id, that it is up");
    }
    println!("\n{}", cluster.novacron(0, &["vm", "list", "-o", "wide"])?);

    steps.0 = Instant::now();
    cluster.novacron(0, &["vm", "stop", "web-1"])?;
    steps.done("web-1 was asked to shut down, and did");
    cluster.novacron(0, &["vm", "start", "web-1"])?;
    steps.done("web-1 runs again");
    cluster.novacron(0, &["vm", "delete", "db-1"])?;
    steps.done("db-1 is deleted");

    cluster.await_voters(3).await?;
    steps.done("all three nodes vote: any one may be lost");
    let leader = cluster.leader().await?.context("nobody leads")?;
    let before = all_guests(&cluster);
    cluster.kill(leader)?;
    println!("            the leader, n{}, is killed", leader + 1);
    steps.0 = Instant::now();
    let survivor = (leader + 1) % 3;
    let client = cluster.client()?;
    let vm = v1::VmSpec { host: format!("h{}", survivor + 1), ..spec() };
    let operation = create_with(&client, "after", vm).await?;
    settle(&client, &operation).await?;
    steps.done("another node leads, and a new VM runs");
    if real {
        let after = all_guests(&cluster);
        if !before.iter().all(|pid| after.contains(pid)) {
            bail!("a guest was lost with the leader");
        }
        println!("            no guest noticed: {} go on", before.len());
    }
    cluster.run(leader)?;
    cluster.await_ready(leader).await?;
    steps.done("the killed node is back and has caught up");
    println!("\nAll of it took {:.0} s.", begun.elapsed().as_secs_f64());
    if once {
        return Ok(());
    }
    farewell(&cluster, &programs);
    std::future::pending().await
}

fn farewell(cluster: &Cluster, programs: &Path) {
    println!("\nThe cluster stays up. The API, gRPC and REST over TLS:");
    for endpoint in &cluster.access.endpoints {
        println!("  https://{endpoint}");
    }
    println!(
        "The admin credential lies in {}. Try, in another terminal:",
        cluster.access_file().display()
    );
    println!("  export NOVACRON_ACCESS={}", cluster.access_file().display());
    println!("  export PATH={}:$PATH", programs.display());
    println!("  novacron cluster status");
    println!("  novacron vm create mine --image tiny --memory 96");
    println!("  novacron vm logs mine -f");
    println!("  novacron event list -f");
    println!("Ctrl-C ends everything and leaves nothing behind.");
}

fn spec() -> v1::VmSpec {
    v1::VmSpec { vcpus: 1, memory_mib: 96, image: "tiny".to_owned(), ..Default::default() }
}

async fn create(client: &Client, name: &str) -> Result<String> {
    create_with(client, name, spec()).await
}

async fn create_with(client: &Client, name: &str, spec: v1::VmSpec) -> Result<String> {
    let request = v1::CreateVmRequest {
        mutation: client.mutation().await?,
        name: name.to_owned(),
        spec: Some(spec),
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).create_vm(request).await);
    Ok(call.await?.operation)
}

async fn settle(client: &Client, operation: &str) -> Result<()> {
    let ended = client.wait(operation, PATIENCE, |_| ()).await?;
    if ended.status != "done" {
        bail!("{} of {} is {}: {}", ended.kind, ended.vm, ended.status, ended.message);
    }
    Ok(())
}

async fn get(client: &Client, name: &str) -> Result<v1::Vm> {
    let request = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).get_vm(request).await);
    Ok(call.await?)
}

async fn await_console(client: &Client, name: &str, text: &str) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let request = v1::GetConsoleLogRequest {
            vm: name.to_owned(),
            bytes_max: 1 << 20,
            ..Default::default()
        };
        let log = client.call(request, async |channel, request| {
            VmsClient::new(channel).get_console_log(request).await
        });
        if log.await?.text.contains(text) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{name} did not say {text:?} in {PATIENCE:?}")
}

fn all_guests(cluster: &Cluster) -> Vec<i32> {
    (0..3).flat_map(|node| cluster.guests(node)).collect()
}
