//! Migration policies.

use domain::{envelope::Command, migration_policy::MigrationPolicyCommand, principal::Role};
use proto::{convert, v1, v1::migration_policies_server::MigrationPolicies};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, not_found},
    errors,
    list::{Lazy, page},
};

#[tonic::async_trait]
impl MigrationPolicies for Api {
    async fn set_migration_policy(
        &self,
        request: Request<v1::SetMigrationPolicyRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let missing = || convert::invalid("policy", "is missing; say what it is to be like");
        let policy = message.policy.clone().ok_or_else(|| errors::rejected(missing()))?;
        let command = convert::migration_policy::read(&message.migration_policy, policy);
        let command = Command::MigrationPolicy(command.map_err(errors::rejected)?);
        let set = self.change(Role::Admin, mutation, &message, |_, _| Ok(command.clone()));
        Ok(answer(set.await?))
    }

    async fn get_migration_policy(
        &self,
        request: Request<v1::GetMigrationPolicyRequest>,
    ) -> Result<Response<v1::MigrationPolicy>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let named = &message.migration_policy;
        let name = convert::name("migration_policy", named).map_err(errors::rejected)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let policy = view.state.migration_policies.get(&name);
        let policy =
            policy.ok_or_else(|| errors::rejected(not_found("migration policy", named)))?;
        Ok(Response::new(convert::migration_policy::migration_policy(policy)))
    }

    async fn list_migration_policies(
        &self,
        request: Request<v1::ListMigrationPoliciesRequest>,
    ) -> Result<Response<v1::ListMigrationPoliciesResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let rows = view.state.migration_policies.values();
        let rows = rows
            .map(|row| Lazy::new(&row.name, || convert::migration_policy::migration_policy(row)));
        let (migration_policies, next_page_token) =
            page(message.page, "novacron.v1.MigrationPolicy", "", rows)?;
        let revision = view.revision().as_u64();
        let answer =
            v1::ListMigrationPoliciesResponse { migration_policies, next_page_token, revision };
        Ok(Response::new(answer))
    }

    async fn delete_migration_policy(
        &self,
        request: Request<v1::DeleteMigrationPolicyRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let named = &message.migration_policy;
        let name = convert::name("migration_policy", named).map_err(errors::rejected)?;
        let deleted = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::MigrationPolicy(MigrationPolicyCommand::Delete { name: name.clone() }))
        });
        Ok(answer(deleted.await?))
    }
}
