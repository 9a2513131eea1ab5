//! Transcripts: a conversation with the law, one file per subject, as anybody can read it. A line
//! that begins with `>` is asked, the lines below it are what was answered. `UPDATE=1` writes the
//! answers anew; review the difference.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use novacron_domain::{
    State,
    cluster::PROTOCOL_VERSION,
    credential::CredentialCommand,
    envelope::{Command, Outcome},
    host::{Fencing, Grant, HostCommand, Schedule},
    id::{InstanceId, OperationId, VmId},
    image::ImageCommand,
    instance::{Body, Ended, Failure, InstanceCommand, Place, Report},
    operation::{Class, Operation, OperationCommand, Subject},
    principal::Principal,
    project::ProjectCommand,
    rejected::Rejected,
    setting::{Key, SettingCommand},
    state::Anew,
    vm::{Failover, RunPolicy, SpecPatch, VmCommand, why_unknown},
};

use crate::world::{World, grant, id, name, spec};

#[test]
fn transcripts() {
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let now = play(&text, &mut Stage::speaking(PROTOCOL_VERSION));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &now).unwrap();
            continue;
        }
        assert_eq!(text, now, "{}: run with UPDATE=1 and review", file.display());
    }
}

/// Nodes with older and newer programs agree on the history: what an entry does at a protocol it does for ever. A line
/// here that a change of the rules changes, and not one of its transcript, means that the change is to wait for the next
/// protocol.
#[test]
fn what_entries_do_at_a_protocol_stays() {
    let mut table = String::new();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let subject = file.file_stem().unwrap().to_str().unwrap();
        for protocol in 1..=PROTOCOL_VERSION {
            let mut stage = Stage::speaking(protocol);
            play(&text, &mut stage);
            let _ = writeln!(table, "{subject} {protocol} {}", stage.world.state.chain);
        }
    }
    insta::assert_snapshot!(table);
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn play(text: &str, stage: &mut Stage) -> String {
    let mut out = String::new();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            Some(ask) => {
                let _ = writeln!(out, "{line}");
                for answer in stage.ask(ask) {
                    let _ = writeln!(out, "{answer}");
                }
            }
            None if line.starts_with('#') || line.is_empty() => {
                let _ = writeln!(out, "{line}");
            }
            None => {}
        }
    }
    out
}

struct Stage {
    world: World,
    operations: u128,
}

impl Stage {
    fn speaking(protocol: u32) -> Stage {
        Stage { world: World::speaking(protocol), operations: 0 }
    }

    fn ask(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["tick", seconds] => {
                self.world.tick(seconds.parse::<u64>().unwrap() * 1000);
                return vec!["ok".into()];
            }
            ["renew", host] => {
                let host = self.world.state.host_named(&name(host)).unwrap();
                let row = (host.id, host.fence);
                return answer(self.world.node(Command::Host(HostCommand::Renew(vec![row]))));
            }
            ["speak", protocol] => {
                self.world.state.protocol_version = protocol.parse().unwrap();
                return vec!["ok".into()];
            }
            // The cluster goes on with its first node, in its next epoch.
            ["recover"] => {
                let (state, wall_ms) = (&self.world.state, 1_700_000_000_000);
                let node = novacron_domain::node::Node::clone(&state.nodes[&1]);
                let epoch = state.epoch + 1;
                let anew = Anew { node, epoch, credentials: vec![], tokens: vec![] };
                self.world.state = state.alone(anew, wall_ms).skip(state.index + 1);
                return vec!["ok".into()];
            }
            // A host falls silent, and the others do not.
            ["lapse", host] => {
                for _ in 0..3 {
                    self.world.tick(7_000);
                    let hosts = self.world.state.hosts.values();
                    let others = hosts.filter(|row| row.name != name(host));
                    let rows = others.map(|host| (host.id, host.fence)).collect();
                    self.world.node(Command::Host(HostCommand::Renew(rows))).unwrap();
                }
                return vec!["ok".into()];
            }
            // Time goes by, and every host is heard of.
            ["pass", seconds] => {
                for _ in 0..seconds.parse::<u64>().unwrap() / 5 {
                    self.world.tick(5_000);
                    let hosts = self.world.state.hosts.values();
                    let rows = hosts.map(|host| (host.id, host.fence)).collect();
                    self.world.node(Command::Host(HostCommand::Renew(rows))).unwrap();
                }
                return vec!["ok".into()];
            }
            ["grant", n] => return answer(self.world.node(grant(n.parse().unwrap()))),
            ["boot", n] => {
                let boot = id(1_000 + u128::from(self.world.state.index));
                let command = match grant(n.parse().unwrap()) {
                    Command::Host(HostCommand::Grant(row)) => {
                        Command::Host(HostCommand::Grant(Box::new(Grant { boot, ..*row })))
                    }
                    other => other,
                };
                return answer(self.world.node(command));
            }
            [kind @ ("guard" | "watchdog"), host] => {
                let host = self.world.state.host_named(&name(host)).unwrap();
                let (host, fence) = (host.id, host.fence);
                let fencing = if *kind == "guard" { Fencing::Guard } else { Fencing::Watchdog };
                let command = HostCommand::Fencing { host, fence, fencing };
                return answer(self.world.node(Command::Host(command)));
            }
            ["pools", host, rest @ ..] => {
                let host = self.world.state.host_named(&name(host)).unwrap();
                let (host, fence) = (host.id, host.fence);
                let pools = rest.iter().map(|pool| {
                    let (pool, n) = pool.split_once('=').unwrap();
                    (name(pool), id(n.parse().unwrap()))
                });
                let command = HostCommand::Pools { host, fence, pools: pools.collect() };
                return answer(self.world.node(Command::Host(command)));
            }
            ["power-off", host] => {
                let host = self.world.state.host_named(&name(host)).unwrap();
                let (host, boot, fence) = (host.id, host.boot, host.fence);
                let command = HostCommand::PoweredOff { host, boot, fence };
                return answer(self.world.node(Command::Host(command)));
            }
            ["relocate", vm] => {
                self.operations += 1;
                let rows = vec![(vm_id(vm), id(self.operations))];
                return answer(self.world.node(Command::Instance(InstanceCommand::Relocate(rows))));
            }
            ["why", vm] => {
                let state = &self.world.state;
                let vm = state.vms.get(&vm_id(vm)).unwrap();
                return vec![why_unknown(state, vm).unwrap_or_else(|| "it is known".into())];
            }
            ["place", vm, host] => {
                let host = self.world.state.host_named(&name(host)).unwrap().id;
                let (vm, mut instance) = (vm_id(vm), instance_id(vm));
                if self.world.state.instances.contains_key(&instance) {
                    instance = id(u128::from(self.world.state.index));
                }
                let place = InstanceCommand::Place(vec![Place { vm, instance, host }]);
                return answer(self.world.node(Command::Instance(place)));
            }
            ["report", vm, rest @ ..] => return self.report(vm, rest),
            ["answer", n, words @ ..] => {
                let operation = id(n.parse().unwrap());
                let said = if words == ["ok"] { Ok(7) } else { Err(words.join(" ")) };
                let command = OperationCommand::Probed { operation, answer: said };
                return answer(self.world.node(Command::Operation(command)));
            }
            ["queue", class] => return queue(&self.world.state, class),
            ["show", vm] => return show(&self.world.state, vm),
            ["show-operations"] => {
                let operations = self.world.state.operations.values();
                return operations
                    .map(|o| {
                        format!(
                            "{} {}: {} {}",
                            o.kind.as_str(),
                            subject(o),
                            o.status.as_str(),
                            o.message
                        )
                        .trim_end()
                        .to_owned()
                    })
                    .collect();
            }
            _ => {}
        }
        let (who, words) = match words.split_first() {
            Some((&"viewer", rest)) => (3, rest),
            Some((&"operator", rest)) => (2, rest),
            Some((&"stranger", rest)) => (99, rest),
            _ => (1, words.as_slice()),
        };
        let command = self.user(words);
        answer(self.world.apply(Principal::Credential(id(who)), None, command).reply)
    }

    fn user(&mut self, words: &[&str]) -> Command {
        self.operations += 1;
        let operation: OperationId = id(self.operations);
        match words {
            ["create", vm, rest @ ..] => {
                let mut spec = spec();
                let mut start = true;
                for word in rest {
                    match word.split_once('=').unwrap_or((word, "")) {
                        ("stopped", _) => start = false,
                        ("vcpus", n) => spec.vcpus = n.parse().unwrap(),
                        ("memory", n) => spec.memory_mib = n.parse().unwrap(),
                        ("image", n) => spec.image = name(n),
                        ("host", n) => spec.host = Some(name(n)),
                        ("policy", "always") => spec.run_policy = RunPolicy::Always,
                        ("policy", "manual") => spec.run_policy = RunPolicy::Manual,
                        ("failover", "rebuild") => spec.failover = Failover::Rebuild,
                        ("failover", "restart") => spec.failover = Failover::Restart,
                        ("pool", n) => spec.pool = Some(name(n)),
                        ("protected", _) => spec.deletion_protection = true,
                        (other, _) => panic!("unknown word {other}"),
                    }
                }
                Command::Vm(VmCommand::Create {
                    vm: vm_id(vm),
                    project: name("default"),
                    name: name(vm),
                    spec: Box::new(spec),
                    start,
                    operation,
                })
            }
            ["update", vm, rest @ ..] => {
                let mut patch = SpecPatch::default();
                let mut etag = None;
                for word in rest {
                    match word.split_once('=').unwrap() {
                        ("memory", n) => patch.memory_mib = Some(n.parse().unwrap()),
                        ("protected", n) => patch.deletion_protection = Some(n == "true"),
                        ("failover", "stay") => patch.failover = Some(Failover::Stay),
                        ("failover", _) => patch.failover = Some(Failover::Rebuild),
                        ("image", n) => {
                            let mut whole = spec();
                            whole.image = name(n);
                            patch.whole = Some(Box::new(whole));
                        }
                        ("etag", "stale") => etag = Some(novacron_domain::Revision::new(1, 1)),
                        (other, _) => panic!("unknown word {other}"),
                    }
                }
                Command::Vm(VmCommand::Update { vm: vm_id(vm), patch: Box::new(patch), etag })
            }
            ["start", vm] => Command::Vm(VmCommand::Start { vm: vm_id(vm), operation }),
            ["stop", vm] => Command::Vm(VmCommand::Stop { vm: vm_id(vm), force: false, operation }),
            ["kill", vm] => Command::Vm(VmCommand::Stop { vm: vm_id(vm), force: true, operation }),
            ["reboot", vm] => Command::Vm(VmCommand::Reboot { vm: vm_id(vm), operation }),
            ["pause", vm] => Command::Vm(VmCommand::Pause { vm: vm_id(vm), operation }),
            ["resume", vm] => Command::Vm(VmCommand::Resume { vm: vm_id(vm), operation }),
            ["delete", vm] => {
                Command::Vm(VmCommand::Delete { vm: vm_id(vm), etag: None, operation })
            }
            ["cancel" | "retry" | "go-on" | "abandon", n] => {
                let operation = id(n.parse().unwrap());
                Command::Operation(match words[0] {
                    "cancel" => OperationCommand::Cancel { operation },
                    "retry" => OperationCommand::Retry { operation },
                    "go-on" => OperationCommand::Resume { operation },
                    _ => OperationCommand::Abandon { operation },
                })
            }
            ["probe", class, hosts @ ..] => {
                let class = Class::ALL.into_iter().find(|known| known.as_str() == *class).unwrap();
                let hosts = hosts.iter().map(|host| {
                    self.operations += 1;
                    (self.world.state.host_named(&name(host)).unwrap().id, id(self.operations))
                });
                let hosts = hosts.collect();
                Command::Operation(OperationCommand::Probe { operation, class, hosts })
            }
            ["drain" | "uncordon", host] => {
                let host = self.world.state.host_named(&name(host)).unwrap().id;
                let (schedule, operation) = match words[0] {
                    "drain" => (Schedule::Draining, Some(operation)),
                    _ => (Schedule::Open, None),
                };
                Command::Host(HostCommand::Schedule { host, schedule, operation })
            }
            ["delete-image", image] => {
                let image = self.world.state.image_named(&name(image)).unwrap().id;
                Command::Image(ImageCommand::Delete { image })
            }
            ["delete-project", project] => {
                Command::Project(ProjectCommand::Delete { name: name(project) })
            }
            ["confirm-dead", host] => {
                let host = self.world.state.host_named(&name(host)).unwrap();
                Command::Host(HostCommand::ConfirmDead { host: host.id, boot: host.boot })
            }
            ["remove-host", host] => {
                let host = self.world.state.host_named(&name(host)).unwrap().id;
                Command::Host(HostCommand::Remove { host })
            }
            ["set", key, value] => Command::Setting(SettingCommand::Set {
                key: Key::named(key).unwrap(),
                value: value.parse().unwrap(),
            }),
            ["revoke", n] => Command::Credential(CredentialCommand::Revoke {
                credential: id(n.parse().unwrap()),
            }),
            other => panic!("unknown line {other:?}"),
        }
    }

    fn report(&mut self, vm: &str, words: &[&str]) -> Vec<String> {
        let Some(row) = self.world.state.instance_of(vm_id(vm)).cloned() else {
            return vec!["no body".into()];
        };
        let instance = row.id;
        let vm_row = self.world.state.vms[&row.vm].clone();
        let mut report = Report {
            reboots: row.reboots,
            starts: row.starts,
            ..Report::seen(instance, row.fence, Body::Absent)
        };
        for word in words {
            match *word {
                "absent" => report.body = Body::Absent,
                "released" => {
                    report.body = Body::Absent;
                    report.cleared = true;
                }
                "ready" => report.body = Body::Ready,
                "running" => {
                    report.body = Body::Running;
                    report.generation = Some(vm_row.generation);
                }
                "paused" => report.body = Body::Paused,
                "shutdown" => report.body = Body::Stopped(Ended::Shutdown),
                "killed" => report.body = Body::Stopped(Ended::Killed),
                "crashed" => report.body = Body::Stopped(Ended::Crashed),
                "rebooted" => report.reboots += 1,
                "unseen" => report.starts += 1,
                "stale" => report.fence = novacron_domain::Revision::new(1, 1),
                "failing" => {
                    report.failure =
                        Some(Failure { permanent: false, message: "try again".into() });
                }
                "failed" => {
                    report.failure = Some(Failure { permanent: true, message: "no use".into() });
                }
                other => panic!("unknown word {other}"),
            }
        }
        answer(self.world.node(Command::Instance(InstanceCommand::Report(vec![report]))))
    }
}

/// Names are numbered in the order of the alphabet, so that transcripts are stable.
fn vm_id(name: &str) -> VmId {
    id(name.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte)))
}

fn instance_id(name: &str) -> InstanceId {
    id(name.bytes().fold(1, |sum, byte| sum * 256 + u128::from(byte)))
}

fn answer(reply: Result<Outcome, Rejected>) -> Vec<String> {
    match reply {
        Ok(_) => vec!["ok".into()],
        Err(rejected) => {
            let mut lines = vec![format!("{}: {rejected}", rejected.reason.code())];
            for violation in rejected.violations.iter().skip(1) {
                lines.push(format!("  also {}: {}", violation.field, violation.message));
            }
            lines
        }
    }
}

/// A class's workers, and who has and who awaits one.
fn queue(state: &State, class: &str) -> Vec<String> {
    let class = Class::ALL.into_iter().find(|known| known.as_str() == class).unwrap();
    let waiting: Vec<_> = state.waiting(class).map(|operation| subject(operation)).collect();
    let (busy, workers) = (state.busy(class), state.workers(class));
    vec![format!("{busy} of {workers} workers busy; waiting: {}", waiting.join(" ")).trim().into()]
}

fn subject(operation: &Operation) -> &str {
    match &operation.subject {
        Subject::Vm { name, .. } | Subject::Host { name, .. } => name.as_str(),
        Subject::Cluster => "the cluster",
        Subject::Alerts { .. } => "alerts",
    }
}

fn show(state: &State, vm: &str) -> Vec<String> {
    let Some(vm) = state.vm_named(&name("default"), &name(vm)) else {
        return vec!["gone".into()];
    };
    let mut line = state.phase(vm).as_str().to_owned();
    if let Some(body) = state.instance_of(vm.id) {
        let host = &state.hosts[&body.host].name;
        let _ = write!(line, " on {host}, next: {:?}", state.next_action(body));
    }
    if let Some(operation) = vm.operation {
        let _ = write!(line, ", busy with {}", state.operations[&operation].kind.as_str());
    }
    if let Some(failure) = &vm.placement_failure {
        let _ = write!(line, ", not placed: {failure}");
    }
    vec![line]
}
