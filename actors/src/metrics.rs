//! What is measured of the staff.

use std::time::Instant;

use telemetry::{Counter, Described, Histogram, Label, Level, Present, SECONDS};

const ACTOR: Label = Label {
    name: "actor",
    values: "`leader`, `beat`, `health`, `keeper`, `reporter`, `chronicle`, `host`, `instance`, `probe`",
};
const PROVIDERS: [Label; 2] = [
    Label {
        name: "source_provider",
        values: "the driver's kind where the guest was: `libvirt`, `simulator`",
    },
    Label { name: "dest_provider", values: "the driver's kind where it is now" },
];

static ACTORS: Level<1> = Level::new("novacron_actors", "Actors that are at work.", [ACTOR]);
static FAILURES: Counter<1> = Counter::new(
    "novacron_actor_failures_total",
    "Actors that ended otherwise than they should. They are started again, or their work is tried again.",
    [ACTOR],
);
static MAILBOX_AGE: Histogram<1> = Histogram::new(
    "novacron_actor_mailbox_age_seconds",
    "How long a message lay before it was handled.",
    [ACTOR],
    SECONDS,
);
pub(crate) static OPERATIONS: Counter<3> = Counter::new(
    "vm_operations_total",
    "Operations that have ended, or are stuck. The node that leads counts them.",
    [
        Label {
            name: "service",
            values: "the class: `vm-operations`, `migrations`, `monitoring-alerts`, `cost-analysis`",
        },
        Label { name: "operation", values: "the kind, as `create` or `migrate`, 14" },
        Label { name: "status", values: "`done`, `rolled_back`, `stuck`" },
    ],
);
pub(crate) static MIGRATION: Histogram<2> = Histogram::new(
    "migration_duration_seconds",
    "How long migrations took that were done, from their acceptance to their end. The node that leads counts them.",
    PROVIDERS,
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0],
);
pub(crate) static STEP: Histogram<2> = Histogram::new(
    "novacron_operation_step_duration_seconds",
    "How long a step of an operation took that has ended. The node that leads counts them.",
    [
        Label { name: "operation", values: "the kind, 14" },
        Label { name: "step", values: "the kind's steps, 5 at most" },
    ],
    SECONDS,
);
pub(crate) static QUEUED: Histogram<1> = Histogram::new(
    "novacron_operation_wait_seconds",
    "How long operations waited until a worker began, since their acceptance. The node that leads counts them.",
    [Label { name: "class", values: "the four classes" }],
    SECONDS,
);

pub(crate) static CANARY: Histogram<2> = Histogram::new(
    "novacron_canary_duration_seconds",
    "How long it took until a canary ran, or was deleted, since that was asked for. The node that leads counts them.",
    [
        Label { name: "provider", values: "the driver's kind" },
        Label { name: "what", values: "`create`, `delete`" },
    ],
    SECONDS,
);

/// Everything that is measured of the staff.
pub static INVENTORY: &[Described] = &[
    ACTORS.described(),
    FAILURES.described(),
    MAILBOX_AGE.described(),
    OPERATIONS.described(),
    MIGRATION.described(),
    STEP.described(),
    QUEUED.described(),
    CANARY.described(),
];

/// An actor of this kind is at work until what is returned is dropped.
pub(crate) fn at_work(actor: &'static str) -> Present {
    ACTORS.enter([actor])
}

/// One of this kind ended otherwise than it should.
pub(crate) fn failed(actor: &'static str) {
    FAILURES.of([actor]).increment(1);
}

/// Tells an actor to go on; it knows since when it lies in the mailbox.
pub(crate) struct Wake(Instant);

impl Wake {
    pub(crate) fn now() -> Wake {
        Wake(Instant::now())
    }

    /// It is handled now.
    pub(crate) fn taken(&self, actor: &'static str) {
        MAILBOX_AGE.of([actor]).record(self.0.elapsed().as_secs_f64());
    }
}
