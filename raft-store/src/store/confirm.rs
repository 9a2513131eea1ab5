//! A leader makes sure that it still leads, once for all who ask at one time: a majority says that it has promised
//! itself to nobody else. Why that suffices: docs/adr/0022-a-majority-that-promised-nothing.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use domain::id::NodeId;
use futures_util::{
    Stream, StreamExt, TryStreamExt, future,
    stream::{self, BoxStream, SelectAll},
};
use proto::peer::Frame;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tonic::Status;

use crate::{
    transport::{
        Pool,
        wire::{self, Confirm, Confirmed},
    },
    types::Ballot,
    wal::Journal,
};

/// How long a majority may take. Then it is found out in another way.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two attempts to reach a node that could not be reached.
const REST: Duration = Duration::from_millis(100);
/// Who waits to ask; more than that have it found out in another way.
const WAITING_MAX: usize = 4_096;
/// Questions to one node that are on their way. One at a time is asked, and few go unanswered.
const ASKED_MAX: usize = 8;

/// Whom to ask whether this node still leads.
pub(crate) struct Confirmer(mpsc::Sender<Ask>);

/// Whether a ballot still holds, by sets of voters of each of which a majority is needed, and who wants to know.
struct Ask {
    ballot: Ballot,
    electorates: BTreeSet<BTreeSet<NodeId>>,
    tell: oneshot::Sender<bool>,
}

impl Confirmer {
    /// One that ends when it is dropped.
    pub(crate) fn start(me: NodeId, pool: Arc<Pool>, log: Arc<dyn Journal>) -> Confirmer {
        let (sender, asks) = mpsc::channel(WAITING_MAX);
        let (links, answers, number) = (BTreeMap::new(), SelectAll::new(), 0);
        tokio::spawn(Rounds { me, pool, log, links, answers, number }.run(asks));
        Confirmer(sender)
    }

    /// Whether nobody can have been elected after `ballot`, by any of these sets of voters, before this was asked. False
    /// is no evidence of anything.
    pub(crate) async fn holds(
        &self,
        ballot: Ballot,
        electorates: BTreeSet<BTreeSet<NodeId>>,
    ) -> bool {
        let (tell, told) = oneshot::channel();
        self.0.try_send(Ask { ballot, electorates, tell }).is_ok() && told.await.unwrap_or(false)
    }
}

/// What came from a node.
type Answer = (NodeId, Result<Confirmed, Status>);

struct Rounds {
    me: NodeId,
    pool: Arc<Pool>,
    log: Arc<dyn Journal>,
    links: BTreeMap<NodeId, Link>,
    answers: SelectAll<BoxStream<'static, Answer>>,
    /// Of the newest question.
    number: u64,
}

/// The way to a node.
enum Link {
    Open(mpsc::Sender<Frame>),
    /// Not before then.
    Broken(Instant),
}

impl Rounds {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            let first = tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    Some(ask) => ask,
                    None => return,
                },
                // What comes too late tells at least which nodes cannot be reached.
                Some((node, answer)) = self.answers.next() => {
                    self.note(node, answer.err());
                    continue;
                }
            };
            let mut waiting = vec![first];
            while let Ok(ask) = asks.try_recv() {
                waiting.push(ask);
            }
            let ballot = waiting[0].ballot;
            let sets = waiting.iter_mut().flat_map(|ask| std::mem::take(&mut ask.electorates));
            let asked = self.ask_all(ballot, sets.collect());
            let held = tokio::time::timeout(PATIENCE, asked).await.unwrap_or(false);
            for ask in waiting {
                // Who asks may have gone.
                let _ = ask.tell.send(held && ask.ballot == ballot);
            }
        }
    }

    /// Asks every voter, and waits for a majority of each set.
    async fn ask_all(&mut self, ballot: Ballot, voters: BTreeSet<BTreeSet<NodeId>>) -> bool {
        let others: BTreeSet<NodeId> =
            voters.iter().flatten().copied().filter(|node| *node != self.me).collect();
        self.number += 1;
        let question = wire::pack(&Confirm { number: self.number, ballot });
        // Who votes no more is not asked any more.
        self.links.retain(|node, _| others.contains(node));
        let mut silent = BTreeSet::new();
        for node in others {
            if !self.ask(node, question.clone()) {
                silent.insert(node);
            }
        }
        let mut agree: BTreeSet<NodeId> = [self.me].into();
        loop {
            if is_majority(&voters, |node| agree.contains(&node)) {
                // Its own promise is one of the majority's, and the last that was looked at.
                return holds(&*self.log, ballot);
            }
            if !is_majority(&voters, |node| !silent.contains(&node)) {
                return false;
            }
            let Some((node, answer)) = self.answers.next().await else { return false };
            match answer {
                Ok(Confirmed { number, holds }) if number == self.number => {
                    let side = if holds { &mut agree } else { &mut silent };
                    side.insert(node);
                }
                Ok(_) => {}
                Err(status) => {
                    silent.insert(node);
                    self.note(node, Some(status));
                }
            }
        }
    }

    /// Sends a question to a node; whether there is a way to it.
    fn ask(&mut self, node: NodeId, question: Frame) -> bool {
        if let Some(Link::Broken(until)) = self.links.get(&node)
            && Instant::now() < *until
        {
            return false;
        }
        if let Some(Link::Open(questions)) = self.links.get(&node) {
            // One that has not answered so many does not answer this one either.
            return questions.try_send(question).is_ok();
        }
        let Some(address) = self.pool.address(node) else { return false };
        let (questions, asked) = mpsc::channel(ASKED_MAX);
        let _ = questions.try_send(question);
        self.links.insert(node, Link::Open(questions));
        self.answers.push(answers(&self.pool, node, &address, asked));
        true
    }

    /// Takes note of a way that broke.
    fn note(&mut self, node: NodeId, broken: Option<Status>) {
        if let Some(status) = broken {
            self.pool.heed(&status);
            self.links.insert(node, Link::Broken(Instant::now() + REST));
        }
    }
}

/// What a node answers to what it is asked, from when it is reached on. It ends with why it broke.
fn answers(
    pool: &Pool,
    node: NodeId,
    address: &str,
    asked: mpsc::Receiver<Frame>,
) -> BoxStream<'static, Answer> {
    let asked = stream::unfold(asked, async |mut asked| Some((asked.recv().await?, asked)));
    let request = pool.request(node, asked);
    let mut client = pool.client(node, address);
    let opened = async move { client.confirm(request).await.map(tonic::Response::into_inner) };
    let answers = stream::once(opened).try_flatten();
    let answers = answers.map(|frame| wire::unpack(&frame?));
    let ended = stream::once(future::ready(Err(Status::unavailable("the node has gone"))));
    until_broken(answers.chain(ended)).map(move |answer| (node, answer)).boxed()
}

/// What comes up to the first that says that no more comes.
fn until_broken(
    answers: impl Stream<Item = Result<Confirmed, Status>> + Send,
) -> impl Stream<Item = Result<Confirmed, Status>> + Send {
    answers.scan(false, |broken, answer| {
        let before = std::mem::replace(broken, answer.is_err());
        future::ready((!before).then_some(answer))
    })
}

/// Whether a node has promised itself to nobody after `ballot`. What it promises is in its log before anybody hears
/// of it.
pub(crate) fn holds(log: &dyn Journal, ballot: Ballot) -> bool {
    let promised = log.index().ballot;
    promised.is_some_and(|it| (it.term, it.node) == (ballot.term, ballot.node))
}

/// Whether those who `count` are a majority of each set.
fn is_majority(sets: &BTreeSet<BTreeSet<NodeId>>, count: impl Fn(NodeId) -> bool) -> bool {
    let majority = |set: &BTreeSet<NodeId>| {
        let counted = set.iter().filter(|node| count(**node)).count();
        counted * 2 > set.len()
    };
    !sets.is_empty() && sets.iter().all(majority)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{holds, is_majority};
    use crate::{
        types::Ballot,
        wal::{Journal, Record, Wal, WalOptions},
    };

    /// Whoever has promised itself says so from then on, whether or not that is on its disk yet.
    #[tokio::test]
    async fn a_promise_to_another_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let log = Wal::open(directory.path(), WalOptions::default(), false).unwrap();
        let ballot = |term, node, committed| Ballot { term, node, committed };
        let leads = ballot(3, 2, true);
        assert!(!holds(&log, leads));
        // What is promised after that, and whether the leader's ballot still holds then.
        let steps = [
            (ballot(3, 2, false), true),
            (leads, true),
            (ballot(3, 4, false), false),
            (ballot(3, 2, true), true),
            (ballot(4, 2, false), false),
            (ballot(5, 1, true), false),
        ];
        for (promised, still) in steps {
            log.write(vec![Record::Ballot(promised)], Box::new(|_| ()));
            assert_eq!(holds(&log, leads), still, "{promised:?}");
        }
        log.close();
    }

    #[test]
    fn each_set_of_voters_must_agree() {
        let sets = |all: &[&[u64]]| -> BTreeSet<_> {
            all.iter().map(|set| set.iter().copied().collect()).collect()
        };
        // The sets, who agrees, and whether that is enough.
        type Row<'a> = (&'a [&'a [u64]], &'a [u64], bool);
        let table: &[Row] = &[
            (&[], &[1], false),
            (&[&[]], &[1], false),
            (&[&[1]], &[1], true),
            (&[&[2]], &[1], false),
            (&[&[1, 2, 3]], &[1], false),
            (&[&[1, 2, 3]], &[1, 3], true),
            (&[&[1, 2, 3]], &[1, 4, 5], false),
            (&[&[1, 2, 3, 4]], &[1, 2], false),
            (&[&[1, 2, 3, 4]], &[1, 2, 4], true),
            (&[&[1, 2, 3], &[3, 4, 5]], &[1, 2], false),
            (&[&[1, 2, 3], &[3, 4, 5]], &[1, 3, 5], true),
        ];
        for (all, agree, enough) in table {
            assert_eq!(
                is_majority(&sets(all), |node| agree.contains(&node)),
                *enough,
                "{all:?} {agree:?}"
            );
        }
    }
}
