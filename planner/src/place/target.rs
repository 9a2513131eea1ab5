//! Where guests that are to leave their hosts go.

use std::sync::Arc;

use domain::{State, setting::Key};

use super::{Candidate, Placement, Want, explain, filter, score};

/// Plans targets for the migrations that wait, in the order of their turns, as many as there are
/// slots. Those that no host can take hold nobody up.
#[must_use]
pub fn targets(state: &State) -> Placement {
    let mut hosts: Vec<Candidate> =
        state.hosts.values().map(|host| Candidate { host, used: state.used_on(host.id) }).collect();
    let mut placement = Placement::default();
    let slots =
        state.setting(Key::MigrationsParallel).saturating_sub(state.spares().count() as u64);
    for operation in state.queued_migrations() {
        if placement.placed.len() as u64 >= slots {
            break;
        }
        let (Some(body), Some(migration)) =
            (state.instance_of(operation.vm), operation.migration.as_ref())
        else {
            continue;
        };
        let only = migration.to.and_then(|to| state.hosts.get(&to)).map(|host| &host.name);
        let want = Want { booked: body.booked, only, leaves: Some(body.host) };
        let fits = |candidate: &&Candidate| filter::refusal(candidate, &want).is_none();
        if !hosts.iter().any(|host| fits(&host)) {
            let reason: Arc<str> = explain(&hosts, &want).into();
            placement.unplaceable.insert(operation.vm, reason);
            continue;
        }
        // A host that is busy with others is waited for.
        let free = hosts.iter().enumerate().filter(|(_, host)| fits(host));
        let free = free.filter(|(_, host)| state.has_slot(body.host, host.host.id));
        let best =
            free.max_by_key(|(index, host)| (score::spread(host), std::cmp::Reverse(*index)));
        if let Some(best) = best.map(|(index, _)| index) {
            hosts[best].used = hosts[best].used.plus(want.booked);
            placement.placed.push((operation.vm, hosts[best].host.id));
        }
    }
    placement
}
