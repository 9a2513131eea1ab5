//! Projects, settings, credentials, tokens.

use domain::{
    State,
    credential::{Credential, CredentialCommand},
    envelope::Command,
    id::{CredentialId, Digest, TokenId},
    name::Name,
    principal::Role,
    project::ProjectCommand,
    setting::{DEFINITIONS, Key, SettingCommand},
    token::TokenCommand,
};
use proto::{
    convert, v1,
    v1::{
        credentials_server::Credentials, projects_server::Projects, settings_server::Settings,
        tokens_server::Tokens,
    },
};
use raft_store::identity;
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, mint, not_found},
    errors, find,
    list::{Lazy, page},
    secret::{JoinSecret, bearer, fresh_secret},
};
use crate::clock::wall_ms;

#[tonic::async_trait]
impl Projects for Api {
    async fn create_project(
        &self,
        request: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let name = convert::name("name", &message.name).map_err(errors::rejected)?;
        let created = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::Project(ProjectCommand::Create { name: name.clone() }))
        });
        Ok(answer(created.await?))
    }

    async fn list_projects(
        &self,
        request: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let rows = state.projects.values();
        let rows = rows.map(|row| Lazy::new(&row.name, || convert::admin::project(state, row)));
        let (projects, next_page_token) = page(message.page, "novacron.v1.Project", "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token, revision }))
    }

    async fn delete_project(
        &self,
        request: Request<v1::DeleteProjectRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let name = convert::name("project", &message.project).map_err(errors::rejected)?;
        let deleted = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::Project(ProjectCommand::Delete { name: name.clone() }))
        });
        Ok(answer(deleted.await?))
    }
}

#[tonic::async_trait]
impl Settings for Api {
    async fn list_settings(
        &self,
        request: Request<v1::ListSettingsRequest>,
    ) -> Result<Response<v1::ListSettingsResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let view = self.view(request.into_inner().freshness.as_ref()).await?;
        let settings = DEFINITIONS.iter().map(|row| convert::admin::setting(&view.state, row));
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListSettingsResponse { settings: settings.collect(), revision }))
    }

    async fn set_setting(
        &self,
        request: Request<v1::SetSettingRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let set = self.change(Role::Admin, mutation, &message, |_, _| {
            let key = Key::named(&message.setting)
                .ok_or_else(|| not_found("setting", &message.setting))?;
            Ok(Command::Setting(match message.value {
                Some(value) => SettingCommand::Set { key, value },
                None => SettingCommand::Reset { key },
            }))
        });
        Ok(answer(set.await?))
    }
}

const CREDENTIAL_TTL_DEFAULT_S: u32 = 90 * 24 * 3600;

fn credential<'a>(state: &'a State, text: &str) -> Option<&'a Credential> {
    let named = |name: Name| {
        let mut valid = state.credentials.values().filter(|row| !row.revoked);
        valid.find(|row| row.name == name).map(|row| &**row)
    };
    find(text, |id: CredentialId| state.credentials.get(&id).map(|row| &**row), named)
}

#[tonic::async_trait]
impl Credentials for Api {
    async fn create_credential(
        &self,
        request: Request<v1::CreateCredentialRequest>,
    ) -> Result<Response<v1::CreateCredentialResponse>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let name = convert::name("name", &message.name).map_err(errors::rejected)?;
        let role = convert::admin::read_role(&message.role).map_err(errors::rejected)?;
        let ttl_s = match message.ttl_seconds {
            0 => CREDENTIAL_TTL_DEFAULT_S,
            seconds => seconds,
        };
        let (id, secret): (CredentialId, _) = (mint(), fresh_secret());
        let expires_wall_ms = wall_ms() + u64::from(ttl_s) * 1_000;
        let created = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::Credential(CredentialCommand::Create {
                credential: id,
                name: name.clone(),
                role,
                secret_sha256: Digest::sha256(secret.as_bytes()),
                expires_wall_ms,
            }))
        });
        let outcome = created.await?;
        // A repeated request is answered with the first one's object, whose secret nobody has any
        // more.
        let shown = outcome.object == id.to_string();
        let bearer = if shown { bearer(id, &secret) } else { String::new() };
        let outcome = Some(outcome.into());
        Ok(Response::new(v1::CreateCredentialResponse { outcome, bearer }))
    }

    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Result<Response<v1::ListCredentialsResponse>, Status> {
        auth::caller(Role::Admin)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let rows = view.state.credentials.values();
        let rows = rows.map(|row| Lazy::new(row.id, || convert::admin::credential(row)));
        let (credentials, next_page_token) =
            page(message.page, "novacron.v1.Credential", "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListCredentialsResponse { credentials, next_page_token, revision }))
    }

    async fn revoke_credential(
        &self,
        request: Request<v1::RevokeCredentialRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let revoked = self.change(Role::Admin, mutation, &message, |state, _| {
            let row = credential(state, &message.credential)
                .ok_or_else(|| not_found("credential", &message.credential))?;
            Ok(Command::Credential(CredentialCommand::Revoke { credential: row.id }))
        });
        Ok(answer(revoked.await?))
    }
}

const TOKEN_TTL_DEFAULT_S: u32 = 15 * 60;
const TOKEN_TTL_MAX_S: u32 = 24 * 3600;

#[tonic::async_trait]
impl Tokens for Api {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let node = match message.node.as_str() {
            "" => None,
            name => Some(convert::name("node", name).map_err(errors::rejected)?),
        };
        let ttl_s = match message.ttl_seconds {
            0 => TOKEN_TTL_DEFAULT_S,
            seconds if seconds <= TOKEN_TTL_MAX_S => seconds,
            _ => {
                let message = format!("must be at most {TOKEN_TTL_MAX_S}");
                return Err(errors::rejected(convert::invalid("ttl_seconds", message)));
            }
        };
        let (id, secret): (TokenId, _) = (mint(), fresh_secret());
        let expires_wall_ms = wall_ms() + u64::from(ttl_s) * 1_000;
        let created = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::Token(TokenCommand::Create {
                token: id,
                secret_sha256: Digest::sha256(secret.as_bytes()),
                node: node.clone(),
                expires_wall_ms,
            }))
        });
        let outcome = created.await?;
        let shown = outcome.object == id.to_string();
        let token = if shown { self.join_secret(secret)? } else { String::new() };
        Ok(Response::new(v1::CreateTokenResponse { outcome: Some(outcome.into()), token }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        auth::caller(Role::Admin)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let (rows, now) = (view.state.tokens.values(), wall_ms());
        let rows = rows.map(|row| Lazy::new(row.id, move || convert::admin::token(row, now)));
        let (tokens, next_page_token) = page(message.page, "novacron.v1.Token", "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token, revision }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let token: TokenId = convert::id("token", &message.token).map_err(errors::rejected)?;
        let revoked = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::Token(TokenCommand::Revoke { token }))
        });
        Ok(answer(revoked.await?))
    }
}

impl Api {
    /// The text that `novacron join` takes: it names the nodes that are up.
    fn join_secret(&self, secret: String) -> Result<String, Status> {
        let pin = identity::pin(self.files.authority.certificate_pem())
            .map_err(|error| Status::internal(error.to_string()))?;
        let view = self.store.view();
        let addresses = view.state.nodes.values().map(|node| node.api_address.clone());
        Ok(JoinSecret { pin, addresses: addresses.collect(), secret }.to_string())
    }
}
