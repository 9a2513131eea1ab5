//! Transition tables, whole.

use std::fmt::Write as _;

use novacron_domain::{
    instance::{Body, Ended, Phase},
    operation::Status,
    rejected::Reason,
    setting::DEFINITIONS,
    vm::{FIELDS, Scoring, VmSpec},
};

use crate::world::spec;

#[test]
fn instance_phases() {
    let bodies = [
        Body::Absent,
        Body::Ready,
        Body::Running,
        Body::Paused,
        Body::Stopped(Ended::Shutdown),
        Body::Stopped(Ended::Crashed),
    ];
    let mut table = String::new();
    for phase in Phase::ALL {
        for body in bodies {
            let _ = writeln!(table, "{phase:?} + {body:?} -> {:?}", phase.next(body));
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn operation_statuses() {
    let mut table = String::new();
    for from in Status::ALL {
        let to: Vec<_> = Status::ALL.iter().filter(|to| from.may_become(**to)).collect();
        let _ = writeln!(table, "{from:?} -> {to:?}");
        // Only a person has what is stuck go on.
        assert_eq!(to.is_empty(), from.is_final() && from != Status::Stuck, "{from:?}");
    }
    insta::assert_snapshot!(table);
}

/// The compiler cannot see that the table of fields is complete: serialization can.
#[test]
fn every_field_of_a_spec_is_in_the_table() {
    let mut whole = spec();
    // Rules that ask for nothing are not written, nor is no pool.
    whole.placement.scoring = Scoring::Pack;
    whole.pool = Some(whole.image.clone());
    let bytes = novacron_domain::codec::encode(&whole);
    let fields: std::collections::BTreeMap<String, serde::de::IgnoredAny> =
        rmp_serde::from_slice(&bytes).unwrap();
    let listed: std::collections::BTreeSet<_> = FIELDS.iter().map(|f| f.0.to_owned()).collect();
    assert_eq!(fields.into_keys().collect::<std::collections::BTreeSet<_>>(), listed);
    let _: VmSpec = spec();
}

#[test]
fn codes_and_settings_are_stable() {
    let mut table = String::new();
    for reason in Reason::ALL {
        let _ = writeln!(table, "{} {:?}", reason.code(), reason.category());
    }
    for setting in DEFINITIONS {
        let _ = writeln!(
            table,
            "{} {}..={} default {}",
            setting.name, setting.min, setting.max, setting.default
        );
        assert!((setting.min..=setting.max).contains(&setting.default), "{}", setting.name);
        assert_eq!(setting.key.definition().name, setting.name);
    }
    insta::assert_snapshot!(table);
}
