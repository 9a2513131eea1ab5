//! A domain's job, as libvirt counts it. The virt crate's own form of this call takes a null pointer
//! for an array when there is no job.
#![allow(unsafe_code, reason = "calls of libvirt that the virt crate has not, or not soundly")]

use std::{collections::BTreeMap, ffi::CStr};

use domain::operation::Progress;
use virt::{domain::Domain, error::Error, sys};

/// How far the domain's job is; none when it has none.
pub(crate) fn progress(domain: &Domain) -> Result<Option<Progress>, Error> {
    let (mut kind, mut count) = (0, 0);
    let mut parameters: sys::virTypedParameterPtr = std::ptr::null_mut();
    // SAFETY: the domain lives as long as the reference, and all pointers are to locals.
    let result = unsafe {
        sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut parameters, &mut count, 0)
    };
    if result < 0 {
        return Err(Error::last_error());
    }
    let counts = counts(parameters, count);
    // SAFETY: what libvirt allocated above is given back once; it takes null.
    unsafe { sys::virTypedParamsFree(parameters, count) };
    if u32::try_from(kind) == Ok(sys::VIR_DOMAIN_JOB_NONE) {
        return Ok(None);
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let small = |name: &str| u32::try_from(count(name)).unwrap_or(u32::MAX);
    Ok(Some(Progress {
        total_bytes: count("data_total"),
        remaining_bytes: count("data_remaining"),
        dirty_bytes_s: count("memory_dirty_rate").saturating_mul(count("memory_page_size")),
        rounds: small("memory_iteration"),
        downtime_ms: small("downtime"),
        downtime_max_ms: 0,
    }))
}

/// The numbers among some parameters, by name.
fn counts(parameters: sys::virTypedParameterPtr, count: i32) -> BTreeMap<String, u64> {
    let count = usize::try_from(count).unwrap_or(0);
    if parameters.is_null() {
        return BTreeMap::new();
    }
    // SAFETY: libvirt has written `count` parameters there.
    let parameters = unsafe { std::slice::from_raw_parts(parameters, count) };
    let numbers = parameters.iter().filter_map(|parameter| {
        // SAFETY: the name ends with a zero, and the type says which part of the union is valid.
        let (name, number) = unsafe {
            let name = CStr::from_ptr(parameter.field.as_ptr());
            let number = match u32::try_from(parameter.type_).ok()? {
                sys::VIR_TYPED_PARAM_ULLONG => parameter.value.ul,
                sys::VIR_TYPED_PARAM_UINT => u64::from(parameter.value.ui),
                _ => return None,
            };
            (name, number)
        };
        Some((name.to_string_lossy().into_owned(), number))
    });
    numbers.collect()
}

/// Ends the domain's job. One that has ended already says so; what counts is seen afterwards.
pub(crate) fn abort(domain: &Domain) {
    // SAFETY: the domain lives as long as the reference.
    unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
}
