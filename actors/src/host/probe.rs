//! Asking the host's driver whether it answers, on behalf of an operation.

use std::time::{Duration, Instant};

use domain::{envelope::Command, id::OperationId, operation::OperationCommand};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use telemetry::Present;

use super::instance::{FINISHED, Tools};
use crate::metrics::{self, Wake};

/// Longest time a driver may take to say what its host has.
const PATIENCE: Duration = Duration::from_secs(10);

/// One question.
pub(super) struct Question {
    pub(super) tools: Tools,
    pub(super) operation: OperationId,
}

const NAME: &str = "probe";

pub(super) struct ProbeActor {
    _present: Present,
}

impl ProbeActor {
    pub(super) fn new() -> ProbeActor {
        ProbeActor { _present: metrics::at_work(NAME) }
    }
}

impl Actor for ProbeActor {
    type Msg = Wake;
    type State = Question;
    type Arguments = Question;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        question: Question,
    ) -> Result<Question, ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok(question)
    }

    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        question: &mut Question,
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(NAME);
        me.stop(Some(question.ask().await));
        Ok(())
    }
}

impl Question {
    /// The answer is the reason with which the actor ends.
    async fn ask(&self) -> String {
        let begun = Instant::now();
        let inventory = self.tools.host.driver.inventory();
        let answer = match tokio::time::timeout(PATIENCE, inventory).await {
            Ok(Ok(_)) => Ok(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {PATIENCE:?}")),
        };
        let failed = answer.is_err();
        let command = OperationCommand::Probed { operation: self.operation, answer };
        match self.tools.store.propose_as_node(Command::Operation(command)).await {
            Ok(_) if failed => "the driver does not answer".to_owned(),
            Ok(_) => FINISHED.to_owned(),
            Err(error) => error.to_string(),
        }
    }
}
