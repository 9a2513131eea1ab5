//! Operations.

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, operations_client::OperationsClient};

use crate::{
    Session, all_pages, call,
    output::{Column, at, column, number, wide},
};

/// What may be done with operations.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show one operation.
    Get {
        /// Its id.
        id: String,
    },
    /// Show all operations, or those that pass a filter.
    List {
        /// A filter, such as `status=stuck` or `vm=web`.
        #[arg(short = 'l', long, value_name = "FILTER", default_value = "")]
        selector: String,
    },
    /// Wait until an operation has ended.
    Wait {
        /// Its id.
        id: String,
    },
    /// Ask for an operation to be undone.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Have an operation that is stuck tried again, from its first step.
    Retry {
        /// Its id.
        id: String,
    },
    /// Have an operation that is stuck go on where it is.
    Resume {
        /// Its id.
        id: String,
    },
    /// Give an operation that is stuck up: what was wanted before is wanted again.
    Abandon {
        /// Its id.
        id: String,
    },
    /// Show the classes of operations: their workers, and how many wait for one.
    Queues,
}

pub(crate) const COLUMNS: &[Column] = &[
    column("ID", |row| at(row, "id")),
    column("KIND", |row| at(row, "kind")),
    column("VM", |row| at(row, "vm")),
    wide("HOST", |row| at(row, "host")),
    wide("CLASS", |row| at(row, "class")),
    column("STATUS", |row| at(row, "status")),
    column("STEP", |row| at(row, "step")),
    wide("PROJECT", |row| at(row, "project")),
    wide("CREATED", |row| at(row, "createdAt")),
    wide("ENDED", |row| at(row, "endedAt")),
    wide("FAILURES", |row| at(row, "failures")),
    wide("PARENT", |row| at(row, "parent")),
    wide("POLICY", |row| at(row, "migrationPolicy")),
    column("MESSAGE", |row| at(row, "message")),
];

const QUEUE_COLUMNS: &[Column] = &[
    column("CLASS", |row| at(row, "class")),
    column("URGENCY", |row| at(row, "urgency")),
    column("WORKERS", |row| at(row, "workers")),
    column("MIN", |row| at(row, "workersMin")),
    column("MAX", |row| at(row, "workersMax")),
    column("RUNNING", |row| number(row, "running")),
    column("WAITING", |row| number(row, "waiting")),
    column("NEXT WAITED", |row| milliseconds(&at(row, "nextWaitedMs"))),
    wide("NEXT", |row| at(row, "next")),
];

/// For people: 0 is nothing.
fn milliseconds(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(0) | Err(_) => String::new(),
        Ok(ms) => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    }
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<()> {
    match verb {
        Verb::Get { id } => {
            let request = v1::GetOperationRequest { operation: id, freshness: None };
            let operation = call!(session, OperationsClient<_>, get_operation, request).await?;
            session.output.row(&operation, COLUMNS)
        }
        Verb::List { selector } => {
            let page = v1::Page { filter: selector, page_size: 1000, ..Default::default() };
            let request = v1::ListOperationsRequest { page: Some(page), freshness: None };
            let (operations, _) =
                all_pages!(session, OperationsClient<_>, list_operations, request, operations);
            session.output.rows(&operations, COLUMNS)
        }
        Verb::Wait { id } => session.await_operation(&format!("operation {id}"), &id).await,
        Verb::Cancel { id } => {
            let mutation = session.client.mutation().await?;
            let request = v1::CancelOperationRequest { mutation, operation: id.clone() };
            call!(session, OperationsClient<_>, cancel_operation, request).await?;
            eprintln!("operation {id} is being undone");
            Ok(())
        }
        Verb::Retry { id } => {
            let mutation = session.client.mutation().await?;
            let request = v1::RetryOperationRequest { mutation, operation: id.clone() };
            let outcome = call!(session, OperationsClient<_>, retry_operation, request).await?;
            session.settle(&format!("operation {id}"), Some(outcome)).await
        }
        Verb::Resume { id } => {
            let mutation = session.client.mutation().await?;
            let request = v1::ResumeOperationRequest { mutation, operation: id.clone() };
            let outcome = call!(session, OperationsClient<_>, resume_operation, request).await?;
            session.settle(&format!("operation {id}"), Some(outcome)).await
        }
        Verb::Abandon { id } => {
            let mutation = session.client.mutation().await?;
            let request = v1::AbandonOperationRequest { mutation, operation: id.clone() };
            call!(session, OperationsClient<_>, abandon_operation, request).await?;
            eprintln!("operation {id} is given up");
            Ok(())
        }
        Verb::Queues => {
            let request = v1::ListQueuesRequest { freshness: None };
            let queues = call!(session, OperationsClient<_>, list_queues, request).await?.queues;
            session.output.rows(&queues, QUEUE_COLUMNS)
        }
    }
}
