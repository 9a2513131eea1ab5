//! Operations.

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, operations_client::OperationsClient};

use crate::{
    Session, all_pages, call,
    output::{Column, at, column, wide},
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
}

const COLUMNS: &[Column] = &[
    column("ID", |row| at(row, "id")),
    column("KIND", |row| at(row, "kind")),
    column("VM", |row| at(row, "vm")),
    column("STATUS", |row| at(row, "status")),
    column("STEP", |row| at(row, "step")),
    wide("PROJECT", |row| at(row, "project")),
    wide("CREATED", |row| at(row, "createdAt")),
    wide("ENDED", |row| at(row, "endedAt")),
    column("MESSAGE", |row| at(row, "message")),
];

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
    }
}
