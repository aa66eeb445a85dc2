//! The table of a loader's options, for callers that set options by name from text.
//!
//! The command line, the C library and the Python package set options only through this table: the
//! command makes its flags from it, and `ringload_loader_set` and the keyword arguments of Python's
//! `Loader` look names up in it. A new option needs one more entry.

use super::loader::Loader;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::options::{
    CONNECTIONS_MAX_SET, CacheOptions, Device, ENGINE_VARIABLES, ENGINES_MAX, Glob,
    MEMORY_LIMIT_VARIABLES, PartialS3Keys, RemoteOptions, count_of, invalid, parse_bytes,
    parse_dtype, parse_flag, parse_number,
};
use crate::plan::Slices;
use OptionGroup::{Cache, Files, Load, Remote};
use Setter::{Add, Flag, List, OnePath, Text};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// One option of a [`Loader`], as [`Loader::set`] takes it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::Loader;
///
/// for option in Loader::options() {
///     println!("{} {}: {}", option.name, option.value_name, option.help);
/// }
/// let loader = Loader::new().set("memory_limit", "2GiB")?;
/// # assert_eq!(loader.load(&path)?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LoaderOption {
    /// The name, in snake case. The flag of the `ringload` command is the same with dashes.
    pub name: &'static str,
    /// The subject of the option.
    pub group: OptionGroup,
    /// The placeholder for the value in help texts, such as `SIZE`.
    pub value_name: &'static str,
    /// A sentence for help texts, without a full stop.
    pub help: &'static str,
    /// The environment variables that are read where the option is not set, by a loader that
    /// [`Loader::from_env`] makes. The first one that is set counts.
    pub variables: &'static [&'static str],
    setter: Setter,
}

/// The subject of an option, by which help texts group options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionGroup {
    /// The load itself.
    Load,
    /// The files of a checkpoint.
    Files,
    /// Object stores and web servers.
    Remote,
    /// The local file cache.
    Cache,
}

/// The kind of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionKind {
    /// Text.
    Text,
    /// A path of a file or directory. It need not be UTF-8.
    Path,
    /// `true` or `false`.
    Flag,
    /// Any number of texts.
    Repeated,
}

#[derive(Debug, Clone, Copy)]
enum Setter {
    Text(fn(Loader, &str) -> Result<Loader>),
    OnePath(fn(Loader, &Path) -> Result<Loader>),
    Flag(fn(Loader, bool) -> Loader),
    /// Adds one value to those that were set before.
    Add(fn(Loader, &str) -> Result<Loader>),
    /// Replaces the values that were set before.
    List(fn(Loader, &[&str]) -> Result<Loader>),
}

/// Sets an option by the method of the same name, whose argument implements `FromStr`.
macro_rules! parsed {
    ($method:ident) => {
        Text(|loader, text| Ok(loader.$method(text.parse()?)))
    };
}

static OPTIONS: &[LoaderOption] = &[
    entry(Load, "memory_limit", "LIMIT", parsed!(memory_limit))
        .help("Limit tensors in host memory to 'unlimited', 'min', or a size such as 4GiB")
        .read_from(MEMORY_LIMIT_VARIABLES),
    entry(Load, "device", "DEVICE", Text(set_device))
        .help("Device to load tensors to: cpu, cuda or cuda:N [default: cpu]"),
    entry(Load, "device_map", "GLOB=DEVICE", List(set_device_map))
        .help("Device of tensors whose name matches; the first match counts; may be repeated"),
    entry(Load, "dtype", "DTYPE", Text(|loader, text| Ok(loader.dtype(parse_dtype(text)?))))
        .help("Cast floats to this type while loading: f32, f16 or bf16"),
    entry(Load, "allocation", "PER", parsed!(allocation))
        .help("Allocate GPU memory per shard or per tensor: shard or tensor [default: shard]"),
    entry(Load, "tensors", "GLOB", List(set_tensors))
        .help("Load only tensors whose name matches this pattern; may be repeated"),
    entry(Load, "names", "NAME", List(|loader, names| Ok(loader.names(names.iter().copied()))))
        .help("Load only the tensors of these names; a name that no tensor has is an error"),
    entry(Load, "slice", "RULE", List(set_slices))
        .help("Load a part: GLOB=DIM:RANK/WORLD, e.g. '*.o_proj.weight=1:0/4'; may be repeated"),
    entry(Load, "order", "ORDER", parsed!(order))
        .help("Order of the tensors: completion or file [default: completion]"),
    entry(Load, "read_path", "PATH", parsed!(read_path))
        .help("How to read files: auto, direct, buffered, mapped or gds [default: auto]"),
    entry(Load, "immutable", "", Flag(Loader::immutable))
        .help("Nothing writes to the local files: tensors may be views of their pages"),
    entry(Load, "read_size", "BYTES", Text(set_read_size))
        .help("Bytes of one read or range request [default: 8MiB; less under a small limit]"),
    entry(Load, "engines", "N", Text(set_engines))
        .help("Number of threads that read, at most 1024; 0 uses as many as help [default: 0]")
        .read_from(ENGINE_VARIABLES),
    entry(Load, "hold_timeout_seconds", "SECONDS", Text(set_hold_timeout))
        .help("How long a load waits for a held tensor when memory is full [default: 10]"),
    entry(Load, "verify", "", Flag(Loader::verify)).help(
        "Check every file and object against a checksum, of its store or of a file beside it",
    ),
    entry(Load, "manifest", "FILE", OnePath(set_manifest)).help(
        "Check every tensor against the checksums of this manifest, which 'ringload sum' wrote",
    ),
    entry(Load, "check_finite", "", Flag(Loader::check_finite))
        .help("Fail if a tensor holds NaN or infinity"),
    entry(Files, "all_files", "", Flag(Loader::all_files))
        .help("Read every *.safetensors file of a directory, without its index"),
    entry(Files, "variant", "NAME", Text(|loader, text| Ok(loader.variant(text))))
        .help("Read the files of this variant in a directory, such as fp16"),
    entry(Files, "strict", "", Flag(Loader::strict))
        .help("Refuse an index that names a tensor which is not in the shard that it says"),
    entry(Remote, "region", "REGION", Text(|loader, text| Ok(loader.region(text))))
        .help("Region of the S3 bucket [default: from profile, environment or bucket]"),
    entry(Remote, "endpoint", "URL", Text(|loader, text| Ok(loader.endpoint(text))))
        .help("Base URL of a compatible store, such as http://minio:9000"),
    entry(Remote, "header", "NAME: VALUE", Add(Loader::header))
        .help("Send this header, 'Name: value', to the named servers; may be repeated"),
    entry(Remote, "connections", "N", Text(set_connections))
        .help("Number of connections, at most 1024; 0 uses as many as help [default: 0]"),
    entry(Remote, "pin", "BY", parsed!(pin))
        .help("Notice replaced objects by: auto, etag, length or none [default: auto]")
        .read_from(&[RemoteOptions::PIN_VARIABLE]),
    entry(Remote, "unpinned", "", Flag(Loader::unpinned))
        .help("Load objects even if their server sends nothing to notice a replacement by")
        .read_from(&[RemoteOptions::UNPINNED_VARIABLE]),
    entry(Remote, "s3_access_key_id", "ID", Text(set_s3_access_key_id))
        .help("Id of the S3 access key; counts together with s3_secret_access_key"),
    entry(Remote, "s3_secret_access_key", "SECRET", Text(set_s3_secret_access_key))
        .help("Secret of the S3 access key"),
    entry(Remote, "s3_session_token", "TOKEN", Text(set_s3_session_token))
        .help("Session token of temporary S3 keys"),
    entry(Cache, "cache_dir", "DIR", OnePath(set_cache_dir))
        .help("Keep what is loaded over the network in this directory for the next load")
        .read_from(&[CacheOptions::DIR_VARIABLE]),
    entry(Cache, "cache_size", "SIZE", parsed!(cache_size))
        .help("How large the cache may get: 'unlimited', or a size such as 200GiB")
        .read_from(&[CacheOptions::SIZE_VARIABLE]),
    entry(Cache, "cache_validate", "WHEN", parsed!(cache_validate))
        .help("When to ask whether an object changed: always, never, or after an age such as 10m")
        .read_from(&[CacheOptions::VALIDATE_VARIABLE]),
    entry(Cache, "cache_shared", "", Flag(Loader::cache_shared))
        .help("Trust the entries of everyone who may write to the cache, and let them read ours")
        .read_from(&[CacheOptions::SHARED_VARIABLE]),
];

const fn entry(
    group: OptionGroup,
    name: &'static str,
    value_name: &'static str,
    setter: Setter,
) -> LoaderOption {
    LoaderOption { name, group, value_name, help: "", variables: &[], setter }
}

impl LoaderOption {
    const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    const fn read_from(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    /// Returns the kind of the option's value.
    pub fn kind(&self) -> OptionKind {
        match self.setter {
            Text(_) => OptionKind::Text,
            OnePath(_) => OptionKind::Path,
            Flag(_) => OptionKind::Flag,
            Add(_) | List(_) => OptionKind::Repeated,
        }
    }

    fn set_one(&self, loader: Loader, value: &OsStr) -> Result<Loader> {
        if let OnePath(set) = self.setter {
            return set(loader, Path::new(value));
        }
        let Some(text) = value.to_str() else {
            return invalid("the value is not UTF-8");
        };
        match self.setter {
            Flag(set) => Ok(set(loader, parse_flag(text)?)),
            List(set) => set(loader, &text.lines().collect::<Vec<_>>()),
            Text(set) | Add(set) => set(loader, text),
            OnePath(_) => Ok(loader),
        }
    }
}

impl Loader {
    /// Returns all options that [`set`](Self::set) knows.
    pub fn options() -> &'static [LoaderOption] {
        OPTIONS
    }

    /// Sets the option called `name`, which is one of [`options`](Self::options), from text. A
    /// list, such as `tensors`, has one item on each line and replaces the list that was set
    /// before; `header` takes one header and adds it.
    ///
    /// ```
    /// # fn main() -> ringload::Result<()> {
    /// let loader = ringload::Loader::new().set("memory_limit", "256MiB")?.set("verify", "true")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name or a value that cannot
    /// be used. The message does not contain the value where it may be secret.
    pub fn set(self, name: &str, value: impl AsRef<OsStr>) -> Result<Self> {
        option_named(name)?.set_one(self, value.as_ref())
    }

    /// Sets the option called `name` from any number of values: those of a list, or the headers to
    /// add. The last value of any other option counts.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_all(self, name: &str, values: &[impl AsRef<OsStr>]) -> Result<Self> {
        let option = option_named(name)?;
        let List(set) = option.setter else {
            return values
                .iter()
                .try_fold(self, |loader, value| option.set_one(loader, value.as_ref()));
        };
        match values.iter().map(|value| value.as_ref().to_str()).collect::<Option<Vec<_>>>() {
            Some(texts) => set(self, &texts),
            None => invalid("a value is not UTF-8"),
        }
    }

    fn s3_key(self, change: impl FnOnce(&mut PartialS3Keys)) -> Result<Self> {
        Ok(self.remote(|options| {
            change(&mut options.partial_s3_keys);
            if let Some(credentials) = options.partial_s3_keys.credentials() {
                options.s3_credentials = Some(credentials);
            }
        }))
    }
}

fn option_named(name: &str) -> Result<&'static LoaderOption> {
    match OPTIONS.iter().find(|option| option.name == name) {
        Some(option) => Ok(option),
        None => invalid(format!("no option of a loader is called {name:?}")),
    }
}

fn set_s3_access_key_id(loader: Loader, text: &str) -> Result<Loader> {
    loader.s3_key(|keys| keys.access_key_id = Some(text.into()))
}

fn set_s3_secret_access_key(loader: Loader, text: &str) -> Result<Loader> {
    loader.s3_key(|keys| keys.secret_access_key = Some(text.into()))
}

fn set_s3_session_token(loader: Loader, text: &str) -> Result<Loader> {
    loader.s3_key(|keys| keys.session_token = Some(text.into()))
}

fn set_device(mut loader: Loader, text: &str) -> Result<Loader> {
    loader.options.devices.set_rest(text.parse::<Device>()?);
    Ok(loader)
}

fn set_device_map(mut loader: Loader, rules: &[&str]) -> Result<Loader> {
    loader.options.devices.set_rules(rules)?;
    Ok(loader)
}

fn set_engines(loader: Loader, text: &str) -> Result<Loader> {
    Ok(loader.engines(count_of(text, ENGINES_MAX, "engines")?))
}

fn set_connections(loader: Loader, text: &str) -> Result<Loader> {
    Ok(loader.connections(count_of(text, CONNECTIONS_MAX_SET, "connections")?))
}

fn set_slices(loader: Loader, rules: &[&str]) -> Result<Loader> {
    let slices = rules.iter().try_fold(Slices::default(), |slices, rule| slices.with_text(rule))?;
    Ok(loader.slices(slices))
}

/// Checks the patterns, which are otherwise compiled when a load starts.
fn set_tensors(loader: Loader, globs: &[&str]) -> Result<Loader> {
    globs.iter().try_for_each(|glob| Glob::new(glob).map(drop))?;
    Ok(loader.tensors(globs.iter().copied()))
}

fn set_read_size(loader: Loader, text: &str) -> Result<Loader> {
    let refuse = || format!("{text:?} is not a size; use bytes such as 8MiB");
    Ok(loader.read_bytes(parse_bytes(text, refuse)?))
}

fn set_hold_timeout(loader: Loader, text: &str) -> Result<Loader> {
    const WHAT: &str = "a number of seconds";
    match Duration::try_from_secs_f64(parse_number(text, WHAT)?) {
        Ok(timeout) => Ok(loader.hold_timeout(timeout)),
        Err(_) => invalid(format!("{text:?} is not {WHAT}")),
    }
}

/// An empty path turns the cache off, even if the environment configures one.
fn set_cache_dir(loader: Loader, path: &Path) -> Result<Loader> {
    Ok(if path.as_os_str().is_empty() { loader.no_cache() } else { loader.cache_dir(path) })
}

fn set_manifest(loader: Loader, path: &Path) -> Result<Loader> {
    Ok(loader.manifest(Manifest::read(path)?))
}

#[cfg(test)]
#[path = "option_table_tests.rs"]
mod tests;
