//! The storage account of `az://` locations: its address and its secret, from variables and the
//! connection string.
//!
//! What the connection string says wins over single variables; `--endpoint` wins over both.

use crate::error::{Error, ErrorKind, Result};
use crate::options::RemoteOptions;
use crate::source::store::parts::is_base;
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

/// The account that every emulator has; its key is in Microsoft's documentation.
const EMULATOR_NAME: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A storage account.
#[derive(Debug)]
pub(super) struct Account {
    pub name: String,
    /// The URL of its blob service, without a slash at its end.
    pub base: String,
    pub secret: Option<Secret>,
}

/// What was given to use an account with.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// An account key.
    Key(Vec<u8>),
    /// A shared access signature: the query that it is, without a question mark.
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
    /// [`InvalidInput`](ErrorKind::InvalidInput) where they describe none, or what cannot be used;
    /// never with the secret.
    pub fn of(options: &RemoteOptions) -> Result<Self> {
        let parts = Parts::of(options)?;
        let variable = |names: &[&str]| names.iter().find_map(|name| options.env(name));
        let endpoint = options
            .endpoint
            .clone()
            .or_else(|| variable(&ENDPOINT_VARIABLES))
            .or_else(|| parts.endpoint())
            .map(|url| checked(&url))
            .transpose()?;
        let name = parts
            .take("accountname")
            .or_else(|| variable(&NAME_VARIABLES))
            .or_else(|| endpoint.as_deref().and_then(name_in))
            .ok_or_else(nameless)?;
        let base = match endpoint {
            Some(url) if is_bare_host(&url) => format!("{url}/{name}"),
            Some(url) => url,
            None => parts.usual_endpoint(&name),
        };
        let key = parts.take("accountkey").map(|key| (CONNECTION_STRING, key)).or_else(|| {
            KEY_VARIABLES.into_iter().find_map(|name| Some((name, options.env(name)?)))
        });
        let sas = parts.take("sharedaccesssignature").or_else(|| options.env(SAS_VARIABLE));
        let secret = match (key, sas) {
            // A connection string of a signature was given to be used with that.
            (Some((from, _)), Some(sas)) if from != CONNECTION_STRING && parts.has_signature() => {
                Some(signature(&sas))
            }
            (Some((from, key)), _) => Some(Secret::Key(decoded(from, &key)?)),
            (None, Some(sas)) => Some(signature(&sas)),
            (None, None) => None,
        };
        checked(&base)?;
        Ok(Self { name, base, secret })
    }

    /// Whether secrets that anyone who sees them can use may be sent there.
    pub fn is_confidential(&self) -> bool {
        self.base.starts_with("https://")
    }
}

/// The fields of a connection string, by their names in lower case.
struct Parts(HashMap<String, String>);

impl Parts {
    fn of(options: &RemoteOptions) -> Result<Self> {
        let text = options.env(CONNECTION_STRING).unwrap_or_default();
        let mut parts = HashMap::new();
        for field in text.split(';').map(str::trim).filter(|field| !field.is_empty()) {
            // Values hold equals signs of their own.
            let (name, value) = field.split_once('=').ok_or_else(|| {
                let sentence = format!(
                    "{CONNECTION_STRING} is not of the form Name=value;Name=value; copy it from \
                     the account's access keys"
                );
                Error::new(ErrorKind::InvalidInput, sentence)
            })?;
            parts.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        if parts.get("usedevelopmentstorage").is_some_and(|value| value == "true") {
            let proxy = parts.get("developmentstorageproxyuri").cloned();
            let host = proxy.unwrap_or_else(|| "http://127.0.0.1".to_owned());
            let endpoint = format!("{}:10000/{EMULATOR_NAME}", host.trim_end_matches('/'));
            parts.insert("accountname".to_owned(), EMULATOR_NAME.to_owned());
            parts.insert("accountkey".to_owned(), EMULATOR_KEY.to_owned());
            parts.insert("blobendpoint".to_owned(), endpoint);
        }
        Ok(Self(parts))
    }

    fn take(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn has_signature(&self) -> bool {
        self.take("sharedaccesssignature").is_some()
    }

    fn endpoint(&self) -> Option<String> {
        self.take("blobendpoint")
    }

    fn usual_endpoint(&self, account: &str) -> String {
        let scheme = self.take("defaultendpointsprotocol").unwrap_or_else(|| "https".to_owned());
        let suffix = self.take("endpointsuffix").unwrap_or_else(|| "core.windows.net".to_owned());
        format!("{scheme}://{account}.blob.{suffix}")
    }
}

/// `url` without a slash at its end, if it is one.
fn checked(url: &str) -> Result<String> {
    let url = url.trim().trim_end_matches('/');
    match url.parse().is_ok_and(|uri| is_base(&uri)) {
        true => Ok(url.to_owned()),
        false => Err(Error::new(
            ErrorKind::InvalidInput,
            "the endpoint for az:// is no URL; write it as https://ACCOUNT.blob.core.windows.net",
        )),
    }
}

/// Whether `url` has an address for a host, and no path: there the account's name is the first
/// part of the path (Azurite, and every other emulator).
fn is_bare_host(url: &str) -> bool {
    let uri = url.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_address = host.parse::<IpAddr>().is_ok() || !host.contains('.');
    is_address && uri.path() == "/"
}

/// The account that an endpoint names: the first part of its host, or of its path.
fn name_in(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let name = match uri.path().split('/').find(|part| !part.is_empty()) {
        Some(first) => first,
        None => uri.host()?.split_once(".blob.")?.0,
    };
    Some(name.to_owned())
}

fn nameless() -> Error {
    let [name, _] = NAME_VARIABLES;
    let sentence = format!(
        "az:// locations are in a storage account, and none is named; set {name} or \
         {CONNECTION_STRING}"
    );
    Error::new(ErrorKind::InvalidInput, sentence)
}

fn signature(text: &str) -> Secret {
    Secret::Sas(text.trim().trim_start_matches('?').trim_matches('&').to_owned())
}

fn decoded(from: &str, key: &str) -> Result<Vec<u8>> {
    STANDARD.decode(key.trim()).map_err(|_| {
        let sentence = format!("the account key in {from} is not Base64; copy all of it");
        Error::new(ErrorKind::InvalidInput, sentence)
    })
}
