//! What a program does that is older than what it finds.

use domain::{
    cluster::{ClusterCommand, PROTOCOL_VERSION},
    codec,
    envelope::{Command, Envelope},
    node::{Health, NodeCommand},
    principal::Principal,
};

use super::{at, command, view};
use crate::{
    DamageError,
    machine::Successor,
    snapshot::{Header, list, read, write},
    types::{Answer, LogEntry, Members, Payload},
    view::View,
};

const NEWER: u32 = PROTOCOL_VERSION + 1;

fn take(after: &mut Successor, index: u64, envelope: &Envelope) -> std::io::Result<Answer> {
    let payload = Payload::Proposal(codec::encode(envelope).into());
    after.take(LogEntry { at: at(index), payload })
}

fn by_node(command: Command) -> Envelope {
    let (principal, request) = (Principal::Node(1), None);
    Envelope { at_ms: 9, wall_ms: 9, principal, request, trace: None, command }
}

fn says_what_to_do(stopped: &std::io::Result<Answer>) -> bool {
    let error = stopped.as_ref().err().map(ToString::to_string).unwrap_or_default();
    error.contains("install the newer program")
}

#[test]
fn it_stops_where_a_newer_protocol_begins() {
    let mut founded = command(1);
    if let Command::Cluster(ClusterCommand::Found(founding)) = &mut founded.command {
        founding.protocol_version = NEWER;
    }
    assert!(says_what_to_do(&take(&mut Successor::of(View::default()), 1, &founded)));

    // What the law refuses changes nothing, and stops nobody.
    let raise = by_node(Command::Cluster(ClusterCommand::Raise { to: NEWER }));
    let mut after = Successor::of(view(3));
    let refused = take(&mut after, 4, &raise).unwrap();
    assert!(matches!(refused, Answer(Some(Err(_)))), "{refused:?}");
    let report = Health {
        disk_used_percent: 1,
        condition: None,
        version: "0.9.0".to_owned(),
        protocol_max: NEWER,
        peer_address: String::new(),
        api_address: String::new(),
    };
    let report = by_node(Command::Node(NodeCommand::Report(Box::new(report))));
    take(&mut after, 5, &report).unwrap().0.unwrap().unwrap();
    assert!(says_what_to_do(&take(&mut after, 6, &raise)));
}

#[test]
fn a_snapshot_of_a_newer_protocol_is_whole_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = view(30).state;
    state.protocol_version = NEWER;
    let header = Header { at: Some(at(30)), members: Members::default(), members_at: None };
    let file = write(directory.path(), header, &state).unwrap();
    let refused = read(&file.path).unwrap_err();
    assert!(matches!(refused, DamageError::Newer { .. }), "{refused}");
    assert!(refused.to_string().contains("install the newer program"), "{refused}");
    assert_eq!(list(directory.path()).unwrap(), [file.path]);
}
