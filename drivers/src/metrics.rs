//! What is measured of drivers, whichever they are.

use telemetry::{Counter, Described, Histogram, Label, SECONDS};

const DRIVER: Label = Label { name: "driver", values: "the driver's kind: `libvirt`, `simulator`" };
const CALL: Label = Label { name: "call", values: "what a driver can be asked, about 20" };

pub(crate) static CALLS: Counter<3> = Counter::new(
    "novacron_driver_calls_total",
    "Calls of drivers that have ended.",
    [
        DRIVER,
        CALL,
        Label {
            name: "outcome",
            values: "`ok`; `given_up` when nobody waited any more; or the kind of error: `transient`, `permanent`, `not_found`, `conflict`, `quota`, `capacity`, `throttled`, `auth`, `fenced`, `protocol`, `ambiguous`",
        },
    ],
);
pub(crate) static CALL_SECONDS: Histogram<2> = Histogram::new(
    "novacron_driver_call_duration_seconds",
    "How long calls of drivers took, failed ones too. A migration's `send` is one call.",
    [DRIVER, CALL],
    SECONDS,
);

/// Everything that is measured of drivers.
pub static INVENTORY: &[Described] = &[CALLS.described(), CALL_SECONDS.described()];
