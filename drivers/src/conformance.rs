//! What every driver must do. One suite for all of them: a driver's own test makes a [`Fixture`] and
//! calls [`run`].

mod migration;

pub use migration::run_migration;

use std::time::Duration;

use async_trait::async_trait;
use domain::{
    Fence,
    id::VmId,
    instance::{Body, Ended},
};

use crate::{Driver, DriverError, ErrorKind, Order};

/// A driver under test, and hands to shake its world.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The driver.
    fn driver(&self) -> &dyn Driver;
    /// An order for a body nobody has seen, under this fence.
    fn order(&self, fence: Fence) -> Order;
    /// Ends the guest behind the driver's back, as a crash does.
    async fn crash(&self, vm: VmId);
    /// Longest time a guest needs to do what it is asked.
    fn patience(&self) -> Duration;
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{case}: {problem}")]
pub struct Failure {
    /// The case.
    pub case: &'static str,
    /// What was seen.
    pub problem: String,
}

/// Runs every case, one after the other.
///
/// # Errors
/// The first case that fails.
pub async fn run(fixture: &dyn Fixture) -> Result<(), Failure> {
    let cases: [(&'static str, Outcome<'_>); 6] = [
        ("a whole life", Box::pin(whole_life(fixture))),
        ("every call may be repeated", Box::pin(repeated(fixture))),
        ("a lower fence is refused", Box::pin(fenced(fixture))),
        ("a crash is seen", Box::pin(crash_seen(fixture))),
        ("what is not there", Box::pin(absent(fixture))),
        ("release from every state", Box::pin(release_anywhere(fixture))),
    ];
    for (case, outcome) in cases {
        outcome.await.map_err(|problem| Failure { case, problem })?;
    }
    Ok(())
}

type Outcome<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

fn fence(index: u64) -> Fence {
    Fence::new(1, index)
}

/// Waits until the body is as expected: guests take their time.
async fn await_body(
    fixture: &dyn Fixture,
    vm: VmId,
    expected: impl Fn(Body) -> bool + Send,
) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + fixture.patience();
    loop {
        let seen = fixture.driver().observe(vm).await.map_err(|e| e.to_string())?.body;
        if expected(seen) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("the body is {seen:?} after {:?}", fixture.patience()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks until the guest has ended: one that is still booting does not hear the first request.
async fn shut_down(fixture: &dyn Fixture, order: &Order) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + fixture.patience();
    while tokio::time::Instant::now() < deadline {
        ok(fixture.driver().shutdown(order.vm, order.fence).await)?;
        for _ in 0..20 {
            let seen = ok(fixture.driver().observe(order.vm).await)?.body;
            if matches!(seen, Body::Stopped(_)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let said = ok(fixture.driver().console_log(order.vm, 0, 1 << 20).await)?.0;
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(500)..]).into_owned();
    Err(format!("the guest did not shut down in {:?}; it said: {said}", fixture.patience()))
}

fn ok<T>(result: Result<T, DriverError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn refused<T>(result: Result<T, DriverError>, kind: ErrorKind) -> Result<(), String> {
    match result {
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => Err(format!("refused as {:?}, not {kind:?}: {error}", error.kind)),
        Ok(_) => Err(format!("accepted where {kind:?} was due")),
    }
}

async fn whole_life(fixture: &dyn Fixture) -> Result<(), String> {
    let driver = fixture.driver();
    let order = fixture.order(fence(1));
    let (id, under) = (order.vm, order.fence);
    ok(driver.prepare(&order).await)?;
    await_body(fixture, id, |body| body == Body::Ready).await?;
    ok(driver.start(&order).await)?;
    await_body(fixture, id, |body| body == Body::Running).await?;
    let seen = ok(driver.observe(id).await)?;
    if seen.generation != Some(order.generation) || seen.fence != under {
        return Err(format!("generation or fence lost: {seen:?}"));
    }
    ok(driver.pause(id, under).await)?;
    await_body(fixture, id, |body| body == Body::Paused).await?;
    ok(driver.resume(id, under, Fence::ZERO).await)?;
    await_body(fixture, id, |body| body == Body::Running).await?;
    ok(driver.reboot(id, under).await)?;
    await_body(fixture, id, |body| body == Body::Running).await?;
    if ok(driver.observe(id).await)?.reboots != 1 {
        return Err("the reboot was not counted".into());
    }
    shut_down(fixture, &order).await?;
    await_body(fixture, id, |body| body == Body::Stopped(Ended::Shutdown)).await?;
    ok(driver.start(&order).await)?;
    ok(driver.kill(id, under).await)?;
    await_body(fixture, id, |body| body == Body::Stopped(Ended::Killed)).await?;
    if ok(driver.observe(id).await)?.starts != 2 {
        return Err("the starts were not counted".into());
    }
    if !ok(driver.observe_all().await)?.iter().any(|seen| seen.vm == id) {
        return Err("observe_all misses the body".into());
    }
    ok(driver.release(id, under).await)?;
    await_body(fixture, id, |body| body == Body::Absent).await?;
    if ok(driver.observe_all().await)?.iter().any(|seen| seen.vm == id) {
        return Err("observe_all shows a released body".into());
    }
    Ok(())
}

async fn repeated(fixture: &dyn Fixture) -> Result<(), String> {
    let driver = fixture.driver();
    let order = fixture.order(fence(1));
    let (id, under) = (order.vm, order.fence);
    for _ in 0..2 {
        ok(driver.prepare(&order).await)?;
    }
    for _ in 0..2 {
        ok(driver.start(&order).await)?;
    }
    for _ in 0..2 {
        ok(driver.pause(id, under).await)?;
    }
    for _ in 0..2 {
        ok(driver.resume(id, under, Fence::ZERO).await)?;
    }
    for _ in 0..2 {
        ok(driver.kill(id, under).await)?;
    }
    for _ in 0..2 {
        ok(driver.release(id, under).await)?;
    }
    Ok(())
}

async fn fenced(fixture: &dyn Fixture) -> Result<(), String> {
    let driver = fixture.driver();
    let new = fixture.order(fence(9));
    let old = Order { fence: fence(8), ..new.clone() };
    let id = new.vm;
    ok(driver.prepare(&new).await)?;
    let stale = [
        driver.prepare(&old).await,
        driver.start(&old).await,
        driver.shutdown(id, old.fence).await,
        driver.kill(id, old.fence).await,
        driver.reboot(id, old.fence).await,
        driver.pause(id, old.fence).await,
        driver.resume(id, old.fence, Fence::ZERO).await,
        driver.release(id, old.fence).await,
    ];
    for result in stale {
        refused(result, ErrorKind::Fenced)?;
    }
    await_body(fixture, id, |body| body == Body::Ready).await?;
    ok(driver.release(id, new.fence).await)?;
    // The fence outlives the body: a call that was under way for long must not bring it back.
    refused(driver.prepare(&old).await, ErrorKind::Fenced)
}

async fn crash_seen(fixture: &dyn Fixture) -> Result<(), String> {
    let driver = fixture.driver();
    let order = fixture.order(fence(1));
    let mut changes = driver.changes();
    ok(driver.prepare(&order).await)?;
    ok(driver.start(&order).await)?;
    fixture.crash(order.vm).await;
    await_body(fixture, order.vm, |body| body == Body::Stopped(Ended::Crashed)).await?;
    let told = tokio::time::timeout(fixture.patience(), async {
        while let Ok(vm) = changes.recv().await {
            if vm == order.vm {
                return true;
            }
        }
        false
    });
    if !told.await.unwrap_or(false) {
        return Err("nobody was told of the crash".into());
    }
    ok(driver.release(order.vm, order.fence).await)
}

async fn absent(fixture: &dyn Fixture) -> Result<(), String> {
    let driver = fixture.driver();
    let order = fixture.order(fence(1));
    await_body(fixture, order.vm, |body| body == Body::Absent).await?;
    refused(driver.start(&order).await, ErrorKind::NotFound)?;
    refused(driver.pause(order.vm, order.fence).await, ErrorKind::NotFound)?;
    ok(driver.release(order.vm, order.fence).await)
}

async fn release_anywhere(fixture: &dyn Fixture) -> Result<(), String> {
    let driver = fixture.driver();
    for stage in 0..4 {
        let order = fixture.order(fence(1));
        let (id, under) = (order.vm, order.fence);
        ok(driver.prepare(&order).await)?;
        if stage >= 1 {
            ok(driver.start(&order).await)?;
        }
        if stage == 2 {
            ok(driver.pause(id, under).await)?;
        }
        if stage == 3 {
            ok(driver.kill(id, under).await)?;
        }
        ok(driver.release(id, under).await)?;
        await_body(fixture, id, |body| body == Body::Absent).await?;
    }
    Ok(())
}
