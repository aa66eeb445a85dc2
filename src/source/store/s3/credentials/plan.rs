//! What a profile asks for: a base, and the roles that are assumed one after the other from there.
//!
//! ```text
//! [profile a] role_arn = A, source_profile = b      base: the keys of c
//! [profile b] role_arn = B, source_profile = c      roles: B, then A
//! [profile c] aws_access_key_id = ...
//! ```

use super::sso::Login;
use super::{Credential, denied};
use crate::error::{Error, Result};
use crate::source::store::s3::profiles::Profiles;

/// How to get at the credentials of a profile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub base: Base,
    /// In the order in which they are assumed.
    pub roles: Vec<Role>,
}

/// Where the first credentials come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Base {
    Keys(Credential),
    WebIdentity { role: Role, token_file: String },
    Sso(Login),
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

/// What a role is assumed from.
enum Source<'a> {
    Profile(&'a str),
    Base(Base),
}

/// What the profile `name` asks for; `None` where it says nothing of credentials.
///
/// # Errors
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) where its settings cannot be followed.
pub(super) fn of(profiles: &Profiles, name: &str) -> Result<Option<Plan>> {
    let mut seen = vec![name];
    let mut roles = Vec::new();
    let mut current = name;
    let base = loop {
        // A profile that others start from gives its keys, if it has some.
        let has_keys = !roles.is_empty() && keys(profiles, current)?.is_some();
        let has_token = profiles.get(current, "web_identity_token_file").is_some();
        let role = if has_keys || has_token { None } else { role(profiles, current)? };
        let Some(role) = role else {
            break single(profiles, current)?;
        };
        roles.push(role);
        match source(profiles, current, &seen)? {
            Some(Source::Profile(next)) => current = next,
            Some(Source::Base(base)) => break Some(base),
            None => break None,
        }
        seen.push(current);
    };
    roles.reverse();
    match base {
        Some(base) => Ok(Some(Plan { base, roles })),
        None if roles.is_empty() => Ok(None),
        None => Err(wrong(current, "has no credentials to assume a role from")),
    }
}

/// What the role of the profile `name` is assumed from; `seen` are the profiles up to this one.
fn source<'a>(profiles: &'a Profiles, name: &str, seen: &[&str]) -> Result<Option<Source<'a>>> {
    let get = |key| profiles.get(name, key);
    let what = match (get("source_profile"), get("credential_source")) {
        (Some(_), Some(_)) => "has both a source_profile and a credential_source",
        (Some(source), None) if source == name => {
            return Ok(keys(profiles, name)?.map(|keys| Source::Base(Base::Keys(keys))));
        }
        (Some(source), None) if seen.contains(&source) => {
            "is its own source_profile, through others"
        }
        (Some(source), None) if !profiles.contains(source) => {
            &format!("has the source_profile {source:?}, which does not exist")
        }
        (Some(source), None) => return Ok(Some(Source::Profile(source))),
        (None, Some(source)) => return Ok(Some(Source::Base(named(name, source)?))),
        (None, None) => {
            "has a role_arn, but no source_profile or credential_source to assume it from"
        }
    };
    Err(wrong(name, what))
}

/// The credentials that the profile has itself, other than by a role from another one.
fn single(profiles: &Profiles, name: &str) -> Result<Option<Base>> {
    let get = |key| profiles.get(name, key);
    if let Some(token_file) = get("web_identity_token_file") {
        let role = role(profiles, name)?.ok_or_else(|| {
            wrong(name, "has a web_identity_token_file, but no role_arn to assume with it")
        })?;
        return Ok(Some(Base::WebIdentity { role, token_file: token_file.to_owned() }));
    }
    if let Some(login) = Login::of(profiles, name)? {
        return Ok(Some(Base::Sso(login)));
    }
    if let Some(keys) = keys(profiles, name)? {
        return Ok(Some(Base::Keys(keys)));
    }
    Ok(get("credential_process").map(|command| Base::Process(command.to_owned())))
}

fn keys(profiles: &Profiles, name: &str) -> Result<Option<Credential>> {
    let get = |key| profiles.get(name, key).map(str::to_owned);
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(Some(Credential {
            access_key_id,
            secret_access_key,
            session_token: get("aws_session_token"),
            expires: None,
        })),
        (Some(_), None) => {
            Err(wrong(name, "has an aws_access_key_id, but no aws_secret_access_key"))
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
        return Err(wrong(
            name,
            "wants a code of an MFA device, which cannot be asked for here; use credentials that \
             'aws sts assume-role' gives",
        ));
    }
    let duration = get("duration_seconds").map(|text| text.parse());
    let duration_seconds = duration
        .transpose()
        .map_err(|_| wrong(name, "has a duration_seconds that is no number"))?;
    Ok(Some(Role {
        arn,
        session_name: get("role_session_name"),
        external_id: get("external_id"),
        duration_seconds,
        region: get("region"),
    }))
}

fn named(profile: &str, source: &str) -> Result<Base> {
    match source {
        "Environment" => Ok(Base::Environment),
        "EcsContainer" => Ok(Base::Container),
        "Ec2InstanceMetadata" => Ok(Base::Instance),
        other => Err(wrong(
            profile,
            &format!(
                "has the credential_source {other:?}; it is one of Environment, EcsContainer, \
                 Ec2InstanceMetadata"
            ),
        )),
    }
}

pub(super) fn wrong(profile: &str, what: &str) -> Error {
    denied(format!("the AWS profile {profile:?} {what}; check ~/.aws/config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(config: &str) -> Result<Option<Plan>> {
        of(&Profiles::of_text("a", config, ""), "a")
    }

    fn arns(plan: &Plan) -> Vec<&str> {
        plan.roles.iter().map(|role| role.arn.as_str()).collect()
    }

    const KEYS: &str = "aws_access_key_id = id\naws_secret_access_key = secret\n";

    #[test]
    fn roles_are_assumed_from_the_base_on() {
        let chained = format!(
            "[profile a]\nrole_arn=A\nsource_profile=b\nexternal_id=x\nregion=r1\n\
             [profile b]\nrole_arn=B\nsource_profile=c\nrole_session_name=s\nduration_seconds=900\n\
             [profile c]\n{KEYS}role_arn=unused\nsource_profile=a\n"
        );
        let plan = plan(&chained).unwrap().unwrap();
        assert_eq!(arns(&plan), ["B", "A"]);
        assert!(matches!(&plan.base, Base::Keys(keys) if keys.secret_access_key == "secret"));
        assert_eq!(plan.roles[0].session_name.as_deref(), Some("s"));
        assert_eq!(plan.roles[0].duration_seconds, Some(900));
        assert_eq!(plan.roles[1].external_id.as_deref(), Some("x"));
        assert_eq!(plan.roles[1].region.as_deref(), Some("r1"));
    }

    #[test]
    fn a_profile_may_be_its_own_source() {
        let plan = plan(&format!("[profile a]\nrole_arn=A\nsource_profile=a\n{KEYS}"));
        let plan = plan.unwrap().unwrap();
        assert_eq!(arns(&plan), ["A"]);
        assert!(matches!(plan.base, Base::Keys(_)));
    }

    #[test]
    fn bases_are_told_apart() {
        let base = |config: &str| plan(&format!("[profile a]\n{config}")).unwrap().unwrap().base;
        for (source, expected) in [
            ("Environment", Base::Environment),
            ("EcsContainer", Base::Container),
            ("Ec2InstanceMetadata", Base::Instance),
        ] {
            assert_eq!(base(&format!("role_arn=A\ncredential_source={source}")), expected);
        }
        assert_eq!(base("credential_process = x y"), Base::Process("x y".to_owned()));
        assert!(matches!(base(KEYS), Base::Keys(_)));
        let web = base("role_arn=A\nweb_identity_token_file=/t");
        assert!(matches!(web, Base::WebIdentity { role, token_file }
            if role.arn == "A" && token_file == "/t"));
        let sso = base("sso_account_id=1\nsso_role_name=r\nsso_region=us-east-1\nsso_start_url=u");
        assert!(matches!(sso, Base::Sso(_)));
        assert_eq!(plan("[profile a]\nregion=x").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_followed_is_told() {
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
            ("role_arn=A\nduration_seconds=x\nsource_profile=a", "no number"),
            ("web_identity_token_file=/t", "no role_arn"),
            ("aws_access_key_id=x", "no aws_secret_access_key"),
        ] {
            let error = plan(&format!("[profile a]\n{config}")).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains(sentence), "{error}");
        }
    }
}
