//! Selects the files to read of a directory, and the errors if there are none.

use super::file_name::{FileKind, FileName, MAIN_STEMS, is_shard};
use crate::checkpoint::text::Quoted;
use crate::error::{Error, ErrorKind, Result, option};
use crate::location::Location;
use crate::options::CheckpointOptions;
use DirectorySelection::{Index, Shards};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

const MAX_VARIANTS_SHOWN: usize = 8;

/// Patterns match as they do in a shell.
pub(super) const PATTERN_OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The usual names of the index and of the only file of `variant`, which are tried where a directory
/// cannot be listed.
pub(super) fn usual_names(variant: Option<&str>) -> [String; 2] {
    match variant {
        None => ["model.safetensors.index.json".into(), "model.safetensors".into()],
        Some(variant) => [
            format!("model.safetensors.index.{variant}.json"),
            format!("model.{variant}.safetensors"),
        ],
    }
}

/// The files to read of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DirectorySelection<'a, N> {
    Index(&'a N),
    Shards(Vec<&'a N>),
}

/// A file of a directory that could be read.
struct Candidate<'a, N> {
    name: &'a N,
    parts: FileName<'a>,
}

/// What a file is for, by the beginning of its name. The first kind that a directory has is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Checkpoint,
    /// The weights of Mistral models in their authors' format, beside those of transformers.
    Consolidated,
    Adapter,
    /// The state of a training, and files that a program has not finished writing.
    Other,
}

const PURPOSES: [Purpose; 4] =
    [Purpose::Checkpoint, Purpose::Consolidated, Purpose::Adapter, Purpose::Other];

const OTHER_PREFIXES: [&str; 6] =
    ["optimizer", "scheduler", "training", "random_states", "rng_state", "tmp_"];

/// Selects the files to read of `directory`, which has files of these sorted `names`.
///
/// With `all_files` these are all safetensors files. Otherwise only the files of the wanted variant
/// count, or those of none; and of these the ones of the first [`Purpose`] that has any. Of those,
/// the first of these is read:
///
/// 1. the index of a [main stem](MAIN_STEMS), else the only index,
/// 2. the file `model.safetensors` or `diffusion_pytorch_model.safetensors`,
/// 3. the numbered shards, those of a main stem if there are any,
/// 4. all files.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if there are no such files, or numbered shards are missing;
/// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) if there are two complete sets of shards.
pub(super) fn select<'a, N: AsRef<OsStr>>(
    directory: &Location,
    names: &'a [N],
    options: &CheckpointOptions,
) -> Result<DirectorySelection<'a, N>> {
    if options.all_files {
        let shards: Vec<_> = names.iter().filter(|name| is_shard(name.as_ref())).collect();
        return if shards.is_empty() { Err(empty(directory)) } else { Ok(Shards(shards)) };
    }
    let variant = options.variant.as_deref().unwrap_or("");
    let (wanted, others): (Vec<_>, Vec<_>) =
        names.iter().filter_map(candidate).partition(|file| file.parts.variant == variant);
    for purpose in PURPOSES {
        let files: Vec<_> = wanted.iter().filter(|file| purpose_of(file) == purpose).collect();
        if let Some(selection) = select_alike(directory, &files)? {
            return Ok(selection);
        }
    }
    let variants: BTreeSet<_> = others.iter().map(|file| file.parts.variant).collect();
    Err(if variants.is_empty() {
        empty(directory)
    } else {
        other_variants(directory, variant, &variants)
    })
}

fn candidate<N: AsRef<OsStr>>(name: &N) -> Option<Candidate<'_, N>> {
    let parts = match name.as_ref().to_str() {
        Some(text) => FileName::parse(text)?,
        None if is_shard(name.as_ref()) => {
            FileName { stem: "", variant: "", kind: FileKind::Single }
        }
        None => return None,
    };
    Some(Candidate { name, parts })
}

fn purpose_of<N>(file: &Candidate<'_, N>) -> Purpose {
    match file.parts.stem {
        stem if stem.starts_with("consolidated") => Purpose::Consolidated,
        stem if stem.starts_with("adapter") => Purpose::Adapter,
        stem if OTHER_PREFIXES.iter().any(|prefix| stem.starts_with(prefix)) => Purpose::Other,
        _ => Purpose::Checkpoint,
    }
}

/// Selects among files of one variant and purpose.
fn select_alike<'a, N>(
    directory: &Location,
    files: &[&Candidate<'a, N>],
) -> Result<Option<DirectorySelection<'a, N>>> {
    let of_main_stem = |kind: FileKind| {
        let named = |stem| {
            files.iter().find(move |file| file.parts.stem == stem && file.parts.kind == kind)
        };
        MAIN_STEMS.into_iter().find_map(named)
    };
    let mut indexes = files.iter().filter(|file| file.parts.kind == FileKind::Index);
    let only_index = indexes.next().filter(|_| indexes.next().is_none());
    if let Some(index) = of_main_stem(FileKind::Index).or(only_index) {
        return Ok(Some(Index(index.name)));
    }
    if let Some(file) = of_main_stem(FileKind::Single) {
        return Ok(Some(Shards(vec![file.name])));
    }
    let mut shards = numbered_shards(directory, files)?;
    if shards.is_empty() {
        let single = files.iter().filter(|file| file.parts.kind == FileKind::Single);
        shards = single.map(|file| file.name).collect();
    }
    Ok((!shards.is_empty()).then_some(Shards(shards)))
}

/// By the number of shards that a name tells, the shards with that number.
type ShardSets<'a, N> = BTreeMap<u64, Vec<(u64, &'a N)>>;

/// Returns the numbered shards among `files`, those of a main stem if there are any.
fn numbered_shards<'a, N>(directory: &Location, files: &[&Candidate<'a, N>]) -> Result<Vec<&'a N>> {
    // By stem and by count, so that the leftovers of another sharding are a set of their own.
    let mut stems: BTreeMap<&str, ShardSets<'_, N>> = BTreeMap::new();
    for file in files {
        if let FileKind::Numbered { number, count } = file.parts.kind {
            let sets = stems.entry(file.parts.stem).or_default();
            sets.entry(count).or_default().push((number, file.name));
        }
    }
    if let Some(main) = MAIN_STEMS.into_iter().find(|stem| stems.contains_key(stem)) {
        stems.retain(|stem, _| *stem == main);
    }
    let mut shards = Vec::new();
    for (stem, sets) in &stems {
        let is_complete = |(count, set): &(&u64, &Vec<_>)| {
            let numbers: BTreeSet<_> = set.iter().map(|(number, _)| number).collect();
            numbers.len() as u64 == **count
        };
        let mut complete = sets.iter().filter(is_complete);
        match (complete.next(), complete.next()) {
            (Some((_, set)), None) => shards.extend(set.iter().map(|(_, name)| *name)),
            (Some(_), Some(_)) => return Err(two_sets(directory, stem)),
            (None, _) => return Err(incomplete(directory, stem, sets)),
        }
    }
    Ok(shards)
}

fn two_sets(directory: &Location, stem: &str) -> Error {
    let sentence = format!(
        "the directory {directory} has two complete sets of shards of {}; remove one, or name the \
         files to load",
        Quoted(stem)
    );
    Error::new(ErrorKind::InvalidCheckpoint, sentence)
}

/// The error for the shards of `stem`, none of whose `sets` is complete.
fn incomplete<N>(directory: &Location, stem: &str, sets: &ShardSets<'_, N>) -> Error {
    let most = sets.iter().max_by_key(|(_, set)| set.len());
    let (count, present) = most.map_or((0, 0), |(count, set)| (*count, set.len()));
    let numbers: BTreeSet<_> = most.into_iter().flat_map(|(_, set)| set).map(|(n, _)| *n).collect();
    let missing = (1..=count).find(|number| !numbers.contains(number)).unwrap_or(0);
    let sentence = format!(
        "the directory {directory} has {present} of the {count} shards of {}; shard {missing} is \
         missing; finish the download, or load what is there with {}",
        Quoted(stem),
        option("all_files").on()
    );
    Error::new(ErrorKind::NotFound, sentence)
}

/// The error for a directory that has files of other variants only.
fn other_variants(directory: &Location, wanted: &str, variants: &BTreeSet<&str>) -> Error {
    let named = variants.iter().filter(|variant| !variant.is_empty());
    let named: Vec<_> =
        named.take(MAX_VARIANTS_SHOWN).map(|variant| Quoted(variant).to_string()).collect();
    let (named, option) = (named.join(", "), option("variant"));
    let sentence = match (wanted, variants.contains(""), named.as_str()) {
        ("", ..) => format!(
            "all *.safetensors files in the directory {directory} are of a variant ({named}); choose \
             one with {option}"
        ),
        (_, true, "") => format!(
            "the directory {directory} has no *.safetensors file of the variant {}, only files \
             without a variant; leave {option} out",
            Quoted(wanted)
        ),
        (_, true, _) => format!(
            "the directory {directory} has no *.safetensors file of the variant {}; there are files \
             without a variant and files of other variants ({named}); leave {option} out, or name \
             another one",
            Quoted(wanted)
        ),
        (_, false, _) => format!(
            "the directory {directory} has no *.safetensors file of the variant {}, only of other \
             variants ({named}); name one of these with {option}",
            Quoted(wanted)
        ),
    };
    Error::new(ErrorKind::NotFound, sentence)
}

/// Checks that `name`, a file or index that the user named, is of the `variant` that the user wants.
/// `--variant` chooses among the files of a directory.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if it is not.
pub(super) fn check_variant(
    location: &Location,
    name: &OsStr,
    variant: Option<&str>,
) -> Result<()> {
    let Some(wanted) = variant else { return Ok(()) };
    let own = name.to_str().and_then(FileName::parse).map(|name| name.variant);
    if own == Some(wanted) {
        return Ok(());
    }
    let option = option("variant");
    let sentence = format!(
        "{option} chooses among the files of a directory, and {location} is a file that is not of \
         the variant {}; leave {option} out, or name the directory",
        Quoted(wanted)
    );
    Err(Error::invalid_input(sentence))
}

/// Whether `name` is that of an index.
pub(super) fn is_index(name: &OsStr) -> bool {
    let name = name.to_str().and_then(FileName::parse);
    name.is_some_and(|name| name.kind == FileKind::Index)
}

/// The directory in the target of a download that has what has arrived of incomplete files.
pub const UNFINISHED_DOWNLOAD: &str = ".ringload-download";

/// The error of a directory without shards.
pub(super) fn empty(directory: &Location) -> Error {
    if let Location::File(path) = directory
        && path.join(UNFINISHED_DOWNLOAD).is_dir()
    {
        let sentence = format!(
            "no *.safetensors file in the directory {directory}, but the part of an unfinished \
             download in {UNFINISHED_DOWNLOAD}; repeat the download to the directory, which goes on \
             from there"
        );
        return Error::new(ErrorKind::NotFound, sentence);
    }
    let sentence = format!(
        "no *.safetensors file in the directory {directory}; name the directory that holds the \
         checkpoint, or its files"
    );
    Error::new(ErrorKind::NotFound, sentence)
}

pub(super) fn malformed(pattern: &str, cause: glob::PatternError) -> Error {
    let sentence = format!("{pattern:?} does not exist and is not a valid pattern");
    Error::new(ErrorKind::InvalidInput, sentence).with_source(cause)
}

pub(super) fn no_match(pattern: &str) -> Error {
    let sentence = format!("nothing matches the pattern {pattern:?}; check the path");
    Error::new(ErrorKind::NotFound, sentence)
}
