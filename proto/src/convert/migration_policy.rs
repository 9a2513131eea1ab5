//! Migration policies.

use std::collections::BTreeMap;

use domain::{
    limit::MIGRATION_CONNECTIONS_MAX,
    migration_policy::{MigrationPolicy, MigrationPolicyCommand},
    name::Name,
    operation::{CopyPolicy, Terms, WhenSilent},
    rejected::Rejected,
};

use super::{invalid, name};
use crate::v1;

/// A policy as the API shows it.
#[must_use]
pub fn migration_policy(policy: &MigrationPolicy) -> v1::MigrationPolicy {
    let Terms { copy, deadline_ms, deadline_ms_per_gib, when_silent } = policy.terms;
    let labels = policy.labels.iter();
    v1::MigrationPolicy {
        name: policy.name.to_string(),
        project: policy.project.as_ref().map(ToString::to_string).unwrap_or_default(),
        labels: labels.map(|(label, value)| (label.to_string(), value.clone())).collect(),
        bandwidth_mib_per_second: copy.bandwidth_mib_s,
        downtime_ms: copy.downtime_ms,
        never_slow_down: !copy.auto_converge,
        connections: copy.connections.into(),
        rounds_max: copy.rounds_max,
        stalled_downtime_ms: copy.stalled_downtime_ms,
        deadline_ms,
        deadline_ms_per_gib,
        when_silent: when_silent.as_str().to_owned(),
        etag: policy.revision.as_u64(),
    }
}

/// Reads the command that makes a policy be like this. Amounts are checked where it is decided.
///
/// # Errors
/// The field that is wrong.
pub fn read(named: &str, policy: v1::MigrationPolicy) -> Result<MigrationPolicyCommand, Rejected> {
    let project = match policy.project.as_str() {
        "" => None,
        text => Some(name("policy.project", text)?),
    };
    let mut labels: BTreeMap<Name, String> = BTreeMap::new();
    for (label, value) in policy.labels {
        labels.insert(name("policy.labels", &label)?, value);
    }
    let when_silent = match policy.when_silent.as_str() {
        "" => WhenSilent::default(),
        text => WhenSilent::ALL
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| invalid("policy.when_silent", "use stay or return"))?,
    };
    let default = CopyPolicy::default();
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let connections = or(policy.connections, default.connections.into());
    let connections = u8::try_from(connections).map_err(|_| {
        let most = MIGRATION_CONNECTIONS_MAX;
        invalid("policy.connections", format!("is {connections}; it must be 1 to {most}"))
    })?;
    let copy = CopyPolicy {
        bandwidth_mib_s: policy.bandwidth_mib_per_second,
        downtime_ms: or(policy.downtime_ms, default.downtime_ms),
        auto_converge: !policy.never_slow_down,
        connections,
        rounds_max: or(policy.rounds_max, default.rounds_max),
        stalled_downtime_ms: policy.stalled_downtime_ms,
    };
    let (deadline_ms, deadline_ms_per_gib) = (policy.deadline_ms, policy.deadline_ms_per_gib);
    let terms = Terms { copy, deadline_ms, deadline_ms_per_gib, when_silent };
    Ok(MigrationPolicyCommand::Set {
        name: name("migration_policy", named)?,
        project,
        labels,
        terms,
    })
}
