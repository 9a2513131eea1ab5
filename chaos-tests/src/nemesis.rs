//! Who strikes: faults of every kind, one after the other in each lane, and beside each other in several.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    fault::{Fault, KINDS, Kind, Lane, Site},
    history::History,
};

/// How long a fault lasts, and how long its lane is quiet then, milliseconds.
const FAULT_MS: std::ops::Range<u64> = 2_000..7_000;
/// One in so many lasts longer than the lease of a host; half as many of a kind that was not seen to happen yet.
const LONG_ONE_IN: u8 = 5;
const LONG_MS: std::ops::Range<u64> = 12_000..20_000;
const QUIET_MS: std::ops::Range<u64> = 1_000..5_000;
/// How many times in a round what comes more often comes.
const OFTEN: usize = 4;
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(500);

/// A fault that was struck. Times are nanoseconds since the run began.
#[derive(Clone, Debug, Serialize)]
pub struct Strike {
    /// Its kind.
    pub kind: &'static str,
    /// When it was struck.
    pub begun_ns: u64,
    /// When it was mended.
    pub ended_ns: u64,
    /// Whom it struck, from 0.
    pub nodes: Vec<usize>,
    /// Whether the leader was among them.
    pub leader: bool,
    /// How it is known to have happened; none when it is not.
    pub proof: Option<String>,
    /// Why there is no proof.
    pub doubt: Option<String>,
}

/// Who led, as far as anybody said.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reign {
    /// From when on, nanoseconds since the run began.
    pub since_ns: u64,
    /// The node, from 0; none while nobody was known.
    pub leader: Option<usize>,
    /// Its term.
    pub term: u64,
}

/// What has befallen a cluster.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    pub strikes: Vec<Strike>,
    pub reigns: Vec<Reign>,
    /// Nodes that ended by themselves, and how; each way once.
    pub ended: BTreeSet<(usize, String)>,
}

impl Storm {
    /// Kinds of which nobody knows for certain that they have struck the leader.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let hit = |kind: &str| {
            let mut strikes = self.strikes.iter().filter(|strike| strike.kind == kind);
            strikes.any(|strike| strike.leader && strike.proof.is_some())
        };
        KINDS.iter().map(|kind| kind.name).filter(|kind| !hit(kind)).collect()
    }
}

/// A lane: what it does next, and what is under way.
struct Course {
    /// Kinds that are still to come in this round.
    round: Vec<&'static Kind>,
    lane: Lane,
    /// Kinds that come more often.
    often: &'static [&'static str],
    random: fastrand::Rng,
    next: Instant,
    /// What comes next, when it could not be struck yet.
    drawn: Option<Turn>,
    under_way: Option<(Box<dyn Fault>, Strike)>,
}

/// What comes next in a lane. It is drawn once, however long it has to wait for somebody to strike.
struct Turn {
    kind: &'static Kind,
    at_leader: bool,
    /// What the fault itself draws from.
    random: fastrand::Rng,
    lasts: Duration,
}

impl Course {
    fn new(lane: Lane, seed: u64, often: &'static [&'static str]) -> Course {
        // Its own: what one lane draws does not depend on how the others get on.
        let random = fastrand::Rng::with_seed(seed ^ (lane as u64 + 1));
        let (next, drawn, under_way) = (Instant::now(), None, None);
        let mut course = Course { round: Vec::new(), lane, often, random, next, drawn, under_way };
        course.next = Instant::now() + course.duration(QUIET_MS);
        course
    }

    fn duration(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(ms))
    }

    /// What comes next. Kinds that are missing come before the others of a round.
    fn draw(&mut self, missing: &[&str]) -> Turn {
        if let Some(drawn) = self.drawn.take() {
            return drawn;
        }
        if self.round.is_empty() {
            let often = |kind: &Kind| self.often.contains(&kind.name);
            let times = |kind: &Kind| if often(kind) { OFTEN } else { 1 };
            let ours = KINDS.iter().filter(|kind| kind.lane == self.lane);
            self.round = ours.flat_map(|kind| std::iter::repeat_n(kind, times(kind))).collect();
            self.random.shuffle(&mut self.round);
            // The last one comes next.
            self.round.sort_by_key(|kind| missing.contains(&kind.name) || often(kind));
        }
        let kind = self.round.pop().expect("every lane has kinds");
        let at_leader = self.random.bool() || missing.contains(&kind.name);
        // What is still to be seen is over sooner.
        let one_in = if missing.contains(&kind.name) { 2 * LONG_ONE_IN } else { LONG_ONE_IN };
        let is_long = self.random.u8(..one_in) == 0 || kind.is_slow;
        let lasts = self.duration(if is_long { LONG_MS } else { FAULT_MS });
        let random = self.random.fork();
        Turn { kind, at_leader, random, lasts }
    }
}

pub(crate) struct Nemesis<'a> {
    pub seed: u64,
    /// Kinds that come more often.
    pub often: &'static [&'static str],
    pub site: &'a mut Site,
    pub history: &'a History,
    pub tell: &'a (dyn Fn(&str) + Sync),
}

impl Nemesis<'_> {
    /// Strikes until `is_enough`, and mends everything.
    ///
    /// # Errors
    /// When something cannot be struck or mended: then what was seen means nothing.
    pub(crate) async fn rage(
        &mut self,
        mut is_enough: impl FnMut(&Storm) -> bool,
    ) -> Result<Storm> {
        let mut storm = Storm::default();
        let mut courses = Lane::ALL.map(|lane| Course::new(lane, self.seed, self.often));
        while !is_enough(&storm) {
            self.site.tidy().await?;
            self.look(&mut storm).await?;
            for course in &mut courses {
                if Instant::now() < course.next {
                    continue;
                }
                if course.under_way.is_some() {
                    self.mend(course, &mut storm).await?;
                } else {
                    self.strike(course, &mut storm).await?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        for course in &mut courses {
            self.mend(course, &mut storm).await?;
        }
        storm.strikes.sort_by_key(|strike| strike.begun_ns);
        Ok(storm)
    }

    async fn look(&mut self, storm: &mut Storm) -> Result<()> {
        storm.ended.extend(self.site.restart_ended()?);
        let Some(term) = self.site.look().await else { return Ok(()) };
        let (since_ns, leader) = (self.history.now_ns(), self.site.leader);
        let last = storm.reigns.last();
        if last.is_none_or(|last| (last.leader, last.term) != (leader, term)) {
            storm.reigns.push(Reign { since_ns, leader, term });
        }
        Ok(())
    }

    async fn strike(&mut self, course: &mut Course, storm: &mut Storm) -> Result<()> {
        let turn = course.draw(&storm.missing());
        // Whom it strikes must not be whom an earlier look saw.
        self.look(storm).await?;
        let (kind, lasts) = (turn.kind, turn.lasts);
        self.site.at_leader = turn.at_leader;
        self.site.random = turn.random.clone();
        let (mut fault, begun_ns) = ((kind.make)(), self.history.now_ns());
        let lacks_leader = turn.at_leader && self.site.leader.is_none();
        let nodes = if lacks_leader {
            Vec::new()
        } else {
            fault.strike(self.site).await.with_context(|| format!("cannot strike {}", kind.name))?
        };
        if nodes.is_empty() {
            // It comes again when there is somebody to be struck.
            course.drawn = Some(turn);
            course.next = Instant::now() + LOOK;
            return Ok(());
        }
        let leader = self.site.leader.is_some_and(|leader| nodes.contains(&leader));
        let named: Vec<String> = nodes.iter().map(|node| format!("n{}", node + 1)).collect();
        let at_leader = if leader { ", the leader too" } else { "" };
        (self.tell)(&format!("{} at {}{at_leader}", kind.name, named.join(" ")));
        let strike = Strike {
            kind: kind.name,
            begun_ns,
            ended_ns: begun_ns,
            nodes,
            leader,
            proof: None,
            doubt: None,
        };
        course.under_way = Some((fault, strike));
        course.next = Instant::now() + lasts;
        Ok(())
    }

    async fn mend(&mut self, course: &mut Course, storm: &mut Storm) -> Result<()> {
        let Some((mut fault, mut strike)) = course.under_way.take() else { return Ok(()) };
        let proof = fault.mend(self.site).await;
        match proof.with_context(|| format!("cannot mend {}", strike.kind))? {
            Ok(proof) => strike.proof = Some(proof),
            Err(doubt) => strike.doubt = Some(doubt),
        }
        strike.ended_ns = self.history.now_ns();
        storm.strikes.push(strike);
        course.next = Instant::now() + course.duration(QUIET_MS);
        Ok(())
    }
}
