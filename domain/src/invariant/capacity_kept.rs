//! What is booked on a host is what its bodies take, no body takes less than it runs with, and no
//! host is overbooked, unless it shrank after the promise was made.

use std::collections::BTreeMap;

use crate::{State, host::Capacity};

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut sums: BTreeMap<_, Capacity> = BTreeMap::new();
    for body in state.instances.values() {
        let sum = sums.entry(body.host).or_default();
        *sum = sum.plus(body.booked);
        if !Capacity::of(&body.spec).fits(body.booked, Capacity::default()) {
            return Err(format!("body {} runs with more than it has booked", body.id));
        }
    }
    for host in state.hosts.values() {
        let (sum, used) = (sums.get(&host.id).copied().unwrap_or_default(), state.used_on(host.id));
        if sum != used {
            return Err(format!("host {} carries {sum:?} but {used:?} is booked", host.name));
        }
        if !host.shrank && !used.fits(host.allocatable(), Capacity::default()) {
            return Err(format!("host {} is overbooked: {used:?}", host.name));
        }
    }
    Ok(())
}
