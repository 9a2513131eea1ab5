//! What dies, is cut or is struck while a guest moves, and where.

use std::{fmt, time::Duration};

use client::{
    Client,
    v1::{self, operations_client::OperationsClient},
};
use novacron_lab::{
    Cluster, Proxy,
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

/// When it strikes: when the step begins, and in the copy also somewhat later.
const MOMENTS: [(&str, u64); 6] =
    [("prepare", 0), ("copy", 0), ("copy", 1_500), ("copy", 3_600), ("validate", 0), ("retire", 0)];

/// One fault at one moment: a step, and milliseconds after it began.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub fault: Fault,
    pub moment: Option<(&'static str, u64)>,
}

impl Case {
    pub fn all() -> Vec<Case> {
        let timed = FAULTS
            .iter()
            .flat_map(|fault| MOMENTS.map(|moment| Case { fault: *fault, moment: Some(moment) }));
        // Shorter than what the daemons take for a broken connection.
        let blows = [Blow::Drop, Blow::Hold(Duration::from_secs(4)), Blow::Hole];
        let messages = [Procedure::Prepare, Procedure::Finish].into_iter().flat_map(|procedure| {
            [Side::Call, Side::Reply].map(|side| Message { procedure, side })
        });
        let strikes = messages.flat_map(|message| blows.map(|blow| Strike { blow, message }));
        let struck = strikes.map(|strike| Case { fault: Fault::Message(strike), moment: None });
        timed.chain(struck).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moment {
            Some((step, later)) => write!(f, "{} at {step}+{later} ms", self.fault),
            None => write!(f, "{}", self.fault),
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

/// What must be mended.
#[derive(Default)]
pub struct Damage {
    /// A node that was killed.
    pub node: Option<usize>,
    /// Who stands between two daemons.
    pub proxy: Option<Proxy>,
    /// Whether it was there to be struck.
    pub hit: bool,
}

impl Fault {
    /// For how long it lasts: libvirt takes some seconds to notice a link that carries nothing.
    pub fn lasts(self) -> Duration {
        let silent = match self {
            Fault::Link => true,
            Fault::Message(strike) => strike.blow != Blow::Drop,
            Fault::SourceNode
            | Fault::TargetNode
            | Fault::Leader
            | Fault::SourceDriver
            | Fault::TargetDriver
            | Fault::SourceLibvirtd
            | Fault::TargetLibvirtd
            | Fault::SourceGuest
            | Fault::TargetGuest
            | Fault::Cancel => false,
        };
        Duration::from_secs(if silent { 12 } else { 1 })
    }

    /// Strikes a VM's migration between two nodes.
    pub async fn strike(
        self,
        cluster: &mut Cluster,
        client: &Client,
        vm: &str,
        (source, target): (usize, usize),
        operation: &str,
    ) -> Damage {
        let leader = cluster.leader().await.unwrap().unwrap_or(source);
        let kill = |cluster: &mut Cluster, node| {
            cluster.kill(node).unwrap();
            Damage { node: Some(node), proxy: None, hit: true }
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
            Fault::Message(strike) => {
                let proxy = cluster.intercept(target, strike).unwrap();
                return Damage { node: None, proxy: Some(proxy), hit: false };
            }
        };
        Damage { node: None, proxy: None, hit }
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
