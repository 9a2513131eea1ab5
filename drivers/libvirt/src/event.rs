//! Lifecycle events of libvirt. The virt crate has no safe form of them.
#![allow(unsafe_code, reason = "libvirt's callbacks are C")]

use std::ffi::{c_int, c_void};

use anyhow::{Result, bail};
use domain::id::VmId;
use tokio::sync::broadcast;
use virt::{connect::Connect, event, sys};

type Sender = broadcast::Sender<VmId>;

/// Starts the event loop, which must be before the first connection.
pub(crate) fn start() -> Result<()> {
    event::event_register_default_impl()?;
    std::thread::Builder::new().name("libvirt-events".to_owned()).spawn(|| {
        loop {
            if let Err(error) = event::event_run_default_impl() {
                tracing::warn!(%error, "libvirt's event loop");
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    })?;
    // libvirt prints every error unless it is told where to.
    // SAFETY: the function has the signature libvirt asks for and keeps nothing.
    unsafe { sys::virSetErrorFunc(std::ptr::null_mut(), Some(quiet)) };
    Ok(())
}

unsafe extern "C" fn quiet(_: *mut c_void, _: sys::virErrorPtr) {}

/// Sends the UUID of every domain that changes to `changes`, as long as the connection lives.
pub(crate) fn listen(connect: &Connect, changes: &Sender) -> Result<()> {
    let opaque = Box::into_raw(Box::new(changes.clone())).cast::<c_void>();
    // SAFETY: a lifecycle callback is passed as the generic type, as libvirt's documentation asks;
    // libvirt owns `opaque` from here on and gives it back to `release` once.
    let id = unsafe {
        let callback: sys::virConnectDomainEventGenericCallback = Some(std::mem::transmute::<
            unsafe extern "C" fn(
                sys::virConnectPtr,
                sys::virDomainPtr,
                c_int,
                c_int,
                *mut c_void,
            ) -> c_int,
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
        >(lifecycle));
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            std::ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            callback,
            opaque,
            Some(release),
        )
    };
    if id < 0 {
        bail!("cannot listen for libvirt's events: {}", virt::error::Error::last_error());
    }
    Ok(())
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    const LENGTH: usize = sys::VIR_UUID_BUFLEN as usize;
    let mut uuid = [0_u8; LENGTH];
    // SAFETY: libvirt passes a live domain, the buffer has the documented length, and `opaque` is
    // the sender that was registered.
    let changes = unsafe {
        if sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) < 0 {
            return 0;
        }
        &*opaque.cast::<Sender>()
    };
    let _ = changes.send(VmId::from_bytes(uuid));
    0
}

unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `listen`, and released once.
    drop(unsafe { Box::from_raw(opaque.cast::<Sender>()) });
}

/// The machine's boot, which the kernel names.
pub(crate) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
