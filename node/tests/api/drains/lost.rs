//! Hosts that are lost while drains and restores are under way.

use domain::operation::Kind;

use super::{Before, Drains, HOSTS, REFUGES, Trial, refuges};
use crate::{
    migration::host,
    scripted::{Fault, until},
    stage::{NODES, all, host_name},
};

impl Drains {
    /// A node and its hosts are lost while calls are held: hosts that are left, hosts that are come to, and,
    /// with the leader, neither.
    pub(super) async fn lose(&mut self, steps: &[(Kind, usize)], lost: usize, lapses: bool) {
        self.stage.lab.await_voters(NODES).await;
        let ways: &[&str] = if lapses { &["from", "to"] } else { &["from", "to", "neither"] };
        // Which hosts of a trial are lost: its own, or the refuges that it uses.
        let own = |kind, way| (kind == Kind::Drain) == (way == "from") && way != "neither";
        let away = |kind, way| (kind == Kind::Drain) == (way == "to") && way != "neither";
        let mut hosts: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
        for number in (0..REFUGES.start).rev() {
            hosts[usize::from(number % NODES == lost)].push(number);
        }
        let mut trials = Vec::new();
        for ((kind, at), way) in steps.iter().flat_map(|step| ways.iter().map(move |w| (*step, *w)))
        {
            let number = hosts[usize::from(own(kind, way))].pop().expect("there are enough");
            let name = if way == "neither" {
                "leader lost".to_owned()
            } else {
                format!("host lost ({way})")
            };
            let trial = Trial { number, ..Trial::new(kind, at, Fault::Holds, &name) };
            trials.push((trial, away(kind, way)));
        }
        let all_trials: Vec<Trial> = trials.iter().map(|(trial, _)| trial.clone()).collect();
        self.make(&all_trials).await;
        self.stage.script.hold();
        let is_lost = |host: &str| {
            (0..HOSTS).any(|number| number % NODES == lost && host_name(number) == host)
        };
        let mut asked = Vec::new();
        for there in [false, true] {
            self.stage.open(&refuges(), |host| is_lost(host) == there).await;
            let some = |kind| {
                trials.iter().filter(move |(trial, away)| trial.kind == kind && *away == there)
            };
            self.drain(some(Kind::Restore).map(|(trial, _)| trial)).await;
            let drains = some(Kind::Drain).map(|(trial, _)| trial).collect();
            asked.extend(all(drains, async |trial| (trial, self.ask(trial).await)).await);
        }
        let restores = all_trials.iter().filter(|trial| trial.kind == Kind::Restore).collect();
        asked.extend(all(restores, async |trial| (trial, self.ask(trial).await)).await);
        self.stage.open(&refuges(), |_| true).await;
        let asked: Vec<(Trial, Before)> =
            asked.into_iter().map(|(trial, before)| (trial.clone(), before)).collect();

        self.stage.lab.cluster.stop_node(lost).await;
        for number in (0..HOSTS).filter(|number| number % NODES == lost) {
            self.stage.script.forget(&host_name(number));
        }
        self.stage.script.release();
        if lapses {
            let name = host_name(lost);
            until("the loss", async || host(&self.stage.client, &name).await.status == "lost")
                .await;
        }
        self.stage.lab.cluster.start_node(lost).await.unwrap();
        let now = &*self;
        all(asked, async |(trial, before)| now.check(&trial, &before).await).await;
        now.clear(&all_trials).await;
    }
}
