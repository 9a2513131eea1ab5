//! Bodies that come and go.
//!
//! libvirt moves a guest from daemon to daemon by itself, so a sending outlives whoever asked for it
//! and even this process. A guest that has come stands still (`VIR_MIGRATE_PAUSED`): whatever answer
//! is lost between the daemons, only a resume that we ask for lets it go on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    Fence,
    id::VmId,
    instance::{Body, Ended, Landing},
    operation::Progress,
};
use drivers::{Departure, DriverError, ErrorKind, Migration, Order};
use virt::{domain::Domain, sys};

use crate::{
    host::{Inner, LibvirtHost, lock},
    job,
    landing::Places,
    nat,
    process::Process,
    record::Record,
};

/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(100);
/// How long an abort waits for what is under way. A blocked connection takes its time.
const ABORT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a call that a dead process of ours made may take to be seen as a job.
const LATE_CALL: Duration = Duration::from_secs(2);

/// A sending by this process.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    aborted: AtomicBool,
    progress: Mutex<Option<Progress>>,
}

impl Sending {
    fn note(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }
}

/// What ends a sending before it has ended by itself: rounds that begin with no less to be copied
/// than an earlier one. Within a round what remains always falls.
struct Watch {
    rounds_max: u32,
    round: u32,
    least_bytes: u64,
    since_round: u32,
}

impl Watch {
    fn new(rounds_max: u32) -> Watch {
        Watch { rounds_max, round: 0, least_bytes: u64::MAX, since_round: 0 }
    }

    /// Whether what remains has not fallen for too many rounds.
    fn is_hopeless(&mut self, progress: Progress) -> bool {
        if progress.rounds == self.round {
            return false;
        }
        self.round = progress.rounds;
        if progress.remaining_bytes < self.least_bytes {
            self.least_bytes = progress.remaining_bytes;
            self.since_round = progress.rounds;
        }
        progress.rounds.saturating_sub(self.since_round) > self.rounds_max
    }
}

/// Who sends a guest.
enum Begun<'a> {
    /// The caller.
    Ours(Registered<'a>),
    /// Somebody who asked this process before.
    Under,
    /// libvirt, asked by an earlier process of ours.
    Elsewhere,
}

/// A sending that others of this process see; gone when dropped, however it ended.
struct Registered<'a> {
    inner: &'a Inner,
    vm: VmId,
    sending: Arc<Sending>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.inner.sendings().remove(&self.vm);
    }
}

impl Inner {
    fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        let Some(address) = self.migration_address.clone() else {
            let message = "the host has no migration_uri; set it in its node's configuration";
            return Err(DriverError::new(ErrorKind::Permanent, message));
        };
        let record = self.records.claim_to_make(order.vm, order.fence)?;
        if self.find(order.vm)?.is_some() {
            let message = "a body of the VM is here already";
            return Err(DriverError::new(ErrorKind::Conflict, message));
        }
        // What is left of an earlier stay here counts no more.
        if !record.receiving || record.sending || record.at_rest {
            let record = Record {
                fence: record.fence,
                generation: Some(order.generation),
                // It has been started, though not here.
                starts: 1,
                reboots: order.reboots,
                receiving: true,
                ..Record::default()
            };
            self.records.write(order.vm, &record)?;
        }
        if order.spec.nics.iter().any(|nic| nic.network == domain::vm::Network::Nat) {
            self.ensure_nat()?;
        }
        let parts = self.parts(order)?;
        Ok(Landing { address, definition: Places::of(order, &parts).write()? })
    }

    /// Sends a guest, or waits for a sending that is under way.
    fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        let vm = departure.vm;
        let begun = {
            let body = self.turns(vm);
            let _turn = lock(&body);
            self.begin_to_send(departure)?
        };
        match begun {
            Begun::Ours(sending) => {
                let sent = self.carry(departure, &sending.sending);
                drop(sending);
                if let Err(error) = self.end_sending(vm) {
                    tracing::warn!(%vm, %error, "how a sending ended was not noted");
                }
                sent
            }
            Begun::Under => {
                while self.sendings().contains_key(&vm) {
                    std::thread::sleep(LOOK);
                }
                self.await_job(vm)
            }
            Begun::Elsewhere => self.await_job(vm),
        }
    }

    /// Makes sure that a guest may be sent, and notes that it is. Runs in the body's turn.
    fn begin_to_send(&self, departure: &Departure) -> Result<Begun<'_>, DriverError> {
        let vm = departure.vm;
        let mut record = self.records.claim(vm, departure.fence)?;
        if self.sendings().contains_key(&vm) {
            return Ok(Begun::Under);
        }
        let domain = self.existing(vm)?;
        let body = self.look(vm, &mut record)?;
        if body == Body::Arrived {
            // Until then QEMU has not opened its disks, and before 9.2 it dies when it is to send them.
            let message = "the guest came here standing still; resume it first, then it can leave";
            return Err(DriverError::new(ErrorKind::Conflict, message));
        }
        let is_so = match body {
            Body::Running | Body::Paused => !departure.at_rest,
            Body::Stopped(Ended::Migrated) | Body::Absent | Body::Incoming | Body::Arrived => false,
            Body::Ready | Body::Stopped(_) => departure.at_rest,
        };
        if !is_so {
            let message = format!("the body is {body:?}, and is not sent");
            return Err(DriverError::new(ErrorKind::Conflict, message));
        }
        if record.sending && has_job(&domain).map_err(|error| self.failed(&error))? {
            return Ok(Begun::Elsewhere);
        }
        record.sending = true;
        if let Body::Stopped(ended) = body {
            record.ended = Some(ended);
        }
        if departure.at_rest {
            record.at_rest = true;
            self.records.write(vm, &record)?;
            let definition = domain.xml_desc(0).map_err(|error| self.failed(&error))?;
            if definition.contains(nat::NETWORK) {
                self.ensure_nat()?;
            }
            let started = domain.create_with_flags(sys::VIR_DOMAIN_START_PAUSED);
            started.map_err(|error| self.failed(&error))?;
        }
        record.process = Process::of(vm);
        self.records.write(vm, &record)?;
        let sending = Arc::new(Sending::default());
        self.sendings().insert(vm, sending.clone());
        Ok(Begun::Ours(Registered { inner: self, vm, sending }))
    }

    /// Sends a guest, in a thread of its own that nothing but the end of the process ends early.
    fn carry(&self, departure: &Departure, sending: &Sending) -> Result<(), DriverError> {
        let domain = self.existing(departure.vm)?;
        let traveller = self.connect_anew()?;
        let id = departure.vm.to_string();
        let traveller =
            traveller.lookup_domain_by_uuid_string(&id).map_err(|error| self.failed(&error))?;
        let (flags, parameters) = self.terms(departure, &domain)?;
        let address = departure.landing.address.clone();
        let (tell, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = tell.send(traveller.migrate_to_uri3(Some(&address), parameters, flags));
        });
        let policy = departure.policy;
        let mut watch = Watch::new(policy.rounds_max);
        let mut why = None;
        let mut allowed_ms = policy.downtime_ms;
        let mut told_ms = 0;
        let result = loop {
            match ended.recv_timeout(LOOK) {
                Ok(result) => break result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let message = "the thread of a sending has panicked";
                    return Err(DriverError::new(ErrorKind::Ambiguous, message));
                }
            }
            if sending.aborted.load(Ordering::SeqCst) || why.is_some() {
                job::abort(&domain);
                continue;
            }
            let Ok(Some(progress)) = job::progress(&domain) else { continue };
            if told_ms != allowed_ms && progress.rounds > 0 {
                let told = domain.migrate_set_max_downtime(u64::from(allowed_ms), 0).is_ok();
                told_ms = if told { allowed_ms } else { told_ms };
            }
            let progress = Progress { downtime_max_ms: allowed_ms, ..progress };
            sending.note(progress);
            if !watch.is_hopeless(progress) {
                continue;
            }
            if policy.stalled_downtime_ms > allowed_ms {
                allowed_ms = policy.stalled_downtime_ms;
                watch = Watch { round: progress.rounds, ..Watch::new(policy.rounds_max) };
            } else {
                why = Some(format!(
                    "the guest writes faster than can be copied: after {} rounds {} MiB remain",
                    progress.rounds,
                    progress.remaining_bytes >> 20
                ));
            }
        };
        match (result, why) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(why)) => Err(DriverError::new(ErrorKind::Transient, why)),
            (Err(error), None) => {
                self.forget_broken_connection();
                Err(DriverError::new(ErrorKind::Transient, error.message().to_owned()))
            }
        }
    }

    /// Notes how a sending ended. A guest that is still here has not been sent.
    fn end_sending(&self, vm: VmId) -> Result<(), DriverError> {
        let body = self.turns(vm);
        let _turn = lock(&body);
        let Some(domain) = self.find(vm)? else { return Ok(()) };
        if has_job(&domain).map_err(|error| self.failed(&error))? {
            return Ok(());
        }
        let Some(mut record) = self.records.read(vm)?.filter(|record| record.sending) else {
            return Ok(());
        };
        if record.at_rest {
            self.stop_sending_disks(vm, &domain, &mut record)
        } else if domain.is_active().map_err(|error| self.failed(&error))? {
            self.records.write(vm, &Record { sending: false, ..record })
        } else {
            Ok(())
        }
    }

    /// Whether a guest is on its way from here, or may be soon.
    pub(crate) fn is_sending(&self, vm: VmId, domain: &Domain) -> Result<bool, DriverError> {
        Ok(self.sendings().contains_key(&vm)
            || has_job(domain).map_err(|error| self.failed(&error))?)
    }

    /// Ends the QEMU that was started to send the disks of a body at rest, and could not. Runs in the
    /// body's turn.
    pub(crate) fn stop_sending_disks(
        &self,
        vm: VmId,
        domain: &Domain,
        record: &mut Record,
    ) -> Result<(), DriverError> {
        if domain.is_active().map_err(|error| self.failed(&error))? {
            domain.destroy().map_err(|error| self.failed(&error))?;
        }
        record.at_rest = false;
        record.sending = false;
        self.records.write(vm, record)
    }

    /// Waits for a sending that another process of ours began.
    fn await_job(&self, vm: VmId) -> Result<(), DriverError> {
        while let Some(domain) = self.find(vm)? {
            if !has_job(&domain).map_err(|error| self.failed(&error))? {
                let message = "the sending has ended, and the guest is still here";
                return Err(DriverError::new(ErrorKind::Transient, message));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn abort(&self, vm: VmId) -> Result<(), DriverError> {
        let begun = Instant::now();
        // One of a process of ours that is dead may still be on its way to libvirt.
        let mut late = self.records.read(vm)?.is_some_and(|record| record.sending);
        while begun.elapsed() < ABORT_PATIENCE {
            let ours = self.sendings().get(&vm).cloned();
            if let Some(sending) = &ours {
                sending.aborted.store(true, Ordering::SeqCst);
                late = false;
            }
            let Some(domain) = self.find(vm)? else { return Ok(()) };
            let job = has_job(&domain).map_err(|error| self.failed(&error))?;
            if job {
                job::abort(&domain);
            } else if ours.is_none() && (!late || begun.elapsed() > LATE_CALL) {
                return self.end_sending(vm);
            }
            std::thread::sleep(LOOK);
        }
        Err(DriverError::new(ErrorKind::Transient, "the sending does not end"))
    }

    fn sending_progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError> {
        if let Some(sending) = self.sendings().get(&vm) {
            return Ok(*sending.progress.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let Some(domain) = self.find(vm)? else { return Ok(None) };
        job::progress(&domain).map_err(|error| self.failed(&error))
    }
}

fn has_job(domain: &Domain) -> Result<bool, virt::error::Error> {
    Ok(domain.is_active()? && job::progress(domain)?.is_some())
}

#[async_trait]
impl Migration for LibvirtHost {
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        let order = order.clone();
        self.on_body(order.vm, move |inner| inner.receive(&order)).await
    }

    async fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        let departure = departure.clone();
        // It goes on when nobody waits for it any more.
        self.blocking(move |inner| inner.send(&departure)).await
    }

    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        // From here on no sending under a lower fence begins.
        self.on_body(vm, move |inner| inner.records.claim(vm, fence)).await?;
        self.blocking(move |inner| inner.abort(vm)).await
    }

    async fn progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError> {
        self.blocking(move |inner| inner.sending_progress(vm)).await
    }

    async fn answers(&self, vm: VmId) -> Result<Option<bool>, DriverError> {
        self.blocking(move |inner| inner.answers(vm)).await
    }
}
