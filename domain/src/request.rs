//! Remembered requests: the same request gives the same answer, and an id too old to be judged is
//! refused, never executed.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::{
    Revision, State,
    envelope::{Outcome, Request},
    id::{Digest, RequestId},
    limit,
    principal::Principal,
    rejected::{Reason, Rejected},
};

/// An accepted request and its answer. Refusals are not remembered: they changed nothing, so a
/// retry may be judged afresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// Who asked.
    pub principal: Principal,
    /// Under which key.
    pub id: RequestId,
    /// The digest of the client's message.
    pub digest: Digest,
    /// The log entry.
    pub index: u64,
    /// Lease time of the entry, milliseconds.
    pub at_ms: u64,
    /// The answer.
    pub outcome: Outcome,
}

type RequestKey = (Principal, RequestId);

fn key_of(request: &Remembered) -> RequestKey {
    (request.principal.clone(), request.id)
}

/// The window of remembered requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// By the entry, which comes last: who writes here copies what was written lately. Keys come anywhere among all of
    /// them, and what is copied there is plain bytes.
    by_index: OrdMap<u64, Arc<Remembered>>,
    by_key: OrdMap<RequestKey, u64>,
    floor: u64,
}

impl Requests {
    /// The index of the newest entry whose request is forgotten.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn of(&self, key: &RequestKey) -> Option<&Remembered> {
        self.by_index.get(self.by_key.get(key)?).map(Arc::as_ref)
    }

    /// Those of entries after `index`, oldest first.
    pub fn since(&self, index: u64) -> impl Iterator<Item = Remembered> + Send + '_ {
        self.by_index.range(index + 1..).map(|(_, request)| Remembered::clone(request))
    }

    pub(crate) fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    pub(crate) fn restore(&mut self, request: Remembered) {
        self.by_key.insert(key_of(&request), request.index);
        self.by_index.insert(request.index, Arc::new(request));
    }

    /// Forgets what is past the window; a few at a time, since each entry adds at most one.
    pub(crate) fn evict(&mut self, now_ms: u64) {
        for _ in 0..8 {
            let Some((_, oldest)) = self.by_index.get_min() else { return };
            let old = now_ms > oldest.at_ms + limit::REQUEST_WINDOW_MS;
            if !old && self.by_key.len() <= limit::REQUESTS_MAX {
                return;
            }
            let (index, key) = (oldest.index, key_of(oldest));
            self.by_index.remove(&index);
            self.by_key.remove(&key);
            self.floor = index;
        }
    }
}

impl State {
    /// The answer this request was given before, if it was.
    ///
    /// # Errors
    /// [`Reason::RequestIdReused`] when the key was used for another message, and
    /// [`Reason::RequestTooOld`] when it may have been executed and forgotten.
    pub fn answered(
        &self,
        principal: &Principal,
        request: &Request,
    ) -> Result<Option<Outcome>, Rejected> {
        if let Some(before) = self.requests.of(&(principal.clone(), request.id)) {
            if before.digest == request.digest {
                return Ok(Some(before.outcome.clone()));
            }
            let message =
                format!("request_id {} was used for another request; use a fresh one", request.id);
            return Err(Rejected::new(Reason::RequestIdReused, message));
        }
        let since = request.since.unwrap_or(Revision::ZERO);
        let judged_against = self.requests.floor;
        let fresh =
            judged_against == 0 || (since.epoch() == self.epoch && since.index() >= judged_against);
        if fresh {
            return Ok(None);
        }
        let message = "the request is older than what is remembered; look whether the change was \
                       made, then repeat it with a fresh request_id and since_revision";
        Err(Rejected::new(Reason::RequestTooOld, message))
    }
}
