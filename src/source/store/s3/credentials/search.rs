//! Searches for credentials: first those of the caller, then in the order of the AWS SDKs. The
//! first configured source is used. If it fails, the search fails, so that no other account is used
//! instead.

use super::issued::{FoundAws, bad_profile, denied};
use super::role_chain::{self, BaseCredential, Role, RoleChain};
use super::sts::Sts;
use super::{container, instance, process, sso, sts};
use crate::error::Result;
use crate::options::RemoteOptions;
use crate::source::http::Client;
use crate::source::store::s3::aws_credential::AwsCredential;
use crate::source::store::s3::profiles::Profiles;
use futures_core::future::BoxFuture;

/// Searches for credentials. If there are none, the result lists all sources. Runs on the control
/// thread's runtime.
///
/// # Errors
/// The error of a source that is configured but fails.
pub(super) async fn find(client: &Client) -> Result<FoundAws> {
    let options = &client.options;
    if let Some(given) = &options.s3_credentials {
        return Ok(FoundAws::Credential(given.into()));
    }
    let profiles = Profiles::read(options)?;
    let sources: [BoxFuture<'_, Result<FoundAws>>; 5] = [
        Box::pin(async { Ok(environment(options)) }),
        Box::pin(of_profile(client, &profiles)),
        Box::pin(web_identity(client, &profiles)),
        Box::pin(container::find(client)),
        Box::pin(instance::find(client)),
    ];
    let mut searched = Vec::new();
    for source in sources {
        match source.await? {
            FoundAws::Nothing(place) => searched.push(place),
            found => return Ok(found),
        }
    }
    Ok(FoundAws::Nothing(searched.join(", ")))
}

fn environment(options: &RemoteOptions) -> FoundAws {
    let id = options.env("AWS_ACCESS_KEY_ID");
    let secret = options.env("AWS_SECRET_ACCESS_KEY");
    match (id, secret) {
        (Some(id), Some(secret)) => FoundAws::Credential(AwsCredential {
            access_key_id: id.trim().to_owned(),
            secret_access_key: secret.trim().to_owned(),
            session_token: options.env("AWS_SESSION_TOKEN").map(|token| token.trim().to_owned()),
            expires: None,
        }),
        (id, _) => {
            let missing = if id.is_some() { "AWS_SECRET_ACCESS_KEY" } else { "AWS_ACCESS_KEY_ID" };
            FoundAws::Nothing(format!("the environment ({missing} is not set)"))
        }
    }
}

async fn of_profile(client: &Client, profiles: &Profiles) -> Result<FoundAws> {
    let name = &profiles.name;
    let places = &profiles.places;
    if !profiles.contains(name) {
        if profiles.is_named {
            return Err(denied(format!(
                "there is no profile {name:?} in {places}; check AWS_PROFILE"
            )));
        }
        return Ok(FoundAws::Nothing(format!("the profile {name:?} in {places}")));
    }
    match role_chain::of(profiles, name)? {
        Some(chain) => follow(client, profiles, chain).await.map(FoundAws::Credential),
        None => Ok(FoundAws::Nothing(format!("the profile {name:?} in {places} (it has none)"))),
    }
}

/// Obtains the base credential of `chain`, and assumes its roles.
async fn follow(client: &Client, profiles: &Profiles, chain: RoleChain) -> Result<AwsCredential> {
    let mut credential = base(client, profiles, chain.base).await?;
    for role in &chain.roles {
        let sts = Sts::of(&client.options, profiles, role.region.as_deref())?;
        credential = sts::assume(client, &sts, role, &credential).await?;
    }
    Ok(credential)
}

async fn base(client: &Client, profiles: &Profiles, base: BaseCredential) -> Result<AwsCredential> {
    let found = match base {
        BaseCredential::Keys(credential) => FoundAws::Credential(credential),
        BaseCredential::WebIdentity { role, token_file } => {
            let sts = Sts::of(&client.options, profiles, role.region.as_deref())?;
            let credential = sts::assume_with_token(client, &sts, &role, &token_file).await?;
            FoundAws::Credential(credential)
        }
        BaseCredential::Sso(login) => FoundAws::Credential(sso::credential(client, &login).await?),
        BaseCredential::Process(command) => FoundAws::Credential(process::run(command).await?),
        BaseCredential::Environment => environment(&client.options),
        BaseCredential::Container => container::find(client).await?,
        BaseCredential::Instance => instance::find(client).await?,
    };
    match found {
        FoundAws::Credential(credential) => Ok(credential),
        FoundAws::Nothing(place) => Err(bad_profile(
            &profiles.name,
            &format!("takes its credentials from {place}, which has none"),
        )),
    }
}

async fn web_identity(client: &Client, profiles: &Profiles) -> Result<FoundAws> {
    let options = &client.options;
    let nothing = |name: &str| Ok(FoundAws::Nothing(format!("web identity ({name} is not set)")));
    let Some(token_file) = options.env("AWS_WEB_IDENTITY_TOKEN_FILE") else {
        return nothing("AWS_WEB_IDENTITY_TOKEN_FILE");
    };
    let Some(arn) = options.env("AWS_ROLE_ARN") else {
        return nothing("AWS_ROLE_ARN");
    };
    let session_name = options.env("AWS_ROLE_SESSION_NAME");
    let role = Role { arn, session_name, ..Role::default() };
    let sts = Sts::of(options, profiles, None)?;
    sts::assume_with_token(client, &sts, &role, &token_file).await.map(FoundAws::Credential)
}
