//! How a profile obtains credentials: a base credential, and the roles that are then assumed one
//! after the other.
//!
//! ```text
//! [profile a] role_arn = A, source_profile = b      base: the keys of c
//! [profile b] role_arn = B, source_profile = c      roles: B, then A
//! [profile c] aws_access_key_id = ...
//! ```

use super::issued::bad_profile;
use super::sso::SsoLogin;
use crate::error::Result;
use crate::source::store::s3::aws_credential::AwsCredential;
use crate::source::store::s3::profiles::Profiles;

/// How a profile obtains its credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RoleChain {
    pub base: BaseCredential,
    /// In the order in which the roles are assumed.
    pub roles: Vec<Role>,
}

/// The source of the first credential of a chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BaseCredential {
    Keys(AwsCredential),
    WebIdentity { role: Role, token_file: String },
    Sso(SsoLogin),
    Process(String),
    Environment,
    Container,
    Instance,
}

/// A role to assume.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub arn: String,
    pub session_name: Option<String>,
    pub external_id: Option<String>,
    pub duration_seconds: Option<u32>,
    pub region: Option<String>,
}

impl From<BaseCredential> for RoleChain {
    fn from(base: BaseCredential) -> Self {
        Self { base, roles: Vec::new() }
    }
}

/// The role chain of the profile `name`; `None` where the profile sets no credentials.
///
/// # Errors
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for incomplete or contradictory settings.
pub(super) fn of(profiles: &Profiles, name: &str) -> Result<Option<RoleChain>> {
    follow(profiles, name, &mut Vec::new())
}

/// The role chain of the profile `name`, which is the source of the profiles in `seen`.
fn follow<'a>(
    profiles: &'a Profiles,
    name: &'a str,
    seen: &mut Vec<&'a str>,
) -> Result<Option<RoleChain>> {
    // A profile that is the source of another one provides its own keys, if it has any.
    let has_keys = !seen.is_empty() && keys(profiles, name)?.is_some();
    let has_token = profiles.get(name, "web_identity_token_file").is_some();
    let role = if has_keys || has_token { None } else { role(profiles, name)? };
    let Some(role) = role else {
        return Ok(single(profiles, name)?.map(RoleChain::from));
    };
    seen.push(name);
    let get = |key| profiles.get(name, key);
    let fail = |why: &str| Err(bad_profile(name, why));
    let (source, chain) = match (get("source_profile"), get("credential_source")) {
        (Some(_), Some(_)) => return fail("has both a source_profile and a credential_source"),
        (Some(source), None) if source == name => {
            (name, keys(profiles, name)?.map(|keys| BaseCredential::Keys(keys).into()))
        }
        (Some(source), None) if seen.contains(&source) => {
            return fail("is its own source_profile, through others");
        }
        (Some(source), None) if !profiles.contains(source) => {
            return fail(&format!("has the source_profile {source:?}, which does not exist"));
        }
        (Some(source), None) => (source, follow(profiles, source, seen)?),
        (None, Some(source)) => (name, Some(named(name, source)?.into())),
        (None, None) => {
            return fail(
                "has a role_arn, but no source_profile or credential_source to assume it from",
            );
        }
    };
    let no_base = || bad_profile(source, "has no credentials to assume a role from");
    let mut chain = chain.ok_or_else(no_base)?;
    chain.roles.push(role);
    Ok(Some(chain))
}

/// The base credential that the profile sets itself, without another profile.
fn single(profiles: &Profiles, name: &str) -> Result<Option<BaseCredential>> {
    let get = |key| profiles.get(name, key);
    if let Some(token_file) = get("web_identity_token_file") {
        let role = role(profiles, name)?.ok_or_else(|| {
            bad_profile(name, "has a web_identity_token_file, but no role_arn to assume with it")
        })?;
        return Ok(Some(BaseCredential::WebIdentity { role, token_file: token_file.to_owned() }));
    }
    if let Some(login) = SsoLogin::of(profiles, name)? {
        return Ok(Some(BaseCredential::Sso(login)));
    }
    if let Some(keys) = keys(profiles, name)? {
        return Ok(Some(BaseCredential::Keys(keys)));
    }
    Ok(get("credential_process").map(|command| BaseCredential::Process(command.to_owned())))
}

fn keys(profiles: &Profiles, name: &str) -> Result<Option<AwsCredential>> {
    let get = |key| profiles.get(name, key).map(str::to_owned);
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(Some(AwsCredential {
            access_key_id,
            secret_access_key,
            session_token: get("aws_session_token"),
            expires: None,
        })),
        (Some(_), None) => {
            Err(bad_profile(name, "has an aws_access_key_id, but no aws_secret_access_key"))
        }
        _ => Ok(None),
    }
}

fn role(profiles: &Profiles, name: &str) -> Result<Option<Role>> {
    let get = |key| profiles.get(name, key).map(str::to_owned);
    let Some(arn) = get("role_arn") else {
        return Ok(None);
    };
    if get("mfa_serial").is_some() {
        return Err(bad_profile(
            name,
            "needs a code of an MFA device, which cannot be entered here; use the credentials that \
             'aws sts assume-role' returns",
        ));
    }
    let duration = get("duration_seconds").map(|text| text.parse());
    let duration_seconds = duration
        .transpose()
        .map_err(|_| bad_profile(name, "has a duration_seconds that is not a number"))?;
    Ok(Some(Role {
        arn,
        session_name: get("role_session_name"),
        external_id: get("external_id"),
        duration_seconds,
        region: get("region"),
    }))
}

fn named(profile: &str, source: &str) -> Result<BaseCredential> {
    match source {
        "Environment" => Ok(BaseCredential::Environment),
        "EcsContainer" => Ok(BaseCredential::Container),
        "Ec2InstanceMetadata" => Ok(BaseCredential::Instance),
        other => Err(bad_profile(
            profile,
            &format!(
                "has the credential_source {other:?}; it is one of Environment, EcsContainer, \
                 Ec2InstanceMetadata"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(config: &str) -> Result<Option<RoleChain>> {
        of(&Profiles::of_text("a", config, ""), "a")
    }

    fn arns(chain: &RoleChain) -> Vec<&str> {
        chain.roles.iter().map(|role| role.arn.as_str()).collect()
    }

    const KEYS: &str = "aws_access_key_id = id\naws_secret_access_key = secret\n";

    #[test]
    fn roles_are_assumed_from_the_base_on() {
        let chained = format!(
            "[profile a]\nrole_arn=A\nsource_profile=b\nexternal_id=x\nregion=r1\n\
             [profile b]\nrole_arn=B\nsource_profile=c\nrole_session_name=s\nduration_seconds=900\n\
             [profile c]\n{KEYS}role_arn=unused\nsource_profile=a\n"
        );
        let chain = chain(&chained).unwrap().unwrap();
        assert_eq!(arns(&chain), ["B", "A"]);
        assert!(
            matches!(&chain.base, BaseCredential::Keys(keys) if keys.secret_access_key == "secret")
        );
        assert_eq!(chain.roles[0].session_name.as_deref(), Some("s"));
        assert_eq!(chain.roles[0].duration_seconds, Some(900));
        assert_eq!(chain.roles[1].external_id.as_deref(), Some("x"));
        assert_eq!(chain.roles[1].region.as_deref(), Some("r1"));
    }

    #[test]
    fn a_profile_may_be_its_own_source() {
        let chain = chain(&format!("[profile a]\nrole_arn=A\nsource_profile=a\n{KEYS}"));
        let chain = chain.unwrap().unwrap();
        assert_eq!(arns(&chain), ["A"]);
        assert!(matches!(chain.base, BaseCredential::Keys(_)));
    }

    #[test]
    fn base_credentials_are_distinguished() {
        let base = |config: &str| chain(&format!("[profile a]\n{config}")).unwrap().unwrap().base;
        for (source, expected) in [
            ("Environment", BaseCredential::Environment),
            ("EcsContainer", BaseCredential::Container),
            ("Ec2InstanceMetadata", BaseCredential::Instance),
        ] {
            assert_eq!(base(&format!("role_arn=A\ncredential_source={source}")), expected);
        }
        assert_eq!(base("credential_process = x y"), BaseCredential::Process("x y".to_owned()));
        assert!(matches!(base(KEYS), BaseCredential::Keys(_)));
        let web = base("role_arn=A\nweb_identity_token_file=/t");
        assert!(matches!(web, BaseCredential::WebIdentity { role, token_file }
            if role.arn == "A" && token_file == "/t"));
        let sso = base("sso_account_id=1\nsso_role_name=r\nsso_region=us-east-1\nsso_start_url=u");
        assert!(matches!(sso, BaseCredential::Sso(_)));
        assert_eq!(chain("[profile a]\nregion=x").unwrap(), None);
    }

    #[test]
    fn unusable_settings_are_reported() {
        for (config, sentence) in [
            ("role_arn=A", "no source_profile or credential_source"),
            ("role_arn=A\nsource_profile=none", "\"none\", which does not exist"),
            ("role_arn=A\nsource_profile=a", "has no credentials to assume a role from"),
            ("role_arn=A\nsource_profile=b\n[profile b]\nregion=r", "profile \"b\" has no cred"),
            (
                "role_arn=A\nsource_profile=b\n[profile b]\nrole_arn=B\nsource_profile=a",
                "profile \"b\" is its own source_profile, through others",
            ),
            ("role_arn=A\ncredential_source=Moon", "\"Moon\"; it is one of"),
            ("role_arn=A\nsource_profile=b\ncredential_source=x", "both"),
            ("role_arn=A\nmfa_serial=m\nsource_profile=a", "MFA"),
            ("role_arn=A\nduration_seconds=x\nsource_profile=a", "not a number"),
            ("web_identity_token_file=/t", "no role_arn"),
            ("aws_access_key_id=x", "no aws_secret_access_key"),
        ] {
            let error = chain(&format!("[profile a]\n{config}")).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains(sentence), "{error}");
        }
    }
}
