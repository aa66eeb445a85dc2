//! The order in which credentials are looked for: what the caller gave, and then that of the SDKs. The first source that is
//! configured decides: where it fails, its failure is the error, and no other account is used in
//! its place.

use super::plan::{self, Base, Plan, Role};
use super::sts::Sts;
use super::{Credential, Found, container, denied, instance, process, sso, sts};
use crate::error::Result;
use crate::options::RemoteOptions;
use crate::source::http::Client;
use crate::source::store::s3::profiles::Profiles;

/// A place to look at.
enum Source {
    Environment,
    Profile,
    WebIdentity,
    Container,
    Instance,
}

const ORDER: [Source; 5] = [
    Source::Environment,
    Source::Profile,
    Source::WebIdentity,
    Source::Container,
    Source::Instance,
];

/// Looks for credentials; nothing is all the places looked at. Runs on the control thread's runtime.
///
/// # Errors
/// What a source says that is configured but gives nothing.
pub(super) async fn find(client: &Client) -> Result<Found> {
    let options = &client.options;
    if let Some(given) = &options.s3_credentials {
        return Ok(Found::Credential(given.into()));
    }
    let profiles = Profiles::read(options);
    let mut looked = Vec::new();
    for source in ORDER {
        let found = match source {
            Source::Environment => environment(options),
            Source::Profile => of_profile(client, &profiles).await?,
            Source::WebIdentity => web_identity(client, &profiles).await?,
            Source::Container => container::find(client).await?,
            Source::Instance => instance::find(client).await?,
        };
        match found {
            Found::Credential(_) => return Ok(found),
            Found::Nothing(place) => looked.push(place),
        }
    }
    Ok(Found::Nothing(looked.join(", ")))
}

fn environment(options: &RemoteOptions) -> Found {
    let id = options.env("AWS_ACCESS_KEY_ID");
    let secret = options.env("AWS_SECRET_ACCESS_KEY");
    match (id, secret) {
        (Some(id), Some(secret)) => Found::Credential(Credential {
            access_key_id: id.trim().to_owned(),
            secret_access_key: secret.trim().to_owned(),
            session_token: options.env("AWS_SESSION_TOKEN").map(|token| token.trim().to_owned()),
            expires: None,
        }),
        (id, _) => {
            let missing = if id.is_some() { "AWS_SECRET_ACCESS_KEY" } else { "AWS_ACCESS_KEY_ID" };
            Found::Nothing(format!("the environment ({missing} is not set)"))
        }
    }
}

async fn of_profile(client: &Client, profiles: &Profiles) -> Result<Found> {
    let name = &profiles.name;
    let places = &profiles.places;
    if !profiles.contains(name) {
        if profiles.is_named {
            return Err(denied(format!(
                "there is no profile {name:?} in {places}; check AWS_PROFILE"
            )));
        }
        return Ok(Found::Nothing(format!("the profile {name:?} in {places}")));
    }
    match plan::of(profiles, name)? {
        Some(plan) => follow(client, profiles, plan).await.map(Found::Credential),
        None => Ok(Found::Nothing(format!("the profile {name:?} in {places} (it has none)"))),
    }
}

/// Takes the base, and assumes the roles from there.
async fn follow(client: &Client, profiles: &Profiles, plan: Plan) -> Result<Credential> {
    let mut credential = base(client, profiles, plan.base).await?;
    for role in &plan.roles {
        let sts = Sts::of(&client.options, profiles, role.region.as_deref())?;
        credential = sts::assume(client, &sts, role, &credential).await?;
    }
    Ok(credential)
}

async fn base(client: &Client, profiles: &Profiles, base: Base) -> Result<Credential> {
    let found = match base {
        Base::Keys(credential) => Found::Credential(credential),
        Base::WebIdentity { role, token_file } => {
            let sts = Sts::of(&client.options, profiles, role.region.as_deref())?;
            let credential = sts::assume_with_token(client, &sts, &role, &token_file).await?;
            Found::Credential(credential)
        }
        Base::Sso(login) => Found::Credential(sso::credential(client, &login).await?),
        Base::Process(command) => Found::Credential(process::run(command).await?),
        Base::Environment => environment(&client.options),
        Base::Container => container::find(client).await?,
        Base::Instance => instance::find(client).await?,
    };
    match found {
        Found::Credential(credential) => Ok(credential),
        Found::Nothing(place) => Err(denied(format!(
            "the profile {:?} takes its credentials from {place}, and there are none; check its \
             credential_source",
            profiles.name
        ))),
    }
}

async fn web_identity(client: &Client, profiles: &Profiles) -> Result<Found> {
    let options = &client.options;
    let nothing = |name: &str| Ok(Found::Nothing(format!("web identity ({name} is not set)")));
    let Some(token_file) = options.env("AWS_WEB_IDENTITY_TOKEN_FILE") else {
        return nothing("AWS_WEB_IDENTITY_TOKEN_FILE");
    };
    let Some(arn) = options.env("AWS_ROLE_ARN") else {
        return nothing("AWS_ROLE_ARN");
    };
    let session_name = options.env("AWS_ROLE_SESSION_NAME");
    let role = Role { arn, session_name, ..Role::default() };
    let sts = Sts::of(options, profiles, None)?;
    sts::assume_with_token(client, &sts, &role, &token_file).await.map(Found::Credential)
}
