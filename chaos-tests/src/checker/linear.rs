//! Whether what was seen of one object is what a single one, used by one at a time, could have shown: some
//! order of the operations, each between its call and its answer, in which every answer is right. The search
//! is that of Wing and Gong, with what Lowe added: what was tried is remembered.

use std::{collections::HashSet, hash::Hash};

/// An object.
pub(crate) trait Model {
    /// What it holds.
    type State: Clone + Eq + Hash;
    /// What is done to it, with the answer if one is known.
    type Step;

    /// What it holds afterwards; none when it cannot have answered so. A step whose answer is not known is
    /// possible in every state.
    fn apply(state: &Self::State, step: &Self::Step) -> Option<Self::State>;
}

/// Something that was done.
#[derive(Clone, Debug)]
pub(crate) struct Entry<S> {
    pub invoked_ns: u64,
    /// None when the answer never came: then it is done at any time after, or never.
    pub returned_ns: Option<u64>,
    pub step: S,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linear {
    Yes,
    /// In no order. The entry that no order gets past, when it was tried longest.
    No(usize),
    /// The search was given up.
    Undecided,
}

/// A call or an answer, in a list from which entries are taken and put back.
#[derive(Clone, Copy)]
struct Node {
    entry: usize,
    /// Where the answer is, of a call.
    answer: Option<usize>,
    before: usize,
    after: usize,
}

/// Searches for an order, over so many states at most.
pub(crate) fn linearize<M: Model>(
    start: M::State,
    entries: &[Entry<M::Step>],
    states_max: usize,
) -> Linear {
    let mut nodes = list(entries);
    let mut known = entries.iter().filter(|entry| entry.returned_ns.is_some()).count();
    let mut done = vec![0_u64; entries.len().div_ceil(64)];
    let (mut tried, mut taken) = (HashSet::new(), Vec::new());
    let (mut state, mut at) = (start, nodes[0].after);
    let (mut furthest, mut stuck) = (0, 0);
    while known > 0 {
        let Node { entry, answer, after, .. } = nodes[at];
        let is_known = usize::from(entries[entry].returned_ns.is_some());
        if let Some(answer) = answer {
            let next = M::apply(&state, &entries[entry].step);
            let bit = (entry / 64, 1 << (entry % 64));
            done[bit.0] |= bit.1;
            if let Some(next) = next.filter(|next| tried.insert((done.clone(), next.clone()))) {
                if tried.len() > states_max {
                    return Linear::Undecided;
                }
                taken.push((at, std::mem::replace(&mut state, next)));
                known -= is_known;
                take(&mut nodes, at);
                take(&mut nodes, answer);
                at = nodes[0].after;
            } else {
                done[bit.0] &= !bit.1;
                at = after;
            }
            continue;
        }
        // It was answered here, and is not done: what was done last must come later.
        if taken.len() >= furthest {
            (furthest, stuck) = (taken.len(), entry);
        }
        let Some((last, before)) = taken.pop() else { return Linear::No(stuck) };
        state = before;
        let Node { entry, answer, .. } = nodes[last];
        done[entry / 64] &= !(1 << (entry % 64));
        known += usize::from(entries[entry].returned_ns.is_some());
        // In the reverse of the order in which they were taken.
        put(&mut nodes, answer.unwrap_or(last));
        put(&mut nodes, last);
        at = nodes[last].after;
    }
    Linear::Yes
}

/// Calls and answers by their time, behind a head. What was not answered is answered at the end.
fn list<S>(entries: &[Entry<S>]) -> Vec<Node> {
    let mut order = Vec::new();
    for (entry, Entry { invoked_ns, returned_ns, .. }) in entries.iter().enumerate() {
        // What begins as something ends is beside it.
        order.push((*invoked_ns, false, entry));
        order.push((returned_ns.unwrap_or(u64::MAX), true, entry));
    }
    order.sort_unstable();
    let mut nodes = vec![Node { entry: 0, answer: None, before: 0, after: 1 }];
    let mut calls = vec![0; entries.len()];
    for (_, is_answer, entry) in order {
        let at = nodes.len();
        nodes.push(Node { entry, answer: None, before: at - 1, after: at + 1 });
        if is_answer {
            nodes[calls[entry]].answer = Some(at);
        } else {
            calls[entry] = at;
        }
    }
    // Its end, which is never reached: something that is known is answered before.
    let last = nodes.len() - 1;
    nodes.push(Node { entry: 0, answer: None, before: last, after: last + 1 });
    nodes
}

fn take(nodes: &mut [Node], at: usize) {
    let Node { before, after, .. } = nodes[at];
    nodes[before].after = after;
    nodes[after].before = before;
}

fn put(nodes: &mut [Node], at: usize) {
    let Node { before, after, .. } = nodes[at];
    nodes[before].after = at;
    nodes[after].before = at;
}
