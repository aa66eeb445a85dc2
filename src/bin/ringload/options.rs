//! The flags that set options of a loader, made from the table of [`Loader::options`].

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use ringload::{Loader, LoaderOption, OptionGroup, OptionKind};
use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the command waits at its end until the cache is written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);

/// Options without a flag: options that only a program that receives the tensors needs, and
/// secrets, which a command line would show in the list of processes.
const NOT_FLAGS: [&str; 7] = [
    "allocation",
    "hold_timeout_seconds",
    "names",
    "order",
    "s3_access_key_id",
    "s3_secret_access_key",
    "s3_session_token",
];

/// The option whose values may be secret.
const HEADER: &str = "header";

/// The options of the group of loads that also count where tensors are not kept.
const OF_READS: [&str; 4] = ["memory_limit", "read_path", "read_size", "engines"];

/// The flags of all options of a load.
pub type LoadOptions = LoaderOptions<ForLoads>;
/// The flags of a checkpoint's files, of remote locations and of the local file cache, and of how much
/// memory and how many threads read, for commands that read files and keep no tensors.
pub type ReadOptions = LoaderOptions<ForReads>;
/// The flags of a checkpoint's files, of remote locations and of the local file cache, for commands
/// that load no tensors.
pub type StorageOptions = LoaderOptions<ForStorage>;

/// As [`StorageOptions`], with the flags that say which parts of tensors a load would read.
pub type ListingOptions = LoaderOptions<ForListing>;

/// As [`StorageOptions`], with the flags that say what the bytes of files are compared with.
pub type FetchOptions = LoaderOptions<ForFetches>;

/// The kind of command that flags are for.
pub trait Purpose {
    /// Whether commands of this kind have a flag for an option of the group of loads.
    fn takes(load_option: &LoaderOption) -> bool;
}

/// Commands that load tensors.
#[derive(Debug, Default)]
pub struct ForLoads;
/// Commands that read files and keep no tensors.
#[derive(Debug, Default)]
pub struct ForReads;
/// Commands that load no tensors.
#[derive(Debug, Default)]
pub struct ForStorage;

/// Commands that load no tensors and list what a load would read.
#[derive(Debug, Default)]
pub struct ForListing;

/// Commands that fetch files.
#[derive(Debug, Default)]
pub struct ForFetches;

impl Purpose for ForFetches {
    fn takes(load_option: &LoaderOption) -> bool {
        matches!(load_option.name, "verify" | "manifest")
    }
}

impl Purpose for ForListing {
    fn takes(load_option: &LoaderOption) -> bool {
        load_option.name == "slice"
    }
}

impl Purpose for ForLoads {
    fn takes(_: &LoaderOption) -> bool {
        true
    }
}

impl Purpose for ForReads {
    fn takes(load_option: &LoaderOption) -> bool {
        OF_READS.contains(&load_option.name)
    }
}

impl Purpose for ForStorage {
    fn takes(_: &LoaderOption) -> bool {
        false
    }
}

/// The values of the flags that were given.
#[derive(Debug, Default)]
pub struct LoaderOptions<P> {
    values: Vec<(&'static str, Vec<OsString>)>,
    purpose: PhantomData<P>,
}

impl<P: Purpose> LoaderOptions<P> {
    /// Returns a loader with these options. The library reads the environment for the others.
    ///
    /// # Errors
    /// When a header or a rule of the device map is invalid, or the manifest cannot be used.
    pub fn loader(&self) -> ringload::Result<Loader> {
        let mut values = self.values.iter();
        values.try_fold(Loader::from_env(), |loader, (name, values)| loader.set_all(name, values))
    }

    /// Whether the flag `name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(option, _)| *option == name)
    }

    /// The path that the flag `name` was given.
    pub fn path(&self, name: &str) -> Option<&Path> {
        let (_, values) = self.values.iter().find(|(option, _)| *option == name)?;
        values.last().map(Path::new)
    }

    fn table() -> impl Iterator<Item = &'static LoaderOption> {
        let of_command =
            |option: &&LoaderOption| option.group != OptionGroup::Load || P::takes(option);
        let is_flag = |option: &&LoaderOption| !NOT_FLAGS.contains(&option.name);
        Loader::options().iter().filter(is_flag).filter(of_command)
    }
}

impl<P: Purpose> clap::Args for LoaderOptions<P> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::table().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<P: Purpose> FromArgMatches for LoaderOptions<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |option: &LoaderOption| {
            // A flag that was not given must not hide the option's variable.
            let source = matches.value_source(option.name)?;
            let values = matches.get_raw(option.name)?;
            (source == ValueSource::CommandLine)
                .then(|| (option.name, values.map(ToOwned::to_owned).collect()))
        };
        let values: Vec<(_, Vec<OsString>)> = Self::table().filter_map(given).collect();
        values.iter().try_for_each(|(name, values)| check_secret(name, values))?;
        Ok(Self { values, purpose: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(option: &'static LoaderOption) -> Arg {
    // clap wants names that live as long as the process.
    let flag: &'static str = option.name.replace('_', "-").leak();
    let argument = Arg::new(option.name).long(flag).help(option.help);
    let argument = match option.group {
        OptionGroup::Files => argument.help_heading("Options for the files of a checkpoint"),
        OptionGroup::Remote => argument.help_heading("Options for object stores and web servers"),
        OptionGroup::Cache => argument.help_heading("Options for the local file cache"),
        _ => argument,
    };
    let argument = match option.name {
        "all_files" => argument.conflicts_with("variant"),
        _ => argument,
    };
    match option.kind() {
        OptionKind::Flag => argument.action(ArgAction::SetTrue),
        kind => argument
            .value_name(option.value_name)
            .value_parser(parser(option))
            .allow_hyphen_values(refuses_hyphens(option))
            .action(if kind == OptionKind::Repeated { ArgAction::Append } else { ArgAction::Set }),
    }
}

/// Whether the option refuses a text that begins with a hyphen. Its error then says what it takes; that
/// of clap would be a tip that does not work.
fn refuses_hyphens(option: &LoaderOption) -> bool {
    option.kind() != OptionKind::Path && Loader::new().set_all(option.name, &["-"]).is_err()
}

/// Checks the values of an option whose values may be secret, with a message that does not repeat
/// them, as those of a value parser do.
fn check_secret(name: &str, values: &[OsString]) -> Result<(), clap::Error> {
    if name != HEADER {
        return Ok(());
    }
    match Loader::new().set_all(name, values) {
        Err(error) => {
            let sentence = format!("invalid value for '--{HEADER}': {error}");
            Err(clap::Error::raw(ErrorKind::ValueValidation, sentence))
        }
        Ok(_) => Ok(()),
    }
}

/// Checks a value while arguments are parsed, except that of a header (see [`check_secret`]).
fn parser(option: &'static LoaderOption) -> ValueParser {
    match option.kind() {
        OptionKind::Path => clap::value_parser!(PathBuf),
        _ if option.name == HEADER => clap::value_parser!(String),
        _ => ValueParser::new(|text: &str| {
            Loader::new().set_all(option.name, &[text]).map(|_| text.to_owned())
        }),
    }
}

/// Waits until everything that was loaded is in the cache, and warns if that takes too long.
pub fn flush(loader: &Loader) {
    if !loader.flush(Some(FLUSH_TIMEOUT)) {
        let seconds = FLUSH_TIMEOUT.as_secs();
        tracing::warn!(
            "the cache was not written within {seconds} s; what is missing will be loaded again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<LoadOptions, clap::Error> {
        let command = <LoadOptions as clap::Args>::augment_args(Command::new("load"));
        let matches = command.try_get_matches_from([&["load"], arguments].concat())?;
        LoadOptions::from_arg_matches(&matches)
    }

    #[test]
    fn values_are_checked_while_arguments_are_parsed() {
        let given =
            parse(&["--device-map", "a=cpu", "--device-map", "b=cuda", "--verify"]).unwrap();
        assert_eq!(given.values[0], ("device_map", vec!["a=cpu".into(), "b=cuda".into()]));
        assert_eq!(given.values[1], ("verify", vec!["true".into()]));
        assert_eq!(given.values.len(), 2, "flags that were not given are not set: {given:?}");
        assert!(given.loader().is_ok());
        for wrong in [["--device-map", "a"], ["--engines", "x"], ["--cache-size", "none"]] {
            assert!(parse(&wrong).is_err_and(|error| error.exit_code() == 2), "{wrong:?}");
        }
        let header = parse(&["--header", "s3cret"]).unwrap_err();
        assert!(header.exit_code() == 2 && !header.to_string().contains("s3cret"), "{header}");
        assert!(parse(&["--header", "A: s3cret"]).unwrap().loader().is_ok());
    }
}
