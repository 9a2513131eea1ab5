//! The state of a cluster that goes on with one node: after it lost its majority for good, or from a
//! backup.

use super::State;
use crate::{
    Draft,
    credential::Credential,
    host::{self, Fencing, Host},
    image,
    instance::Instance,
    node::Node,
    principal::Principal,
    token::JoinToken,
};

/// What the cluster goes on with.
#[derive(Clone, Debug)]
pub struct Anew {
    /// Its only member.
    pub node: Node,
    /// The epoch; later than any before.
    pub epoch: u16,
    /// Credentials beside those it has.
    pub credentials: Vec<Credential>,
    /// Join tokens.
    pub tokens: Vec<JoinToken>,
}

impl State {
    /// The same cluster in a later epoch, with one node as its only member. What the others may still
    /// do is refused from here on: every fence of this epoch is higher than any of theirs.
    ///
    /// Nobody is known to have ended: the leases of the hosts are no more and will never lapse, since
    /// those that are left behind may renew them among themselves. Join tokens are no more, since they
    /// may have been used there.
    #[must_use]
    pub fn alone(&self, anew: Anew, wall_ms: u64) -> State {
        let Anew { node, epoch, credentials, tokens } = anew;
        let mut state = self.clone();
        debug_assert!(epoch > state.epoch, "{epoch} after {}", state.epoch);
        state.epoch = epoch;
        let mut draft = Draft::new(state, Principal::Founder, wall_ms);
        let others: Vec<_> = self.nodes.keys().copied().filter(|id| *id != node.id).collect();
        for other in others {
            image::forget_holder(&mut draft, other);
            draft.delete::<Node>(other);
        }
        draft.put(node);
        for token in self.tokens.keys().copied() {
            draft.delete::<JoinToken>(token);
        }
        credentials.into_iter().for_each(|row| draft.put(row));
        tokens.into_iter().for_each(|row| draft.put(row));
        for id in self.hosts.keys().copied() {
            host::lose(&mut draft, id);
            if let Some(host) = draft.state().hosts.get(&id) {
                // What was known is known of another history, in which the host may have booted since.
                let host = Host { ended: None, fencing: Fencing::None, ..Host::clone(host) };
                draft.put(host);
            }
        }
        let bodies: Vec<Instance> =
            draft.state().instances.values().map(|body| Instance::clone(body)).collect();
        for body in bodies {
            let fence = draft.revision();
            draft.put(Instance { fence, inherited: true, ..body });
        }
        draft.finish().0
    }
}
