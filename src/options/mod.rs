//! The types of options, and the only place that reads environment variables.
//!
//! Variables set options only of a loader that [`Loader::from_env`](crate::Loader::from_env) makes, as
//! the command, the Python package and the C library do. A loader that
//! [`Loader::new`](crate::Loader::new) makes ignores all variables whose names begin with `RINGLOAD_`
//! or `RUNAI_STREAMER_`, so that a program that embeds it is in control.
//!
//! An option that was set in code or on the command line wins over ringload's own variable, which
//! wins over the variable of Run:ai Model Streamer. [`Loader::options`](crate::Loader::options) lists
//! all options by name.
//!
//! | option | variable | fallback |
//! | --- | --- | --- |
//! | memory limit | `RINGLOAD_MEMORY_LIMIT` (`unlimited`, `min`, `4GiB`, `4000000000`) | `RUNAI_STREAMER_MEMORY_LIMIT` (`-1`, `0`, bytes) |
//! | engines | `RINGLOAD_CONCURRENCY` | `RUNAI_STREAMER_CONCURRENCY`, at most one a core |
//! | cache directory | `RINGLOAD_CACHE_DIR` (none: no cache) | |
//! | cache size | `RINGLOAD_CACHE_SIZE` (`unlimited`, `200GiB`) | |
//! | cache validation | `RINGLOAD_CACHE_VALIDATE` (`always`, `never`, `10m`) | |
//! | shared cache | `RINGLOAD_CACHE_SHARED` (`true`, `false`) | |
//! | pin | `RINGLOAD_PIN` (`auto`, `etag`, `length`, `none`) | |
//! | unpinned | `RINGLOAD_UNPINNED` (`true`, `false`) | |
//!
//! Remote locations also read the usual variables of their field, for every loader: without them it
//! would find neither the proxy nor the credentials that other programs find. Where several variables mean the
//! same, the first one that is set counts.
//!
//! | for | variables |
//! | --- | --- |
//! | proxies | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, also in lower case; `HTTP_PROXY` is ignored if `REQUEST_METHOD` is set, as web servers do for CGI scripts |
//! | trusted certificates | `SSL_CERT_FILE`, `SSL_CERT_DIR` instead of the system's; `AWS_CA_BUNDLE` in addition; for a loader of `from_env` also `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` in addition |
//! | `s3://` region and endpoint | `AWS_REGION`, `AWS_DEFAULT_REGION`; `RUNAI_STREAMER_S3_ENDPOINT`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`; `RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING` |
//! | `s3://` without credentials | `RUNAI_STREAMER_S3_UNSIGNED`, `AWS_NO_SIGN_REQUEST` |
//! | `s3://` keys and profiles | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; `AWS_PROFILE`, `AWS_DEFAULT_PROFILE`, `AWS_CONFIG_FILE`, `AWS_SHARED_CREDENTIALS_FILE`, `HOME`; `AWS_ENDPOINT_URL_SSO` |
//! | `s3://` roles | `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`, `AWS_ROLE_SESSION_NAME`; `AWS_ENDPOINT_URL_STS`, `AWS_STS_REGIONAL_ENDPOINTS` |
//! | `s3://` containers | `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_CONTAINER_CREDENTIALS_FULL_URI`, `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`, `AWS_CONTAINER_AUTHORIZATION_TOKEN` |
//! | `s3://` instances | `AWS_EC2_METADATA_DISABLED`, `AWS_EC2_METADATA_SERVICE_ENDPOINT`, `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE` |
//! | `gs://` endpoint | `STORAGE_EMULATOR_HOST`, `CLOUD_STORAGE_EMULATOR_ENDPOINT` |
//! | `gs://` credentials | `RINGLOAD_GCS_ANONYMOUS`, `RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS`; `GOOGLE_APPLICATION_CREDENTIALS`, `RUNAI_STREAMER_GCS_CREDENTIAL_FILE`; `CLOUDSDK_CONFIG`, `HOME`; `GCE_METADATA_HOST`, `NO_GCE_CHECK`; and those that the credentials file names |
//! | `az://` endpoint and account | `AZURE_STORAGE_ENDPOINT`, `AZURE_ENDPOINT_URL`; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT` |
//! | `az://` secrets | `AZURE_STORAGE_CONNECTION_STRING`; `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_KEY`; `AZURE_STORAGE_SAS_TOKEN`; `RINGLOAD_AZURE_ANONYMOUS` |
//! | `az://` tokens | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_AUTHORITY_HOST` with `AZURE_FEDERATED_TOKEN_FILE` or `AZURE_CLIENT_SECRET`; `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`; `AZURE_POD_IDENTITY_AUTHORITY_HOST` |
//! | `hf://` | `HF_ENDPOINT`; `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`; `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` |
//! | cache of `hf://` | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`; `HF_HOME`, `XDG_CACHE_HOME`, `HOME` |
//! | [`Loader::runai_env`](crate::Loader::runai_env) | `RUNAI_STREAMER_OBJ_CONCURRENCY`, `RUNAI_STREAMER_CONCURRENCY`, `RUNAI_STREAMER_FS_STRATEGY` |
//! | `anyscale://` | `ANYSCALE_ARTIFACT_STORAGE`, and the variables of the store that it names |

mod cache;
mod checkpoint_files;
mod device;
mod dtype;
mod environment;
mod glob;
mod memory_limit;
pub(crate) mod parse;
mod reading;
mod remote;
mod runai;

pub(crate) use cache::{CacheAccess, CacheOptions, CacheSettings};
pub use cache::{CacheSize, CacheValidate};
pub(crate) use checkpoint_files::CheckpointOptions;
pub use device::{Allocation, Device, DeviceMap};
pub(crate) use dtype::check_dtype;
pub use dtype::parse_dtype;
pub use environment::environment_memory_limit;
pub(crate) use environment::{
    CA_BUNDLES, CONNECTIONS_MAX_SET, ENGINE_VARIABLES, ENGINES_MAX, MEMORY_LIMIT_VARIABLES, cores,
    engines_from, environment, memory_limit_from,
};
pub(crate) use glob::Glob;
pub use memory_limit::MemoryLimit;
pub(crate) use parse::{at_most, count_of, invalid, parse_bytes, parse_flag, parse_number};
pub use reading::{Order, ReadPath};
pub(crate) use remote::{PartialS3Keys, RemoteOptions, parse_header};
pub use remote::{PinBy, RetryLimits, S3Credentials};
pub(crate) use runai::RunaiVariables;
#[cfg(feature = "capi")]
pub(crate) use runai::strategy;
