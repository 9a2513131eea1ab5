//! Moves the state past log entries; every node does the same and gets the same.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    Draft, State, access, codec,
    decide::decide,
    envelope::{Envelope, Outcome},
    event::Event,
    id::Digest,
    operation,
    rejected::{Reason, Rejected},
    request::Remembered,
};

/// The state after an entry, and what the author is answered.
pub struct Applied {
    /// The state after the entry.
    pub state: State,
    /// The answer.
    pub reply: Result<Outcome, Rejected>,
}

impl State {
    /// The state after the log entry `index`, which carries `envelope`. For entries that follow each other an
    /// [`Applier`] costs less.
    #[must_use]
    pub fn apply(&self, index: u64, envelope: Envelope) -> Applied {
        let mut applier = Applier::new(self.clone());
        let reply = applier.apply(index, envelope);
        Applied { state: applier.finish(), reply }
    }
}

/// Takes in entries that follow each other, in place: the tables share nothing with anybody's view that the first of
/// them has changed, so the next ones copy nothing.
pub struct Applier {
    state: State,
    /// An earlier state, and the entries since: by them a state is made again that a refused command began to change.
    kept: State,
    since: Vec<(u64, Envelope)>,
}

/// So many entries are made again at most, and lie in memory meanwhile.
const KEPT_EVERY: usize = 64;

impl Applier {
    /// Begins with a state.
    #[must_use]
    pub fn new(state: State) -> Applier {
        Applier { kept: state.clone(), state, since: Vec::new() }
    }

    /// The state after the newest entry.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state after the last entry.
    #[must_use]
    pub fn finish(self) -> State {
        self.state
    }

    /// Moves past an entry that changes nothing here: a new leader's blank, a membership change.
    pub fn skip(&mut self, index: u64) {
        self.state = self.state.skip(index);
        self.keep();
    }

    /// Moves past the log entry `index`, which carries `envelope`. A refused command changes nothing but the position
    /// and the time.
    ///
    /// # Errors
    /// What the author is to be told when the command is refused. A rule that panics is refused as a bug, on every
    /// node alike, since all run it on the same state.
    pub fn apply(&mut self, index: u64, envelope: Envelope) -> Result<Outcome, Rejected> {
        let chain = self.state.chain;
        let reply = match advance(&mut self.state, index, &envelope) {
            Ok(reply) => {
                self.since.push((index, envelope));
                if self.since.len() >= KEPT_EVERY {
                    self.keep();
                }
                return reply;
            }
            Err(Torn(rejected)) => Err(rejected),
        };
        self.mend(chain);
        step(&mut self.state, index, envelope.at_ms);
        refuse(&mut self.state, &reply);
        self.keep();
        reply
    }

    fn keep(&mut self) {
        self.kept = self.state.clone();
        self.since.clear();
    }

    /// Makes the state again whose history has this hash.
    fn mend(&mut self, chain: Digest) {
        self.state = self.kept.clone();
        for (index, envelope) in &self.since {
            let again = advance(&mut self.state, *index, envelope);
            assert!(again.is_ok(), "entry {index} is not what it was");
        }
        assert_eq!(self.state.chain, chain, "the same entries led to another state");
    }
}

/// The command was refused after it had begun to change the state.
struct Torn(Rejected);

fn step(state: &mut State, index: u64, at_ms: u64) {
    debug_assert!(index > state.index || state.index == 0, "{index} after {}", state.index);
    state.index = index;
    state.now_ms = state.now_ms.max(at_ms);
    state.requests.evict(state.now_ms);
}

/// Moves past an entry; when it is torn the state is of no use any more.
fn advance(
    state: &mut State,
    index: u64,
    envelope: &Envelope,
) -> Result<Result<Outcome, Rejected>, Torn> {
    step(state, index, envelope.at_ms);
    let draft = Draft::new(std::mem::take(state), envelope.principal.clone(), envelope.wall_ms);
    let mut draft = draft.traced(envelope.trace);
    let verdict = catch_unwind(AssertUnwindSafe(|| verdict(&mut draft, envelope)));
    let bug = "a rule failed; nothing was changed; please report it";
    let verdict = verdict.unwrap_or_else(|_| Err(Rejected::new(Reason::Bug, bug)));
    let reply = match verdict {
        Ok(Verdict::Accepted) => return Ok(Ok(accept(state, draft, envelope))),
        Ok(Verdict::Answered(outcome)) => Ok(outcome),
        Err(rejected) if draft.is_changed() => return Err(Torn(rejected)),
        Err(rejected) => Err(rejected),
    };
    *state = draft.finish().0;
    refuse(state, &reply);
    Ok(reply)
}

enum Verdict {
    Accepted,
    /// The same request was accepted before.
    Answered(Outcome),
}

/// Known request, then permission, then the noun's rules: a retry must not fail on the etag that
/// its own first attempt has outdated.
fn verdict(draft: &mut Draft, envelope: &Envelope) -> Result<Verdict, Rejected> {
    if let Some(request) = &envelope.request
        && let Some(outcome) = draft.state().answered(&envelope.principal, request)?
    {
        return Ok(Verdict::Answered(outcome));
    }
    access::authorise(draft.state(), &envelope.principal, &envelope.command, envelope.wall_ms)?;
    decide(draft, &envelope.command)?;
    operation::advance(draft);
    Ok(Verdict::Accepted)
}

fn accept(state: &mut State, draft: Draft, envelope: &Envelope) -> Outcome {
    let (after, changes, outcome) = draft.finish();
    *state = after;
    let event = (!changes.is_empty() || envelope.request.is_some()).then(|| {
        Arc::new(Event {
            revision: state.revision(),
            at_ms: state.now_ms,
            wall_ms: envelope.wall_ms,
            principal: envelope.principal.clone(),
            request: envelope.request.clone(),
            outcome: outcome.clone(),
            changes,
        })
    });
    if let Some(request) = &envelope.request {
        state.requests.restore(Remembered {
            principal: envelope.principal.clone(),
            id: request.id,
            digest: request.digest,
            index: state.index,
            at_ms: state.now_ms,
            outcome: outcome.clone(),
        });
    }
    let effect = event.as_deref().map(codec::encode).unwrap_or_default();
    if let Some(event) = event {
        state.events.push(event);
    }
    state.chain = link(state, &effect);
    outcome
}

fn refuse(state: &mut State, reply: &Result<Outcome, Rejected>) {
    let effect = match reply {
        Ok(_) => "answered",
        Err(rejected) => rejected.reason.code(),
    };
    state.chain = link(state, effect.as_bytes());
}

/// The next link of the history's hash.
fn link(state: &State, effect: &[u8]) -> Digest {
    let (index, now) = (state.index.to_be_bytes(), state.now_ms.to_be_bytes());
    Digest::of(&[state.chain.as_bytes(), &index, &now, effect])
}
