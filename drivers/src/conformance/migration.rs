//! What every driver must do that moves running guests.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use domain::{
    id::VmId,
    instance::{Body, Ended},
    operation::CopyPolicy,
};

use super::{Failure, Fixture, Outcome, await_body, fence, ok, refused};
use crate::{Departure, DriverError, ErrorKind, Migration, Order};

/// Runs every case, one after the other, from one host to another of the same kind.
///
/// # Errors
/// The first case that fails.
pub async fn run_migration(from: &dyn Fixture, to: &dyn Fixture) -> Result<(), Failure> {
    let cases: [(&'static str, Outcome<'_>); 5] = [
        ("a guest moves, and stands still until it is resumed", Box::pin(moves(from, to))),
        ("a guest that stands still moves, and stands still", Box::pin(still(from, to))),
        ("a body at rest moves, and none is sent that is not", Box::pin(at_rest(from, to))),
        ("nothing is sent under a lower fence", Box::pin(fenced(from, to))),
        ("an aborted sending leaves one guest", Box::pin(aborted(from, to))),
    ];
    for (case, outcome) in cases {
        outcome.await.map_err(|problem| Failure { case, problem })?;
    }
    Ok(())
}

fn migration(fixture: &dyn Fixture) -> Result<&dyn Migration, String> {
    fixture.driver().migration().ok_or_else(|| "the driver cannot migrate".to_owned())
}

/// A running guest at the source, a place for it at the target, and how it is sent there.
async fn prepared(from: &dyn Fixture, to: &dyn Fixture) -> Result<(Order, Departure), String> {
    let order = from.order(fence(1));
    ok(from.driver().prepare(&order).await)?;
    ok(from.driver().start(&order).await)?;
    await_body(from, order.vm, |body| body == Body::Running).await?;
    let there = Order { fence: fence(2), ..order };
    let landing = ok(migration(to)?.receive(&there).await)?;
    if ok(migration(to)?.receive(&there).await)? != landing {
        return Err("it lands elsewhere when it is asked again".into());
    }
    await_body(to, there.vm, |body| body == Body::Ready).await?;
    let (vm, policy) = (there.vm, CopyPolicy::default());
    let departure =
        Departure { vm, fence: fence(3), landing, policy, at_rest: false, pooled: false };
    Ok((there, departure))
}

async fn cleared(from: &dyn Fixture, to: &dyn Fixture, vm: VmId) -> Result<(), String> {
    for fixture in [from, to] {
        ok(fixture.driver().release(vm, fence(9)).await)?;
        await_body(fixture, vm, |body| body == Body::Absent).await?;
    }
    Ok(())
}

async fn moves(from: &dyn Fixture, to: &dyn Fixture) -> Result<(), String> {
    let (Order { vm, .. }, departure) = prepared(from, to).await?;
    ok(migration(from)?.send(&departure).await)?;
    await_body(from, vm, |body| body == Body::Stopped(Ended::Migrated)).await?;
    await_body(to, vm, |body| body == Body::Arrived).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    await_body(to, vm, |body| body == Body::Arrived).await?;
    ok(to.driver().resume(vm, fence(4), domain::Fence::ZERO).await)?;
    await_body(to, vm, |body| body == Body::Running).await?;
    // The source's disks can be made a body of again, and are one that never ran.
    let seen = ok(from.driver().observe(vm).await)?.body;
    if seen != Body::Stopped(Ended::Migrated) {
        return Err(format!("the source is {seen:?} afterwards"));
    }
    cleared(from, to, vm).await
}

async fn still(from: &dyn Fixture, to: &dyn Fixture) -> Result<(), String> {
    let (Order { vm, .. }, departure) = prepared(from, to).await?;
    ok(from.driver().pause(vm, fence(3)).await)?;
    ok(migration(from)?.send(&departure).await)?;
    await_body(from, vm, |body| body == Body::Stopped(Ended::Migrated)).await?;
    await_body(to, vm, |body| body == Body::Arrived).await?;
    // It goes no further before it was resumed.
    let further = Departure { fence: fence(4), ..departure };
    refused(migration(to)?.send(&further).await, ErrorKind::Conflict)?;
    ok(to.driver().resume(vm, fence(4), domain::Fence::ZERO).await)?;
    await_body(to, vm, |body| body == Body::Running).await?;
    cleared(from, to, vm).await
}

async fn at_rest(from: &dyn Fixture, to: &dyn Fixture) -> Result<(), String> {
    let (order, running) = prepared(from, to).await?;
    let vm = order.vm;
    let departure = Departure { at_rest: true, ..running.clone() };
    refused(migration(from)?.send(&departure).await, ErrorKind::Conflict)?;
    ok(from.driver().kill(vm, fence(3)).await)?;
    await_body(from, vm, |body| body == Body::Stopped(Ended::Killed)).await?;
    refused(migration(from)?.send(&running).await, ErrorKind::Conflict)?;
    ok(migration(from)?.send(&departure).await)?;
    await_body(from, vm, |body| body == Body::Stopped(Ended::Migrated)).await?;
    await_body(to, vm, |body| body == Body::Arrived).await?;
    ok(to.driver().kill(vm, fence(4)).await)?;
    await_body(to, vm, |body| matches!(body, Body::Stopped(_))).await?;
    ok(to.driver().start(&Order { fence: fence(5), ..order }).await)?;
    await_body(to, vm, |body| body == Body::Running).await?;
    cleared(from, to, vm).await
}

async fn fenced(from: &dyn Fixture, to: &dyn Fixture) -> Result<(), String> {
    let (Order { vm, .. }, departure) = prepared(from, to).await?;
    ok(migration(from)?.abort(vm, fence(4)).await)?;
    refused(migration(from)?.send(&departure).await, ErrorKind::Fenced)?;
    await_body(from, vm, |body| body == Body::Running).await?;
    await_body(to, vm, |body| body == Body::Ready).await?;
    cleared(from, to, vm).await
}

async fn aborted(from: &dyn Fixture, to: &dyn Fixture) -> Result<(), String> {
    let (Order { vm, .. }, departure) = prepared(from, to).await?;
    let source = migration(from)?;
    // As slow as can be, so that the abort finds it under way.
    let policy = CopyPolicy { bandwidth_mib_s: 1, ..departure.policy };
    let departure = Departure { policy, ..departure };
    let over = AtomicBool::new(false);
    let send = async {
        let sent = source.send(&departure).await;
        over.store(true, Ordering::Relaxed);
        sent
    };
    let abort = async {
        while source.progress(vm).await?.is_none() && !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        source.abort(vm, fence(4)).await
    };
    let (sent, aborted): (Result<(), DriverError>, _) = tokio::join!(send, abort);
    ok(aborted)?;
    if ok(source.progress(vm).await)?.is_some() {
        return Err("something is sent after the abort".into());
    }
    match sent {
        Err(_) => {
            await_body(from, vm, |body| body == Body::Running).await?;
            await_body(to, vm, |body| body == Body::Ready).await?;
        }
        // It was too late.
        Ok(()) => {
            await_body(from, vm, |body| body == Body::Stopped(Ended::Migrated)).await?;
            await_body(to, vm, |body| body == Body::Arrived).await?;
        }
    }
    cleared(from, to, vm).await
}
