//! The configuration files of the AWS command line and SDKs: `~/.aws/config` and
//! `~/.aws/credentials`.
//!
//! ```text
//! [profile models]              [sso-session work]         [services local]
//! role_arn = ...                sso_region = ...           s3 =
//! source_profile = default      sso_start_url = ...          endpoint_url = ...
//! ```
//!
//! In the credentials file the title of a section is the bare name of the profile; its settings take
//! precedence over those of the config file. A nested setting is stored as `s3.endpoint_url`. There
//! are no quotes and no escapes; `#` and `;` begin a comment at the start of a line or after a blank.

use crate::error::{Error, ErrorKind, Result};
use crate::options::RemoteOptions;
use crate::sys::{read_named, read_small};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The settings of one section.
type Section = HashMap<String, String>;

/// The settings of both files.
#[derive(Default)]
pub(super) struct Profiles {
    /// By kind (`profile`, `sso-session`, `services`) and name.
    sections: HashMap<(String, String), Section>,
    /// The name of the active profile.
    pub name: String,
    /// Whether the user named the active profile.
    pub is_named: bool,
    /// The files, for messages: `~/.aws/config and ~/.aws/credentials (not there)`.
    pub places: String,
}

impl Profiles {
    /// Reads both files. A missing file is empty, and so is a default file that cannot be read, which
    /// is logged.
    ///
    /// # Errors
    /// Those of reading a file that a variable names, except that it does not exist.
    pub fn read(options: &RemoteOptions) -> Result<Self> {
        let named = options.env("AWS_PROFILE").or_else(|| options.env("AWS_DEFAULT_PROFILE"));
        let mut profiles = Self {
            is_named: named.is_some(),
            name: named.unwrap_or_else(|| "default".to_owned()),
            ..Self::default()
        };
        let config = profiles.add(options, "AWS_CONFIG_FILE", "~/.aws/config", true)?;
        let credentials =
            profiles.add(options, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", false)?;
        profiles.places = format!("{config} and {credentials}");
        Ok(profiles)
    }

    /// Merges a file, and returns its description for messages.
    fn add(
        &mut self,
        options: &RemoteOptions,
        variable: &str,
        default: &str,
        config: bool,
    ) -> Result<String> {
        let named = options.env(variable);
        let shown = named.clone().unwrap_or_else(|| default.to_owned());
        let Some(path) = expand(options, &shown) else {
            return Ok(format!("{shown} (HOME is not set)"));
        };
        let read = match named {
            Some(_) => read_named(variable, &path, "file of AWS settings"),
            None => read_small(&path, "file of AWS settings"),
        };
        match read {
            Ok(text) => {
                self.merge(&String::from_utf8_lossy(&text), config);
                Ok(shown)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(format!("{shown} (not there)")),
            Err(error) if named.is_some() => Err(error),
            Err(error) => {
                tracing::warn!("no AWS settings are taken from {shown}: {error}");
                Ok(format!("{shown} ({error})"))
            }
        }
    }

    /// Merges the settings of `text`, which take precedence over earlier ones.
    fn merge(&mut self, text: &str, config: bool) {
        for (title, settings) in sections(text) {
            let (kind, name) = match title.split_once(char::is_whitespace) {
                Some((kind, name)) if config => (kind, name.trim()),
                None if config && title != "default" => continue,
                _ => ("profile", title.as_str()),
            };
            let section = self.sections.entry((kind.to_owned(), name.to_owned())).or_default();
            section.extend(settings);
        }
    }

    /// The setting `key` of the profile `name`.
    pub fn get(&self, name: &str, key: &str) -> Option<&str> {
        self.section_get("profile", name, key)
    }

    /// The setting `key` of the section `[kind name]`.
    pub fn section_get(&self, kind: &str, name: &str, key: &str) -> Option<&str> {
        let section = self.sections.get(&(kind.to_owned(), name.to_owned()))?;
        section.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether there is a profile called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.sections.contains_key(&("profile".to_owned(), name.to_owned()))
    }

    /// The region that the options, the environment or the active profile set.
    pub fn configured_region(&self, options: &RemoteOptions) -> Option<String> {
        let option = options.region.clone();
        let region = option
            .or_else(|| options.env("AWS_REGION"))
            .or_else(|| options.env("AWS_DEFAULT_REGION"))
            .or_else(|| self.get(&self.name, "region").map(str::to_owned));
        region.map(|region| region.trim().to_owned()).filter(|region| !region.is_empty())
    }

    /// The endpoint that the active profile sets for S3.
    pub fn s3_endpoint(&self) -> Option<&str> {
        let services = self.get(&self.name, "services");
        services
            .and_then(|services| self.section_get("services", services, "s3.endpoint_url"))
            .or_else(|| self.get(&self.name, "endpoint_url"))
    }

    /// Whether the active profile says that endpoints in the environment and in the files are ignored.
    pub fn ignores_endpoints(&self) -> bool {
        let value = self.get(&self.name, "ignore_configured_endpoint_urls");
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether the active profile wants the bucket in the host name; `None` if it leaves that open.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an unknown style.
    pub fn has_virtual_addressing(&self) -> Result<Option<bool>> {
        let of_s3 = self.get(&self.name, "s3.addressing_style");
        match of_s3.or_else(|| self.get(&self.name, "addressing_style")) {
            None | Some("auto") => Ok(None),
            Some("virtual") => Ok(Some(true)),
            Some("path") => Ok(Some(false)),
            Some(other) => Err(Error::invalid_input(format!(
                "the AWS profile {:?} has the addressing_style {other:?}; write auto, path or virtual",
                self.name
            ))),
        }
    }

    /// The file of certificates that the active profile names.
    pub fn ca_bundle(&self, options: &RemoteOptions) -> Option<PathBuf> {
        expand(options, self.get(&self.name, "ca_bundle")?)
    }

    #[cfg(test)]
    pub fn of_text(name: &str, config: &str, credentials: &str) -> Self {
        let mut profiles = Self { name: name.to_owned(), ..Self::default() };
        profiles.merge(config, true);
        profiles.merge(credentials, false);
        profiles
    }
}

/// Replaces a leading `~` of `path` with the home directory.
pub(super) fn expand(options: &RemoteOptions, path: &str) -> Option<PathBuf> {
    match path.strip_prefix("~/") {
        Some(rest) => Some(Path::new(&options.env("HOME")?).join(rest)),
        None => Some(PathBuf::from(path)),
    }
}

/// The sections of a file: titles and settings.
fn sections(text: &str) -> Vec<(String, Section)> {
    let mut sections: Vec<(String, Section)> = Vec::new();
    let mut parent = String::new();
    for line in text.lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = without_comment(line);
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').filter(|_| !indented) {
            let title = title.split(']').next().unwrap_or_default().trim();
            sections.push((title.to_owned(), Section::new()));
            continue;
        }
        let (Some((_, section)), Some((key, value))) = (sections.last_mut(), line.split_once('='))
        else {
            continue;
        };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
        if indented && !parent.is_empty() {
            section.insert(format!("{parent}.{key}"), value);
        } else {
            // Only an empty setting has nested ones below.
            parent = if value.is_empty() { key.clone() } else { String::new() };
            section.insert(key, value);
        }
    }
    sections
}

fn without_comment(line: &str) -> &str {
    let starts = [" #", " ;", "\t#", "\t;"];
    let end = starts.iter().filter_map(|start| line.find(start)).min().unwrap_or(line.len());
    let line = line[..end].trim();
    if line.starts_with(['#', ';']) { "" } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# a comment
[default]
region = eu-west-1 # behind a blank
aws_secret_access_key = a#b;c/+=
[profile models]
Region=us-west-2
services = local
s3 =
  addressing_style = path
output = json
[unknown]
region = nowhere
[sso-session  work]
sso_region = eu-central-1
[services local]
s3 =
\tendpoint_url = http://localhost:9000
dynamodb =
  endpoint_url = http://localhost:8000
nonsense
";

    #[test]
    fn files_are_read_as_aws_reads_them() {
        let credentials = "[models]\naws_access_key_id = AKIA\nregion=us-east-2\n[unknown]\na=b";
        let profiles = Profiles::of_text("models", CONFIG, credentials);
        assert_eq!(profiles.get("default", "region"), Some("eu-west-1"));
        assert_eq!(profiles.get("default", "aws_secret_access_key"), Some("a#b;c/+="));
        assert_eq!(
            profiles.get("models", "region"),
            Some("us-east-2"),
            "the credentials file wins"
        );
        assert_eq!(profiles.get("models", "aws_access_key_id"), Some("AKIA"));
        assert_eq!(profiles.get("models", "s3.addressing_style"), Some("path"));
        assert_eq!(profiles.get("models", "output"), Some("json"));
        assert_eq!(profiles.get("unknown", "region"), None, "no profile of the config file");
        assert_eq!(profiles.get("unknown", "a"), Some("b"));
        assert_eq!(profiles.section_get("sso-session", "work", "sso_region"), Some("eu-central-1"));
        assert_eq!(profiles.s3_endpoint(), Some("http://localhost:9000"));
        assert!(profiles.contains("models") && !profiles.contains("work"));
    }

    /// Users of appliances set the style and their own authority in the profile, as the command line of
    /// AWS reads them. Both were ignored, so that every request failed.
    #[test]
    fn the_profile_says_how_buckets_are_addressed_and_who_is_trusted() {
        let options = RemoteOptions::with_variables(&[("HOME", "/home/u")]);
        let of = |config: &str| Profiles::of_text("default", config, "");
        for (config, style) in [
            ("[default]\ns3 =\n  addressing_style = path", Some(false)),
            ("[default]\ns3 =\n  addressing_style = virtual", Some(true)),
            ("[default]\ns3 =\n  addressing_style = auto", None),
            ("[default]\ns3.addressing_style = path", Some(false)),
            ("[default]\naddressing_style = virtual", Some(true)),
            ("[default]\ns3 =\n  addressing_style = path\naddressing_style = virtual", Some(false)),
            ("[default]\nregion = r", None),
        ] {
            assert_eq!(of(config).has_virtual_addressing().unwrap(), style, "{config}");
        }
        let wrong = of("[default]\ns3 =\n  addressing_style = dns").has_virtual_addressing();
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidInput);
        let bundle = of("[default]\nca_bundle = ~/ca.pem").ca_bundle(&options);
        assert_eq!(bundle.as_deref(), Some(Path::new("/home/u/ca.pem")));
        assert!(of("[default]\nignore_configured_endpoint_urls = true").ignores_endpoints());
    }

    /// A FIFO or a directory as a file of settings was taken for an empty file, and the message was
    /// about missing credentials, or about the server.
    #[test]
    fn a_named_file_that_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            let options = RemoteOptions::with_variables(&[(variable, path), ("HOME", "/none")]);
            let error = Profiles::read(&options).err().unwrap().to_string();
            assert!(error.starts_with(variable) && error.contains("is a directory"), "{error}");
        }
    }

    #[test]
    fn missing_files_are_reported() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_str().unwrap();
        std::fs::create_dir(directory.path().join(".aws")).unwrap();
        std::fs::write(directory.path().join(".aws/config"), "[profile x]\nregion=r1").unwrap();
        let options = RemoteOptions::with_variables(&[("HOME", home), ("AWS_PROFILE", "x")]);
        let profiles = Profiles::read(&options).unwrap();
        assert_eq!(profiles.configured_region(&options).as_deref(), Some("r1"));
        assert!(profiles.is_named);
        assert_eq!(profiles.places, "~/.aws/config and ~/.aws/credentials (not there)");
        let nothing = RemoteOptions::with_variables(&[]);
        assert!(Profiles::read(&nothing).unwrap().places.contains("HOME is not set"));
    }
}
