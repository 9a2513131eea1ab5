//! Alerts: when they fire and are over, and that people hear of each once.

use novacron_domain::{
    Revision,
    alert::{
        Alert, AlertCommand, AlertKey, AlertState, Rule, Severity, Signal, Silence, Subject, Test,
        Told,
    },
    envelope::{Command, Outcome},
    id::OperationId,
    node::{Health, NodeCommand, OwnCondition},
    operation::{OperationCommand, Status},
    principal::Principal,
    rejected::{Reason, Rejected},
    setting::{Key, SettingCommand},
};

use crate::world::{World, id, name};

const WALL_MS: u64 = 1_700_000_000_000;
const KEY: Subject = Subject::Node(1);

fn rule(named: &str, signal: Signal, test: Test, for_ms: u64) -> Rule {
    Rule {
        name: name(named),
        signal,
        test,
        for_ms,
        project: None,
        labels: Default::default(),
        severity: Severity::Warning,
        summary: String::new(),
        revision: Revision::ZERO,
    }
}

fn set(world: &mut World, rule: Rule) -> Result<Outcome, Rejected> {
    world.admin(Command::Alert(AlertCommand::SetRule(Box::new(rule))))
}

/// The node's disk is so full from now on.
fn disk(world: &mut World, percent: u8) {
    report(world, percent, 0);
}

fn report(world: &mut World, percent: u8, ahead_ms: u64) {
    let wall_ms = WALL_MS + world.now_ms + ahead_ms;
    let condition =
        OwnCondition { wall_ms, slowest_sync_ms: 7, certificate_until_wall_ms: wall_ms };
    let health = Health {
        disk_used_percent: percent,
        condition: Some(condition),
        version: "0.1.0".into(),
        protocol_max: 1,
        peer_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
    };
    world.node(Command::Node(NodeCommand::Report(Box::new(health)))).unwrap();
}

/// A cluster with one rule: a disk is more than 80 % full for 10 s.
fn world() -> World {
    let mut world = World::new();
    let all: Vec<_> = world.state.alert_rules.keys().cloned().collect();
    for rule in all {
        world.admin(Command::Alert(AlertCommand::DeleteRule { rule })).unwrap();
    }
    set(&mut world, rule("full", Signal::DiskUsedPercent, Test::Above(80), 10_000)).unwrap();
    world
}

fn alert(world: &World) -> Option<&Alert> {
    world.state.alerts.get(&(name("full"), KEY)).map(|alert| &**alert)
}

/// The alert in two words: what it is, and what people believe.
fn shown(world: &World) -> (Option<AlertState>, Told) {
    let alert = alert(world);
    (alert.map(|alert| alert.state), alert.map(|alert| alert.told).unwrap_or_default())
}

fn notify(world: &mut World, n: u128) -> Result<Outcome, Rejected> {
    let alerts = world.state.news(WALL_MS + world.now_ms);
    world.node(Command::Alert(AlertCommand::Notify { operation: id(n), alerts }))
}

/// People were told what the alert was when they were told, or were not.
fn notified(world: &mut World, n: u128, was: AlertState, took_it: bool) {
    let answer = if took_it { Ok("told".to_owned()) } else { Err("refused".to_owned()) };
    let told = vec![((name("full"), KEY), was)];
    world.node(Command::Alert(AlertCommand::Notified { operation: id(n), answer, told })).unwrap();
}

fn status(world: &World, n: u128) -> Status {
    let operation: OperationId = id(n);
    world.state.operations[&operation].status
}

const PENDING: Option<AlertState> = Some(AlertState::Pending);
const FIRING: Option<AlertState> = Some(AlertState::Firing);
const RESOLVED: Option<AlertState> = Some(AlertState::Resolved);

#[test]
fn what_is_so_for_long_enough_fires_is_told_and_is_over() {
    let mut world = world();
    disk(&mut world, 81);
    world.tick(5_000);
    assert_eq!(shown(&world), (PENDING, Told::Nothing));
    world.tick(5_000);
    assert_eq!(shown(&world), (PENDING, Told::Nothing));
    assert!(world.state.news(WALL_MS).is_empty(), "what is pending is no news");
    world.tick(5_000);
    assert_eq!(shown(&world), (FIRING, Told::Nothing));
    assert_eq!(alert(&world).unwrap().value, Some(81));

    notify(&mut world, 1).unwrap();
    assert_eq!(status(&world, 1), Status::Running, "there are workers");
    assert_eq!(world.state.notices().count(), 1);
    let twice = notify(&mut world, 2).unwrap_err();
    assert_eq!(twice.reason, Reason::Fenced, "one tells");
    notified(&mut world, 1, AlertState::Firing, true);
    assert_eq!((status(&world, 1), shown(&world)), (Status::Done, (FIRING, Told::Firing)));
    world.tick(60_000);
    assert!(notify(&mut world, 2).is_err(), "it is told once");

    disk(&mut world, 50);
    world.tick(5_000);
    assert_eq!(shown(&world), (RESOLVED, Told::Firing));
    notify(&mut world, 3).unwrap();
    notified(&mut world, 3, AlertState::Resolved, true);
    assert_eq!(shown(&world), (RESOLVED, Told::Nothing));
    world.tick(3_600_000);
    assert_eq!(shown(&world), (None, Told::Nothing));
}

#[test]
fn what_passes_by_itself_is_never_told() {
    let mut world = world();
    for _ in 0..5 {
        disk(&mut world, 90);
        world.tick(5_000);
        assert_eq!(shown(&world), (PENDING, Told::Nothing));
        disk(&mut world, 10);
        world.tick(5_000);
        assert_eq!(shown(&world), (None, Told::Nothing));
    }
}

/// It is over while people are being told that it fires; then they are told that it is over.
#[test]
fn what_changes_meanwhile_is_told_by_the_next() {
    let mut world = world();
    disk(&mut world, 90);
    world.tick(5_000);
    world.tick(10_000);
    notify(&mut world, 1).unwrap();
    disk(&mut world, 10);
    world.tick(5_000);
    assert_eq!(shown(&world), (RESOLVED, Told::Nothing));
    notified(&mut world, 1, AlertState::Firing, true);
    assert_eq!(shown(&world), (RESOLVED, Told::Firing));
    notify(&mut world, 2).unwrap();
    notified(&mut world, 2, AlertState::Resolved, true);
    assert_eq!(shown(&world), (RESOLVED, Told::Nothing));

    // It fires again, and passes before anybody is told: nobody hears of it.
    disk(&mut world, 90);
    world.tick(5_000);
    assert_eq!(shown(&world), (PENDING, Told::Nothing));
    world.tick(10_000);
    assert_eq!(shown(&world), (FIRING, Told::Nothing));
    disk(&mut world, 10);
    world.tick(5_000);
    assert!(notify(&mut world, 3).is_err());
}

/// Who could not be told may have been told all the same.
#[test]
fn what_cannot_be_told_is_given_up_and_told_later() {
    let mut world = world();
    let few = SettingCommand::Set { key: Key::OperationRetries, value: 1 };
    world.admin(Command::Setting(few)).unwrap();
    disk(&mut world, 90);
    world.tick(5_000);
    world.tick(10_000);
    notify(&mut world, 1).unwrap();
    notified(&mut world, 1, AlertState::Firing, false);
    assert_eq!((status(&world, 1), shown(&world)), (Status::Running, (FIRING, Told::Perhaps)));
    notified(&mut world, 1, AlertState::Firing, false);
    let given_up = (Status::RolledBack, (FIRING, Told::Perhaps));
    assert_eq!((status(&world, 1), shown(&world)), given_up);
    assert!(notify(&mut world, 2).is_err(), "people are left alone for a while");
    world.tick(300_000);
    notify(&mut world, 2).unwrap();
    // Nobody answers, until the deadline.
    world.tick(700_000);
    assert_eq!((status(&world, 2), shown(&world)), given_up);
    disk(&mut world, 10);
    world.tick(300_000);
    assert_eq!(shown(&world), (RESOLVED, Told::Perhaps));
    notify(&mut world, 3).unwrap();
    notified(&mut world, 3, AlertState::Resolved, false);
    disk(&mut world, 90);
    world.tick(5_000);
    world.tick(10_000);
    // Somebody may believe by now that it is over, so it is news that it fires.
    assert_eq!(shown(&world), (FIRING, Told::Perhaps));
    notified(&mut world, 3, AlertState::Resolved, false);
    assert_eq!(status(&world, 3), Status::RolledBack);
    world.tick(300_000);
    notify(&mut world, 4).unwrap();
    notified(&mut world, 4, AlertState::Firing, true);
    assert_eq!(shown(&world), (FIRING, Told::Firing));
    let retry = OperationCommand::Retry { operation: id(1) };
    let refused = world.admin(Command::Operation(retry)).unwrap_err();
    assert_eq!(refused.reason, Reason::NotStuck);
}

#[test]
fn a_silence_keeps_people_from_being_told_until_it_ends() {
    let mut world = world();
    let silence = |until_ms: u64, of: Option<&str>| Silence {
        name: name("quiet"),
        rule: Some(name("full")),
        project: None,
        of: of.map(name),
        until_wall_ms: WALL_MS + until_ms,
        reason: "a new disk comes".into(),
        author: Principal::Founder,
        revision: Revision::ZERO,
    };
    let set = |world: &mut World, silence: Silence| {
        world.admin(Command::Alert(AlertCommand::SetSilence(Box::new(silence))))
    };
    let past = set(&mut world, silence(1, None)).unwrap_err();
    assert_eq!(past.violations[0].field, "what.until");
    set(&mut world, silence(100_000, Some("n1"))).unwrap();
    disk(&mut world, 90);
    world.tick(5_000);
    world.tick(10_000);
    assert_eq!(shown(&world), (FIRING, Told::Nothing));
    assert!(notify(&mut world, 1).is_err());
    set(&mut world, silence(100_000, Some("n2"))).unwrap();
    assert_eq!(world.state.news(WALL_MS + world.now_ms).len(), 1, "of another node");
    set(&mut world, silence(100_000, Some("n1"))).unwrap();
    world.tick(100_000);
    assert!(world.state.silences.is_empty());
    notify(&mut world, 1).unwrap();
}

#[test]
fn rules_are_checked_and_their_alerts_go_with_them() {
    let mut world = world();
    let rises = |by, within_ms| Test::Rises { by, within_ms };
    for (rule, field) in [
        (rule("a", Signal::SyncMs, Test::Above(1), u64::MAX), "rule.for_ms"),
        (rule("a", Signal::SyncMs, rises(1, 1), 0), "rule.within_ms"),
        (rule("a", Signal::SyncMs, rises(0, 60_000), 0), "rule.value"),
        (rule("a", Signal::HostUp, rises(1, 60_000), 0), "rule.test"),
        (
            Rule { project: Some(name("default")), ..rule("a", Signal::HostUp, Test::Absent, 0) },
            "rule.project",
        ),
        (
            Rule {
                labels: [(name("tier"), "gold".to_owned())].into(),
                ..rule("a", Signal::SyncMs, Test::Absent, 0)
            },
            "rule.labels",
        ),
        (
            Rule { summary: "x".repeat(501), ..rule("a", Signal::SyncMs, Test::Absent, 0) },
            "rule.summary",
        ),
    ] {
        let refused = set(&mut world, rule).unwrap_err();
        assert_eq!(refused.violations[0].field, field, "{refused:?}");
    }
    disk(&mut world, 90);
    world.tick(5_000);
    world.tick(10_000);
    assert_eq!(shown(&world).0, FIRING);
    let key: AlertKey = (name("full"), KEY);
    let acknowledge = Command::Alert(AlertCommand::Acknowledge { alert: key });
    world.admin(acknowledge.clone()).unwrap();
    assert_eq!(alert(&world).unwrap().acknowledged, Some(Principal::Credential(id(1))));
    world.admin(Command::Alert(AlertCommand::DeleteRule { rule: name("full") })).unwrap();
    assert_eq!(shown(&world).0, RESOLVED);
    assert_eq!(world.admin(acknowledge).unwrap_err().reason, Reason::AlertEnded);
}

/// Each signal: what makes it so, and that it is not so before.
#[test]
fn every_signal_is_seen() {
    let found = |world: &World, named: &str| {
        let rule = name(named);
        let fires = world.state.alerts_of(&rule).filter(|it| it.state == AlertState::Firing);
        fires.map(|alert| (alert.of.noun(), alert.name.clone(), alert.value)).collect::<Vec<_>>()
    };
    let mut world = world();
    let rises = Test::Rises { by: 10, within_ms: 60_000 };
    let labelled = |named: &str, signal, test| Rule {
        labels: [(name("tier"), "gold".to_owned())].into(),
        ..rule(named, signal, test, 0)
    };
    for rule in [
        rule("skew", Signal::ClockSkewMs, Test::Above(1_000), 0),
        rule("sync", Signal::SyncMs, Test::Above(5), 0),
        rule("expires", Signal::CertificateDays, Test::Below(1), 0),
        rule("fills", Signal::DiskUsedPercent, rises, 0),
        rule("lost", Signal::HostUp, Test::Below(1), 0),
        rule("silent", Signal::SilentVoters, Test::Above(0), 0),
        rule("risk", Signal::LosableVoters, Test::Below(1), 0),
        labelled("no-gold", Signal::VmRunning, Test::Absent),
    ] {
        set(&mut world, rule).unwrap();
    }
    world.tick(5_000);
    assert_eq!(found(&world, "no-gold"), [("cluster", "test".to_owned(), None)]);
    for quiet in ["skew", "sync", "expires", "fills", "lost", "silent", "risk"] {
        assert_eq!(found(&world, quiet), [], "{quiet}");
    }
    report(&mut world, 10, 0);
    world.tick(5_000);
    let node = |value: i64| vec![("node", "n1".to_owned(), Some(value))];
    assert_eq!((found(&world, "skew"), found(&world, "fills")), (vec![], vec![]));
    assert_eq!((found(&world, "sync"), found(&world, "expires")), (node(7), node(-1)));
    report(&mut world, 20, 2_100);
    let voters = AlertCommand::Voters { silent: 1, losable: 0 };
    world.node(Command::Alert(voters)).unwrap();
    world.tick(5_000);
    assert_eq!((found(&world, "skew"), found(&world, "fills")), (node(2_000), node(20)));
    let cluster = |value: i64| vec![("cluster", "test".to_owned(), Some(value))];
    // A single node can never lose one.
    assert_eq!((found(&world, "silent"), found(&world, "risk")), (cluster(1), vec![]));
    // It rises no more, the hosts are not heard of, and what the node said is old.
    world.tick(120_000);
    assert_eq!(found(&world, "fills"), []);
    assert_eq!(found(&world, "lost").len(), 3);
    assert_eq!((found(&world, "skew"), found(&world, "sync")), (vec![], vec![]));
}

/// A rule goes while somebody may still believe that its alert fires: its end is told.
#[test]
fn the_end_of_an_alert_is_told_before_it_is_forgotten() {
    let mut world = world();
    disk(&mut world, 90);
    world.tick(5_000);
    world.tick(10_000);
    notify(&mut world, 1).unwrap();
    // While it is told it is over, and so again.
    disk(&mut world, 10);
    world.tick(5_000);
    disk(&mut world, 90);
    world.tick(5_000);
    assert_eq!(shown(&world), (PENDING, Told::Nothing));
    disk(&mut world, 10);
    world.tick(5_000);
    assert_eq!(shown(&world), (RESOLVED, Told::Nothing), "it is not forgotten: it is being told");
    notified(&mut world, 1, AlertState::Firing, true);
    assert_eq!(shown(&world), (RESOLVED, Told::Firing));
    disk(&mut world, 90);
    world.tick(5_000);
    assert_eq!(shown(&world), (PENDING, Told::Firing));
    world.admin(Command::Alert(AlertCommand::DeleteRule { rule: name("full") })).unwrap();
    world.tick(2 * 3_600_000);
    assert_eq!(shown(&world), (RESOLVED, Told::Firing), "nobody knows yet");
    notify(&mut world, 2).unwrap();
    notified(&mut world, 2, AlertState::Resolved, true);
    world.tick(5_000);
    assert_eq!(shown(&world), (None, Told::Nothing));
}
