//! The classes of operations: each has a queue of its own, and workers of its own.

use serde::{Deserialize, Serialize};

use crate::setting::Key;

/// Whose workers an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// What people and the cluster want of VMs.
    VmOperations,
    /// Guests that move between hosts.
    Migrations,
    /// Looking after what runs.
    MonitoringAlerts,
    /// What has time.
    CostAnalysis,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Class; 4] =
        [Class::VmOperations, Class::Migrations, Class::MonitoringAlerts, Class::CostAnalysis];

    /// The name in the API, the CLI and the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::VmOperations => "vm-operations",
            Class::Migrations => "migrations",
            Class::MonitoringAlerts => "monitoring-alerts",
            Class::CostAnalysis => "cost-analysis",
        }
    }

    /// How urgent its operations are beside those of others.
    #[must_use]
    pub const fn urgency(self) -> &'static str {
        match self {
            Class::VmOperations => "high",
            Class::Migrations => "medium",
            Class::MonitoringAlerts => "low",
            Class::CostAnalysis => "batch",
        }
    }

    /// The setting of how many workers it has when few wait.
    #[must_use]
    pub const fn workers(self) -> Key {
        match self {
            Class::VmOperations => Key::VmOperationsWorkers,
            Class::Migrations => Key::MigrationsWorkers,
            Class::MonitoringAlerts => Key::MonitoringAlertsWorkers,
            Class::CostAnalysis => Key::CostAnalysisWorkers,
        }
    }

    /// The setting of how many it may grow to.
    #[must_use]
    pub const fn workers_max(self) -> Key {
        match self {
            Class::VmOperations => Key::VmOperationsWorkersMax,
            Class::Migrations => Key::MigrationsWorkersMax,
            Class::MonitoringAlerts => Key::MonitoringAlertsWorkersMax,
            Class::CostAnalysis => Key::CostAnalysisWorkersMax,
        }
    }

    /// The setting of how many operations may wait before more are refused.
    #[must_use]
    pub const fn queued_max(self) -> Key {
        match self {
            Class::VmOperations => Key::VmOperationsQueuedMax,
            Class::Migrations => Key::MigrationsQueuedMax,
            Class::MonitoringAlerts | Class::CostAnalysis => Key::ProbesQueuedMax,
        }
    }

    /// More than so many waiting make its workers grow.
    #[must_use]
    pub const fn crowd(self) -> usize {
        match self {
            Class::VmOperations => 20,
            Class::Migrations | Class::MonitoringAlerts | Class::CostAnalysis => 50,
        }
    }
}
