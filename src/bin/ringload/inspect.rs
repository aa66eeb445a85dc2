//! `ringload inspect`: lists the tensors of a checkpoint, reading only its headers.

use crate::failure::Outcome;
use crate::format::{self, Align};
use crate::locations::CheckpointArgs;
use crate::options::{ListingOptions, flush};
use crate::output;
use ringload::internals::Escaped;
use ringload::{Checkpoint, Dtype, LocationText, PlannedTensor, Shard, TensorInfo};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

/// The values of metadata are listed up to this length: some hold whole configurations.
const METADATA_CHARACTERS_MAX: usize = 500;

/// List the tensors of a checkpoint without reading them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    checkpoint: CheckpointArgs<ListingOptions>,
}

/// Runs the subcommand.
///
/// # Errors
/// When the checkpoint cannot be opened or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let Args { checkpoint: CheckpointArgs { locations, options, json } } = args;
    let loader = options.loader()?;
    let checkpoint = Arc::new(loader.open(locations.parse()?)?);
    let planned = options.has("slice").then(|| loader.planned(&checkpoint)).transpose()?;
    let planned = planned.unwrap_or_default();
    flush(&loader);
    if json {
        output::print_json(&Listing::of(&checkpoint, &planned))
    } else {
        output::print(|out| print_listing(out, &checkpoint, &planned))
    }
}

fn print_listing(
    out: &mut dyn Write,
    checkpoint: &Checkpoint,
    planned: &[PlannedTensor],
) -> io::Result<()> {
    use Align::{Left, Right};
    let header = ["NAME", "DTYPE", "SHAPE", "SIZE", "SHARD"].map(String::from);
    let tensors = checkpoint.tensors().iter().enumerate();
    let tensors = tensors.map(|(number, tensor)| tensor_row(tensor, planned.get(number)));
    let rows: Vec<_> = std::iter::once(header).chain(tensors).collect();
    format::table(out, [Left, Left, Left, Right, Right], &rows)?;

    writeln!(out)?;
    let shards = checkpoint.shards().iter().enumerate().map(shard_row);
    format::table(out, [Left, Right, Left, Right], &shards.collect::<Vec<_>>())?;

    writeln!(out, "\n{}", totals(checkpoint))?;
    if !planned.is_empty() {
        let bytes = planned.iter().map(|part| part.bytes).sum();
        let read_bytes = planned.iter().map(|part| part.read_bytes).sum();
        let (loaded, read) = (format::size(bytes), format::size(read_bytes));
        writeln!(out, "slices    {loaded} loaded, {read} read")?;
    }
    for name in checkpoint.missing() {
        writeln!(out, "missing   {}", name.escape_debug())?;
    }
    for location in checkpoint.left_out() {
        writeln!(out, "left out  {location}")?;
    }
    for (key, value) in checkpoint.metadata() {
        writeln!(out, "metadata  {} = {}", format::name(key), shortened(value))?;
    }
    Ok(())
}

/// A value of the metadata, of which the answer of `--json` has all.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(METADATA_CHARACTERS_MAX) {
        None => Escaped(value).to_string(),
        Some((end, _)) => {
            let size = format::size(value.len() as u64);
            format!("{}... ({size}; --json has all of it)", Escaped(&value[..end]))
        }
    }
}

/// The row of a tensor, with the part that a load would read.
fn tensor_row(tensor: &TensorInfo, planned: Option<&PlannedTensor>) -> [String; 5] {
    let (full, bytes) = (format::shape(tensor.shape()), tensor.len_bytes());
    let (shape, bytes) = match planned {
        Some(part) if part.shape != tensor.shape() => {
            (format!("{} of {full}", format::shape(&part.shape)), part.bytes)
        }
        _ => (full, bytes),
    };
    [
        format::name(tensor.name()),
        tensor.dtype().to_string(),
        shape,
        format::size(bytes),
        tensor.shard().to_string(),
    ]
}

fn shard_row((number, shard): (usize, &Shard)) -> [String; 4] {
    [
        "shard".into(),
        number.to_string(),
        shard.location().to_string(),
        format::size(shard.len_bytes()),
    ]
}

fn totals(checkpoint: &Checkpoint) -> String {
    format!(
        "{}, {} in {}",
        format::count(checkpoint.tensors().len(), "tensor"),
        format::size(checkpoint.data_bytes()),
        format::count(checkpoint.shards().len(), "shard"),
    )
}

/// The answer of `--json`.
#[derive(Serialize)]
struct Listing<'a> {
    bytes: u64,
    shards: Vec<ShardEntry<'a>>,
    metadata: &'a BTreeMap<String, String>,
    tensors: Vec<TensorEntry<'a>>,
    /// The tensors that an index names and no shard contains.
    missing: &'a [String],
    /// The safetensors files of directories that do not belong to the checkpoint.
    left_out: Vec<LocationText>,
}

#[derive(Serialize)]
struct ShardEntry<'a> {
    location: LocationText,
    /// The length of the whole file.
    bytes: u64,
    /// The offset of the first tensor, after the header.
    data_offset: u64,
    tensors: usize,
    metadata: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct TensorEntry<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
    bytes: u64,
    /// The index of the tensor's shard in `shards`.
    shard: usize,
    /// The offset of the tensor in the file of its shard, in bytes.
    offset: u64,
    /// What a load with the slices would read of the tensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    slice: Option<SliceEntry<'a>>,
}

#[derive(Serialize)]
struct SliceEntry<'a> {
    shape: &'a [usize],
    bytes: u64,
    /// With the gaps that are read along.
    read_bytes: u64,
}

impl<'a> Listing<'a> {
    fn of(checkpoint: &'a Checkpoint, planned: &'a [PlannedTensor]) -> Self {
        let tensors = checkpoint.tensors().iter().enumerate();
        Listing {
            bytes: checkpoint.data_bytes(),
            shards: checkpoint.shards().iter().map(ShardEntry::of).collect(),
            metadata: checkpoint.metadata(),
            tensors: tensors.map(|(i, tensor)| TensorEntry::of(tensor, planned.get(i))).collect(),
            missing: checkpoint.missing(),
            left_out: checkpoint.left_out().iter().map(LocationText::from).collect(),
        }
    }
}

impl<'a> ShardEntry<'a> {
    fn of(shard: &'a Shard) -> Self {
        ShardEntry {
            location: shard.location().into(),
            bytes: shard.len_bytes(),
            data_offset: shard.data_offset_bytes(),
            tensors: shard.tensors().len(),
            metadata: shard.metadata(),
        }
    }
}

impl<'a> TensorEntry<'a> {
    fn of(tensor: &'a TensorInfo, planned: Option<&'a PlannedTensor>) -> Self {
        let slice = |part: &'a PlannedTensor| SliceEntry {
            shape: &part.shape,
            bytes: part.bytes,
            read_bytes: part.read_bytes,
        };
        TensorEntry {
            slice: planned.map(slice),
            name: tensor.name(),
            dtype: tensor.dtype(),
            shape: tensor.shape(),
            bytes: tensor.len_bytes(),
            shard: tensor.shard(),
            offset: tensor.offset_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration of a megabyte scrolled the list of tensors away.
    #[test]
    fn a_long_value_of_metadata_is_shortened_between_characters() {
        let all = "ä".repeat(METADATA_CHARACTERS_MAX);
        assert_eq!(shortened(&all), all);
        let longer = shortened(&format!("{all}\u{1b}"));
        assert_eq!(longer, format!("{all}... (1001 B; --json has all of it)"));
    }
}
