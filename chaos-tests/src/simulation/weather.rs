//! What befalls a simulated cluster: several things at once, each for a while.

use std::{collections::BTreeMap, time::Duration};

use turmoil::Sim;

use super::{
    node::{Ask, Machine, host, set_wall_clocks},
    nodes::Nodes,
    trace::Trace,
};

/// What may befall it.
const KINDS: [&str; 13] = [
    "alone",
    "halves",
    "deaf",
    "mute",
    "held",
    "slow",
    "kill",
    "power-cut",
    "power-cut-of-all",
    "snapshot",
    "hand-over",
    "voters",
    "clock-jump",
];

/// Things at one time.
const MOST: usize = 3;

/// Something that lasts.
enum Trouble {
    /// Nothing goes from the first to the second of each.
    Cut(Vec<(Machine, Machine)>),
    /// What goes between them waits.
    Held(Vec<(Machine, Machine)>),
    /// What goes between them takes long.
    Slow(Machine),
    /// Those do not run.
    Down(Vec<Machine>),
    /// Not all vote.
    Few,
}

pub(super) struct Weather {
    machines: u64,
    now: Vec<(Duration, Trouble)>,
    next: Duration,
    struck: BTreeMap<&'static str, u64>,
}

impl Weather {
    pub(super) fn new(machines: u64) -> Weather {
        set_wall_clocks(0);
        Weather { machines, now: Vec::new(), next: Duration::ZERO, struck: BTreeMap::new() }
    }

    /// How often each kind struck.
    pub(super) fn struck(self) -> BTreeMap<&'static str, u64> {
        self.struck
    }

    /// A moment passes: what has lasted long enough ends, and something new may come.
    pub(super) fn pass(&mut self, sim: &mut Sim<'static>, nodes: &Nodes, trace: &Trace) {
        let now = sim.elapsed();
        while let Some(at) = self.now.iter().position(|(until, _)| *until <= now) {
            let (_, trouble) = self.now.swap_remove(at);
            self.end(trouble, sim, nodes, trace);
        }
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(fastrand::u64(100..2_500));
        if self.now.len() < MOST {
            let kind = KINDS[fastrand::usize(..KINDS.len())];
            if let Some(trouble) = self.begin(kind, sim, nodes, trace) {
                let mut lasts = Duration::from_millis(fastrand::u64(200..5_000));
                // Some are started again at once, before anybody has missed them.
                if matches!(trouble, Some(Trouble::Down(_))) && fastrand::bool() {
                    lasts = Duration::from_millis(fastrand::u64(1..150));
                }
                self.now.extend(trouble.map(|trouble| (now + lasts, trouble)));
                *self.struck.entry(kind).or_default() += 1;
            }
        }
    }

    /// Everything ends.
    pub(super) fn clear(&mut self, sim: &mut Sim<'static>, nodes: &Nodes, trace: &Trace) {
        for (_, trouble) in std::mem::take(&mut self.now) {
            self.end(trouble, sim, nodes, trace);
        }
    }

    /// Begins something, if it can be: the answer is what is to end, or nothing when it is over already.
    fn begin(
        &self,
        kind: &'static str,
        sim: &mut Sim<'static>,
        nodes: &Nodes,
        trace: &Trace,
    ) -> Option<Option<Trouble>> {
        let running = nodes.running();
        // Half of the time whoever leads.
        let leader = nodes.leader().filter(|_| fastrand::bool());
        let one = leader.or_else(|| fastrand::choice(&running).copied())?;
        let others: Vec<Machine> = (1..=self.machines).filter(|other| *other != one).collect();
        let (to_it, from_it) = (
            others.iter().map(|other| (*other, one)).collect::<Vec<_>>(),
            others.iter().map(|other| (one, *other)).collect::<Vec<_>>(),
        );
        let mut what = host(one);
        let trouble = match kind {
            "alone" => self.cut(sim, [to_it, from_it].concat()),
            "deaf" => self.cut(sim, to_it),
            "mute" => self.cut(sim, from_it),
            "halves" => {
                let mut all: Vec<Machine> = (1..=self.machines).collect();
                fastrand::shuffle(&mut all);
                let (few, many) = all.split_at(all.len() / 2);
                what = format!("{few:?} and {many:?}");
                let pairs = few.iter().flat_map(|a| many.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
                self.cut(sim, pairs.collect())
            }
            "held" => {
                let free: Vec<_> = from_it
                    .into_iter()
                    .filter(|(a, b)| self.is_free((*a, *b)) && self.is_free((*b, *a)))
                    .collect();
                free.iter().for_each(|(a, b)| sim.hold(host(*a), host(*b)));
                Trouble::Held(free)
            }
            "slow" if self.now.iter().any(|(_, it)| matches!(it, Trouble::Slow(_))) => return None,
            "voters" if self.now.iter().any(|(_, it)| matches!(it, Trouble::Few)) => return None,
            "slow" => {
                for other in &others {
                    let most = Duration::from_millis(fastrand::u64(50..400));
                    sim.set_link_max_message_latency(host(one), host(*other), most);
                }
                Trouble::Slow(one)
            }
            "kill" | "power-cut" => {
                let lost = nodes.crash(sim, one, kind == "power-cut");
                what = format!("{what}, {lost} records");
                Trouble::Down(vec![one])
            }
            "power-cut-of-all" => {
                let lost: usize = running.iter().map(|one| nodes.crash(sim, *one, true)).sum();
                what = format!("{running:?}, {lost} records");
                Trouble::Down(running)
            }
            "clock-jump" => {
                let off_ms = fastrand::i64(-300_000..300_000);
                set_wall_clocks(off_ms);
                trace.note(&format!("{:?} the wall clocks are {off_ms} ms off", sim.elapsed()));
                return Some(None);
            }
            "snapshot" => {
                nodes.ask(one, Ask::Snapshot);
                trace.note(&format!("{:?} snapshot {what}", sim.elapsed()));
                return Some(None);
            }
            "voters" => {
                let mut all: Vec<Machine> = (1..=self.machines).collect();
                fastrand::shuffle(&mut all);
                all.truncate(fastrand::usize(3..=all.len()));
                nodes.let_vote(&all);
                what = format!("{all:?}");
                Trouble::Few
            }
            _ => {
                let to = nodes.id(*fastrand::choice(&others)?);
                nodes.ask(one, Ask::HandOver(to));
                trace.note(&format!("{:?} hand-over {what} to {to}", sim.elapsed()));
                return Some(None);
            }
        };
        if matches!(&trouble, Trouble::Cut(pairs) | Trouble::Held(pairs) if pairs.is_empty()) {
            return None;
        }
        trace.note(&format!("{:?} {kind} {what}", sim.elapsed()));
        Some(Some(trouble))
    }

    fn cut(&self, sim: &Sim<'static>, pairs: Vec<(Machine, Machine)>) -> Trouble {
        let free: Vec<_> = pairs.into_iter().filter(|pair| self.is_free(*pair)).collect();
        free.iter().for_each(|(from, to)| sim.partition_oneway(host(*from), host(*to)));
        Trouble::Cut(free)
    }

    /// Whether nothing is done to what goes from the first to the second: one thing is taken away by whoever
    /// brought it.
    fn is_free(&self, (from, to): (Machine, Machine)) -> bool {
        !self.now.iter().any(|(_, trouble)| match trouble {
            Trouble::Cut(pairs) => pairs.contains(&(from, to)),
            // A link is held in both directions.
            Trouble::Held(pairs) => pairs.contains(&(from, to)) || pairs.contains(&(to, from)),
            Trouble::Slow(_) | Trouble::Down(_) | Trouble::Few => false,
        })
    }

    fn end(&self, trouble: Trouble, sim: &mut Sim<'static>, nodes: &Nodes, trace: &Trace) {
        let at = sim.elapsed();
        match trouble {
            Trouble::Cut(pairs) => {
                trace.note(&format!("{at:?} {} links carry again", pairs.len()));
                pairs.iter().for_each(|(from, to)| sim.repair_oneway(host(*from), host(*to)));
            }
            Trouble::Held(pairs) => {
                trace.note(&format!("{at:?} {} links let go", pairs.len()));
                pairs.iter().for_each(|(a, b)| sim.release(host(*a), host(*b)));
            }
            Trouble::Slow(one) => {
                trace.note(&format!("{at:?} n{one} is fast again"));
                for other in (1..=self.machines).filter(|other| *other != one) {
                    let most = Duration::from_millis(3);
                    sim.set_link_max_message_latency(host(one), host(other), most);
                }
            }
            Trouble::Few => {
                trace.note(&format!("{at:?} all vote again"));
                nodes.let_vote(&[]);
            }
            Trouble::Down(machines) => {
                for machine in machines.iter().filter(|one| nodes.store(**one).is_none()) {
                    trace.note(&format!("{at:?} n{machine} starts"));
                    nodes.start(sim, *machine);
                }
            }
        }
    }
}
