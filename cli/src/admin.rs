//! Projects, settings, credentials, tokens.

use anyhow::Result;
use clap::Subcommand;
use client::v1::{
    self, credentials_client::CredentialsClient, projects_client::ProjectsClient,
    settings_client::SettingsClient, tokens_client::TokensClient,
};

use crate::{
    Session, all_pages, call,
    output::{Column, at, column, number, wide},
};

/// What may be done with projects.
#[derive(Clone, Debug, Subcommand)]
pub enum ProjectVerb {
    /// Make a project.
    Create {
        /// Its name.
        name: String,
    },
    /// Show all projects.
    List,
    /// Remove an empty project.
    Delete {
        /// Its name.
        name: String,
    },
}

const PROJECT_COLUMNS: &[Column] =
    &[column("NAME", |row| at(row, "name")), column("VMS", |row| number(row, "vms"))];

pub(crate) async fn run_project(session: &Session, verb: ProjectVerb) -> Result<()> {
    let mutation = session.client.mutation().await?;
    match verb {
        ProjectVerb::Create { name } => {
            let what = format!("project {name} created");
            let request = v1::CreateProjectRequest { mutation, name };
            let outcome = call!(session, ProjectsClient<_>, create_project, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        ProjectVerb::List => {
            let request = v1::ListProjectsRequest::default();
            let (rows, _) =
                all_pages!(session, ProjectsClient<_>, list_projects, request, projects);
            session.output.rows(&rows, PROJECT_COLUMNS)
        }
        ProjectVerb::Delete { name } => {
            let what = format!("project {name} deleted");
            let request = v1::DeleteProjectRequest { mutation, project: name };
            let outcome = call!(session, ProjectsClient<_>, delete_project, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

/// What may be done with settings.
#[derive(Clone, Debug, Subcommand)]
pub enum SettingVerb {
    /// Show all settings.
    List,
    /// Give a setting a value.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: u64,
    },
    /// Give a setting its default again.
    Reset {
        /// Its name.
        name: String,
    },
}

const SETTING_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("VALUE", |row| number(row, "value")),
    column("DEFAULT", |row| number(row, "defaultValue")),
    column("BOUNDS", |row| format!("{} to {}", number(row, "min"), number(row, "max"))),
    wide("MEANING", |row| at(row, "meaning")),
];

pub(crate) async fn run_setting(session: &Session, verb: SettingVerb) -> Result<()> {
    let (setting, value) = match verb {
        SettingVerb::List => {
            let request = v1::ListSettingsRequest::default();
            let answer = call!(session, SettingsClient<_>, list_settings, request).await?;
            return session.output.rows(&answer.settings, SETTING_COLUMNS);
        }
        SettingVerb::Set { name, value } => (name, Some(value)),
        SettingVerb::Reset { name } => (name, None),
    };
    let what = format!("setting {setting}");
    let mutation = session.client.mutation().await?;
    let request = v1::SetSettingRequest { mutation, setting, value };
    let outcome = call!(session, SettingsClient<_>, set_setting, request).await?;
    session.settle(&what, Some(outcome)).await
}

/// What may be done with credentials.
#[derive(Clone, Debug, Subcommand)]
pub enum CredentialVerb {
    /// Make a credential and print it. It is shown this once.
    Create {
        /// Its name.
        name: String,
        /// viewer, operator or admin.
        #[arg(long, default_value = "viewer")]
        role: String,
        /// Seconds until it ends; 0 for 90 days.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        ttl: u32,
    },
    /// Show all credentials, never their secrets.
    List,
    /// Withdraw a credential, for ever.
    Revoke {
        /// Its name or id.
        name: String,
    },
}

const CREDENTIAL_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("ROLE", |row| at(row, "role")),
    column("EXPIRES", |row| at(row, "expiresAt")),
    column("REVOKED", |row| if at(row, "revoked") == "true" { "yes" } else { "no" }.to_owned()),
    wide("ID", |row| at(row, "id")),
];

pub(crate) async fn run_credential(session: &Session, verb: CredentialVerb) -> Result<()> {
    let mutation = session.client.mutation().await?;
    match verb {
        CredentialVerb::Create { name, role, ttl } => {
            let request = v1::CreateCredentialRequest { mutation, name, role, ttl_seconds: ttl };
            let answer = call!(session, CredentialsClient<_>, create_credential, request).await?;
            shown_once("credential", &answer.bearer)?;
            println!("{}", answer.bearer);
            eprintln!("this is shown once; send it as `Authorization: Bearer …`");
            Ok(())
        }
        CredentialVerb::List => {
            let request = v1::ListCredentialsRequest::default();
            let (rows, _) =
                all_pages!(session, CredentialsClient<_>, list_credentials, request, credentials);
            session.output.rows(&rows, CREDENTIAL_COLUMNS)
        }
        CredentialVerb::Revoke { name } => {
            let what = format!("credential {name} revoked");
            let request = v1::RevokeCredentialRequest { mutation, credential: name };
            let outcome = call!(session, CredentialsClient<_>, revoke_credential, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

/// What may be done with join tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a join token and print the command for the new node. It is shown this once.
    Create {
        /// The one node name it admits.
        #[arg(long, value_name = "NAME", default_value = "")]
        node: String,
        /// Seconds until it ends; 0 for 15 minutes.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        ttl: u32,
    },
    /// Show all join tokens, never their secrets.
    List,
    /// Withdraw a join token.
    Revoke {
        /// Its id.
        id: String,
    },
}

const TOKEN_COLUMNS: &[Column] = &[
    column("ID", |row| at(row, "id")),
    column("NODE", |row| at(row, "node")),
    column("STATUS", |row| at(row, "status")),
    column("EXPIRES", |row| at(row, "expiresAt")),
];

pub(crate) async fn run_token(session: &Session, verb: TokenVerb) -> Result<()> {
    let mutation = session.client.mutation().await?;
    match verb {
        TokenVerb::Create { node, ttl } => {
            let request = v1::CreateTokenRequest { mutation, node, ttl_seconds: ttl };
            let answer = call!(session, TokensClient<_>, create_token, request).await?;
            shown_once("token", &answer.token)?;
            eprintln!("on the new node, once, beside its cluster.toml:");
            println!("novacron join {}", answer.token);
            Ok(())
        }
        TokenVerb::List => {
            let request = v1::ListTokensRequest::default();
            let (rows, _) = all_pages!(session, TokensClient<_>, list_tokens, request, tokens);
            session.output.rows(&rows, TOKEN_COLUMNS)
        }
        TokenVerb::Revoke { id } => {
            let what = format!("token {id} revoked");
            let request = v1::RevokeTokenRequest { mutation, token: id };
            let outcome = call!(session, TokensClient<_>, revoke_token, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

/// A repeated request is answered with what the first one made, but not with its secret.
fn shown_once(noun: &str, secret: &str) -> Result<()> {
    let remedy = format!("find it with `novacron {noun} list`, revoke it and make another");
    anyhow::ensure!(!secret.is_empty(), "the {noun} is made, and its secret was lost: {remedy}");
    Ok(())
}
