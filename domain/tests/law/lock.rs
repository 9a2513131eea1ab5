//! Locks: who holds them, who is next, and what an owner may do whose time is over.

use novacron_domain::{
    Fence,
    envelope::{Command, Outcome},
    id::TicketId,
    lock::{LockCommand, LockKey},
    rejected::{Reason, Rejected},
};

use crate::world::{World, id, name};

fn key() -> LockKey {
    (name("default"), name("disk"))
}

fn acquire(
    world: &mut World,
    ticket: u128,
    ttl_ms: u64,
    wait_ms: u64,
) -> Result<Outcome, Rejected> {
    let (lock, ticket, owner) = (key(), id(ticket), format!("owner-{ticket}"));
    world.admin(Command::Lock(LockCommand::Acquire { lock, ticket, owner, ttl_ms, wait_ms }))
}

fn renew(world: &mut World, fence: Fence) -> Result<Outcome, Rejected> {
    world.admin(Command::Lock(LockCommand::Renew { lock: key(), fence }))
}

fn release(world: &mut World, fence: Fence) -> Result<Outcome, Rejected> {
    world.admin(Command::Lock(LockCommand::Release { lock: key(), fence }))
}

/// Whose turn it is, and under which fence.
fn holder(world: &World) -> Option<(TicketId, Fence)> {
    let lock = world.state.locks.get(&key())?;
    Some((lock.holder.ticket, lock.holder.fence))
}

#[test]
fn a_lock_goes_from_owner_to_owner_and_its_fence_grows() {
    let mut world = World::new();
    acquire(&mut world, 1, 10_000, 0).unwrap();
    let (ticket, first) = holder(&world).unwrap();
    assert_eq!(ticket, id(1));
    assert_eq!(acquire(&mut world, 2, 10_000, 0).unwrap_err().reason, Reason::LockHeld);
    for waiter in [3, 4, 5] {
        acquire(&mut world, waiter, 10_000, 60_000).unwrap();
    }

    // A renewal lengthens it; without one it passes to who asked first.
    world.now_ms += 9_000;
    renew(&mut world, first).unwrap();
    world.tick(9_000);
    assert_eq!(holder(&world).unwrap().0, id(1));
    world.tick(2_000);
    let (ticket, second) = holder(&world).unwrap();
    assert_eq!(ticket, id(3));
    assert!(second > first);

    // What the old owner asks for is refused, however late it finds out.
    assert_eq!(renew(&mut world, first).unwrap_err().reason, Reason::Fenced);
    assert_eq!(release(&mut world, first).unwrap_err().reason, Reason::Fenced);
    assert_eq!(holder(&world).unwrap(), (id(3), second));

    release(&mut world, second).unwrap();
    let (ticket, third) = holder(&world).unwrap();
    assert_eq!(ticket, id(4));
    assert!(third > second);
    // Time decides even before a tick has come.
    world.now_ms += 10_001;
    assert_eq!(renew(&mut world, third).unwrap_err().reason, Reason::Fenced);
    world.tick(0);
    assert_eq!(holder(&world).unwrap().0, id(5));
    world.tick(10_001);
    assert_eq!(holder(&world), None);
    acquire(&mut world, 6, 10_000, 0).unwrap();
    assert!(holder(&world).unwrap().1 > third);
}

#[test]
fn who_has_waited_long_enough_is_passed_over() {
    let mut world = World::new();
    acquire(&mut world, 1, 20_000, 0).unwrap();
    acquire(&mut world, 2, 10_000, 5_000).unwrap();
    acquire(&mut world, 3, 10_000, 60_000).unwrap();
    world.tick(6_000);
    assert_eq!(world.state.locks[&key()].waiters.len(), 1);
    world.tick(15_000);
    assert_eq!(holder(&world).unwrap().0, id(3));
}

#[test]
fn what_makes_no_sense_is_refused_with_every_field() {
    let mut world = World::new();
    let lock = LockCommand::Acquire {
        lock: key(),
        ticket: id(1),
        owner: String::new(),
        ttl_ms: 1,
        wait_ms: u64::MAX / 4,
    };
    let refused = world.admin(Command::Lock(lock)).unwrap_err();
    let fields: Vec<&str> = refused.violations.iter().map(|found| found.field.as_str()).collect();
    assert_eq!(fields, ["ttl_ms", "wait_ms", "owner"]);
}
