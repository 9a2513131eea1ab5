//! The law. `apply` moves the state past one log entry; every node does the same and gets the same.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    Draft, State, access, alert, canary, cluster, codec, credential,
    envelope::{Command, Envelope, Outcome},
    event::Event,
    host,
    id::Digest,
    image, instance, lock, migration_policy, node, operation, project,
    rejected::{Reason, Rejected},
    request::Remembered,
    setting, token, vm,
};

/// The state after an entry, and what the author is answered.
pub struct Applied {
    /// The state after the entry.
    pub state: State,
    /// What changed, when something did.
    pub event: Option<Arc<Event>>,
    /// The answer.
    pub reply: Result<Outcome, Rejected>,
}

impl State {
    /// Moves past the log entry `index`, which carries `envelope`. A refused command changes
    /// nothing but the position and the time.
    ///
    /// A rule that panics is refused as a bug, on every node alike, since all run it on the same
    /// state.
    #[must_use]
    pub fn apply(&self, index: u64, envelope: Envelope) -> Applied {
        let mut base = self.skip(index);
        base.now_ms = base.now_ms.max(envelope.at_ms);
        base.requests.evict(base.now_ms);

        let verdict = catch_unwind(AssertUnwindSafe(|| verdict(&base, &envelope)));
        let verdict = verdict.unwrap_or_else(|_| {
            Err(Rejected::new(Reason::Bug, "a rule failed; nothing was changed; please report it"))
        });
        match verdict {
            Ok(Verdict::Accepted(draft)) => accept(*draft, envelope),
            Ok(Verdict::Answered(outcome)) => refuse(base, Ok(outcome)),
            Err(rejected) => refuse(base, Err(rejected)),
        }
    }
}

enum Verdict {
    Accepted(Box<Draft>),
    /// The same request was accepted before.
    Answered(Outcome),
}

/// Known request, then permission, then the noun's rules: a retry must not fail on the etag that
/// its own first attempt has outdated.
fn verdict(base: &State, envelope: &Envelope) -> Result<Verdict, Rejected> {
    if let Some(request) = &envelope.request
        && let Some(outcome) = base.answered(&envelope.principal, request)?
    {
        return Ok(Verdict::Answered(outcome));
    }
    access::authorise(base, &envelope.principal, &envelope.command, envelope.wall_ms)?;
    let draft = Draft::new(base.clone(), envelope.principal.clone(), envelope.wall_ms);
    let mut draft = draft.traced(envelope.trace);
    decide(&mut draft, &envelope.command)?;
    operation::advance(&mut draft);
    Ok(Verdict::Accepted(Box::new(draft)))
}

/// Hands the command to its noun.
fn decide(draft: &mut Draft, command: &Command) -> Result<(), Rejected> {
    let principal = draft.principal().clone();
    match command.clone() {
        Command::Cluster(command) => cluster::decide(draft, command),
        Command::Node(command) => node::decide(draft, command),
        Command::Token(command) => token::decide(draft, command),
        Command::Credential(command) => credential::decide(draft, command),
        Command::Setting(command) => setting::decide(draft, command),
        Command::Project(command) => project::decide(draft, command),
        Command::MigrationPolicy(command) => migration_policy::decide(draft, command),
        Command::Host(command) => host::decide(draft, command),
        Command::Image(command) => image::decide(draft, command),
        Command::Vm(command) => vm::decide(draft, command),
        Command::Instance(command) => instance::decide(draft, &principal, command),
        Command::Operation(command) => operation::decide(draft, command),
        Command::Lock(command) => lock::decide(draft, command),
        Command::Alert(command) => alert::decide(draft, command),
        Command::Canary(command) => canary::decide(draft, command),
    }
}

fn accept(draft: Draft, envelope: Envelope) -> Applied {
    let (mut state, changes, outcome) = draft.finish();
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
    if let Some(request) = envelope.request {
        state.requests.restore(Remembered {
            principal: envelope.principal,
            id: request.id,
            digest: request.digest,
            index: state.index,
            at_ms: state.now_ms,
            outcome: outcome.clone(),
        });
    }
    if let Some(event) = &event {
        state.events.push(event.clone());
    }
    let effect = event.as_deref().map(codec::encode).unwrap_or_default();
    state.chain = link(&state, &effect);
    Applied { state, event, reply: Ok(outcome) }
}

fn refuse(mut state: State, reply: Result<Outcome, Rejected>) -> Applied {
    let effect = match &reply {
        Ok(_) => "answered",
        Err(rejected) => rejected.reason.code(),
    };
    state.chain = link(&state, effect.as_bytes());
    Applied { state, event: None, reply }
}

/// The next link of the history's hash.
fn link(state: &State, effect: &[u8]) -> Digest {
    let (index, now) = (state.index.to_be_bytes(), state.now_ms.to_be_bytes());
    Digest::of(&[state.chain.as_bytes(), &index, &now, effect])
}
