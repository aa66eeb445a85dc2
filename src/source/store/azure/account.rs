//! The storage account of `az://` locations: its address and its secret, from variables and the
//! connection string.
//!
//! The connection string takes precedence over single variables, and `--endpoint` over both.

use crate::error::{Error, Result};
use crate::options::RemoteOptions;
use crate::source::store::requests::base_url;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
const NAME_VARIABLES: [&str; 2] = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];
const KEY_VARIABLES: [&str; 2] = ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"];
const SAS_VARIABLE: &str = "AZURE_STORAGE_SAS_TOKEN";
const ENDPOINT_VARIABLES: [&str; 2] = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT_URL"];

/// The account of emulators; its key is public.
const EMULATOR_NAME: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A storage account.
#[derive(Debug)]
pub(super) struct Account {
    pub name: String,
    /// The URL of its blob service, without a slash at the end.
    pub base: String,
    pub secret: Option<Secret>,
}

/// A secret that authorizes requests to an account.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// An account key.
    Key(Vec<u8>),
    /// A shared access signature: a query, without the question mark.
    Sas(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key",
            Self::Sas(_) => "Sas",
        })
    }
}

impl Account {
    /// The account that `options` describe.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the options name no account, or an
    /// unusable one. The message never contains the secret.
    pub fn of(options: &RemoteOptions) -> Result<Self> {
        let string = ConnectionString::of(options)?;
        let variable = |names: &[&str]| names.iter().find_map(|name| options.env(name));
        let endpoint = options
            .endpoint
            .clone()
            .or_else(|| variable(&ENDPOINT_VARIABLES))
            .or_else(|| string.get("blobendpoint"))
            .map(|url| checked(&url))
            .transpose()?;
        let name = string
            .get("accountname")
            .or_else(|| variable(&NAME_VARIABLES))
            .or_else(|| endpoint.as_deref().and_then(name_in))
            .ok_or_else(|| {
                let [name, _] = NAME_VARIABLES;
                Error::invalid_input(format!(
                    "az:// locations are in a storage account, and none is named; set {name} or \
                     {CONNECTION_STRING}"
                ))
            })?;
        let base = match endpoint {
            Some(url) if is_bare_host(&url) => format!("{url}/{name}"),
            Some(url) => url,
            None => string.default_endpoint(&name),
        };
        let sas = string.get("sharedaccesssignature");
        let key = string.get("accountkey").map(|key| (CONNECTION_STRING, key)).or_else(|| {
            // A signature in the connection string takes precedence over a key in a variable.
            let mut names = KEY_VARIABLES.into_iter().filter(|_| sas.is_none());
            names.find_map(|name| Some((name, options.env(name)?)))
        });
        let secret = match key {
            Some((from, key)) => Some(Secret::Key(decoded(from, &key)?)),
            None => sas.or_else(|| options.env(SAS_VARIABLE)).map(|sas| signature(&sas)),
        };
        checked(&base)?;
        Ok(Self { name, base, secret })
    }

    /// Whether the connection is encrypted, so that tokens may be sent.
    pub fn has_tls(&self) -> bool {
        self.base.starts_with("https://")
    }
}

/// The fields of a connection string, by their names in lower case.
struct ConnectionString(HashMap<String, String>);

impl ConnectionString {
    fn of(options: &RemoteOptions) -> Result<Self> {
        let text = options.env(CONNECTION_STRING).unwrap_or_default();
        let mut fields = HashMap::new();
        for field in text.split(';').map(str::trim).filter(|field| !field.is_empty()) {
            // Values may contain equals signs.
            let (name, value) = field.split_once('=').ok_or_else(|| {
                Error::invalid_input(format!(
                    "{CONNECTION_STRING} is not of the form Name=value;Name=value; copy it from \
                     the account's access keys"
                ))
            })?;
            fields.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        if fields.get("usedevelopmentstorage").is_some_and(|value| value == "true") {
            let proxy = fields.get("developmentstorageproxyuri").cloned();
            let host = proxy.unwrap_or_else(|| "http://127.0.0.1".to_owned());
            let endpoint = format!("{}:10000/{EMULATOR_NAME}", host.trim_end_matches('/'));
            fields.insert("accountname".to_owned(), EMULATOR_NAME.to_owned());
            fields.insert("accountkey".to_owned(), EMULATOR_KEY.to_owned());
            fields.insert("blobendpoint".to_owned(), endpoint);
        }
        Ok(Self(fields))
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn default_endpoint(&self, account: &str) -> String {
        let scheme = self.get("defaultendpointsprotocol").unwrap_or_else(|| "https".to_owned());
        let suffix = self.get("endpointsuffix").unwrap_or_else(|| "core.windows.net".to_owned());
        format!("{scheme}://{account}.blob.{suffix}")
    }
}

/// Checks that `url` is a base URL, and removes the slash at its end.
fn checked(url: &str) -> Result<String> {
    base_url(url).map(|(url, _)| url.to_owned()).ok_or_else(|| {
        Error::invalid_input(
            "the endpoint for az:// is not a URL; write it as https://ACCOUNT.blob.core.windows.net",
        )
    })
}

/// Whether the host of `url` is an IP address or a name without dots, and the path is empty. Such a
/// server is an emulator, which expects the account's name as the first part of the path.
fn is_bare_host(url: &str) -> bool {
    let uri = url.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_address = host.parse::<IpAddr>().is_ok() || !host.contains('.');
    is_address && uri.path() == "/"
}

/// The account that an endpoint names, in the first part of its path or of its host.
fn name_in(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let name = match uri.path().split('/').find(|part| !part.is_empty()) {
        Some(first) => first,
        None => uri.host()?.split_once(".blob.")?.0,
    };
    Some(name.to_owned())
}

fn signature(text: &str) -> Secret {
    Secret::Sas(text.trim().trim_start_matches('?').trim_matches('&').to_owned())
}

fn decoded(from: &str, key: &str) -> Result<Vec<u8>> {
    STANDARD.decode(key.trim()).map_err(|_| {
        Error::invalid_input(format!("the account key in {from} is not Base64; copy all of it"))
    })
}
