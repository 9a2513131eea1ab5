//! What dies, is cut or is struck while a guest moves, and where.

use std::{fmt, time::Duration};

use client::{
    Client,
    v1::{self, operations_client::OperationsClient},
};
use novacron_lab::{
    Cluster,
    rpc::{Blow, Message, Procedure, Side, Strike},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    SourceNode,
    TargetNode,
    Leader,
    SourceDriver,
    TargetDriver,
    SourceLibvirtd,
    TargetLibvirtd,
    SourceGuest,
    TargetGuest,
    Link,
    Cancel,
    /// A message between the hosts' libvirt daemons; it is its own moment.
    Message(Strike),
}

/// What can strike at any moment.
const FAULTS: [Fault; 11] = [
    Fault::SourceNode,
    Fault::TargetNode,
    Fault::Leader,
    Fault::SourceDriver,
    Fault::TargetDriver,
    Fault::SourceLibvirtd,
    Fault::TargetLibvirtd,
    Fault::SourceGuest,
    Fault::TargetGuest,
    Fault::Link,
    Fault::Cancel,
];

/// When a fault strikes.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// So many milliseconds after a step has begun.
    Step(&'static str, u64),
    /// While the target says that the guest has come, and the source has not heard it yet: the switch is
    /// about to be made. The word is held up for a while.
    Switch,
    /// As the message comes by that is struck.
    Message,
}

/// In the copy also somewhat later.
const MOMENTS: [When; 7] = [
    When::Step("prepare", 0),
    When::Step("copy", 0),
    When::Step("copy", 1_500),
    When::Step("copy", 3_600),
    When::Switch,
    When::Step("validate", 0),
    When::Step("retire", 0),
];

/// Shorter than what the daemons take for a broken connection.
const HOLD: Blow = Blow::Hold(Duration::from_secs(4));

/// One fault at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub fault: Fault,
    pub when: When,
}

impl Case {
    pub fn all() -> Vec<Case> {
        let timed =
            FAULTS.iter().flat_map(|fault| MOMENTS.map(|when| Case { fault: *fault, when }));
        let messages = [Procedure::Prepare, Procedure::Finish].into_iter().flat_map(|procedure| {
            [Side::Call, Side::Reply].map(|side| Message { procedure, side })
        });
        let strikes = messages.flat_map(|message| {
            [Blow::Drop, HOLD, Blow::Hole].map(|blow| Strike { blow, message })
        });
        let struck =
            strikes.map(|strike| Case { fault: Fault::Message(strike), when: When::Message });
        timed.chain(struck).collect()
    }

    /// What is done to a message, if one is struck.
    pub fn message(self) -> Option<Strike> {
        let message = Message { procedure: Procedure::Finish, side: Side::Reply };
        match (self.fault, self.when) {
            (Fault::Message(strike), _) => Some(strike),
            (_, When::Switch) => Some(Strike { blow: HOLD, message }),
            (_, When::Step(..) | When::Message) => None,
        }
    }

    /// For how long it lasts: libvirt takes some seconds to notice a link that carries nothing.
    pub fn lasts(self) -> Duration {
        let held = self.message().is_some_and(|strike| strike.blow != Blow::Drop);
        Duration::from_secs(if held || self.fault == Fault::Link { 12 } else { 1 })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::Step(step, later) => write!(f, "{} at {step}+{later} ms", self.fault),
            When::Switch => write!(f, "{} at switch", self.fault),
            When::Message => write!(f, "{}", self.fault),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Message(strike) => write!(f, "{strike}"),
            Fault::SourceNode
            | Fault::TargetNode
            | Fault::Leader
            | Fault::SourceDriver
            | Fault::TargetDriver
            | Fault::SourceLibvirtd
            | Fault::TargetLibvirtd
            | Fault::SourceGuest
            | Fault::TargetGuest
            | Fault::Link
            | Fault::Cancel => write!(f, "{self:?}"),
        }
    }
}

/// The nodes that a migration is about.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub source: usize,
    pub target: usize,
    pub leader: usize,
}

/// What a strike came to.
pub struct Struck {
    /// Whether there was something to be struck.
    pub hit: bool,
    /// A node that must be started again.
    pub node: Option<usize>,
}

impl Fault {
    /// Strikes a VM's migration.
    pub async fn strike(
        self,
        cluster: &mut Cluster,
        client: &Client,
        vm: &str,
        At { source, target, leader }: At,
        operation: &str,
    ) -> Struck {
        let kill = |cluster: &mut Cluster, node| {
            cluster.kill(node).unwrap();
            Struck { hit: true, node: Some(node) }
        };
        let hit = match self {
            Fault::SourceNode => return kill(cluster, source),
            Fault::TargetNode => return kill(cluster, target),
            Fault::Leader => return kill(cluster, leader),
            Fault::SourceDriver => cluster.kill_driver(source).is_ok(),
            Fault::TargetDriver => cluster.kill_driver(target).is_ok(),
            Fault::SourceLibvirtd => cluster.kill_libvirtd(source).is_ok(),
            Fault::TargetLibvirtd => cluster.kill_libvirtd(target).is_ok(),
            // There may be none there at the moment.
            Fault::SourceGuest => cluster.kill_guest(source, vm).is_ok_and(|count| count > 0),
            Fault::TargetGuest => cluster.kill_guest(target, vm).is_ok_and(|count| count > 0),
            Fault::Link => cluster.cut(&[(source, target), (target, source)]).is_ok(),
            Fault::Cancel => cancel(client, operation).await.is_ok(),
            // Somebody stands between the hosts and has done it.
            Fault::Message(_) => true,
        };
        Struck { hit, node: None }
    }
}

async fn cancel(client: &Client, operation: &str) -> Result<v1::Outcome, client::Error> {
    let request = v1::CancelOperationRequest {
        mutation: client.mutation().await?,
        operation: operation.to_owned(),
    };
    client
        .call(request, async |channel, request| {
            OperationsClient::new(channel).cancel_operation(request).await
        })
        .await
}
