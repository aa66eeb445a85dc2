//! Computes the manifest of a checkpoint.
//!
//! The files are loaded as pieces of at most a few MiB, whatever tensors they hold, into the same memory
//! again and again: [`MEMORY_BYTES`], half of what a container leaves, or the memory limit. The engines compute the checksums as they verify those of
//! other loads, and the pieces are dropped.
//!
//! ```text
//! parts of a file:  | header |  a  |  b  |  (bytes of no tensor)  |  c  |
//! manifest:         a checksum of the header and of each tensor, and one of the file: that of all parts
//! ```

use super::loader::Loader;
use super::memory_check;
use super::report::LoadReport;
use crate::checkpoint::{Checkpoint, Shard, TensorInfo};
use crate::checks::{LoadChecks, Part, PartChecks, PartSink};
use crate::checksum::crc64_nvme_of_parts;
use crate::error::{Error, ErrorKind, Result, Size};
use crate::location::IntoLocations;
use crate::manifest::{FileSums, Manifest, TensorSum, common_names};
use crate::options::{MemoryLimit, ReadPath, cores};
use crate::source::OrderedSha256;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory of a sum without a limit: as many bytes as a load keeps in flight.
const MEMORY_BYTES: u64 = 256 << 20;
/// The memory of a sum with the limit `min`, and the least without a limit.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// The bounds of the length of a piece.
const PIECE_BYTES_MIN: u64 = 64 << 10;
const PIECE_BYTES_MAX: u64 = 8 << 20;

impl Loader {
    /// Reads all bytes of the checkpoint at `locations` and returns their checksums: a CRC-64/NVME of
    /// each file and of each tensor and, with `sha256`, the SHA-256 of each file. The memory limit, the
    /// number of engines and the options of reads apply; options of tensors and devices do not.
    ///
    /// The files are read through at most 256 MiB of memory, or as much as the memory limit says, which
    /// may be smaller than the tensors: 64 KiB at least.
    ///
    /// A SHA-256 can only be computed from front to back, by one core, so it takes longer.
    ///
    /// # Errors
    /// Those of opening and reading the checkpoint. [`MemoryLimit`](ErrorKind::MemoryLimit) for a limit
    /// below 64 KiB. [`InvalidInput`](ErrorKind::InvalidInput) for two
    /// files that would have the same name in the manifest, in which names have no host and no query.
    pub fn sum(&self, locations: impl IntoLocations, sha256: bool) -> Result<Manifest> {
        let report = LoadReport::begin(self, tracing::info_span!("sum"));
        let (limit, piece_bytes) = self.memory_of_sum()?;
        let checkpoint = self.open(locations)?;
        let shards = checkpoint.shards();
        let names = common_names(&shards.iter().map(Shard::location).collect::<Vec<_>>())?;
        let layouts: Vec<_> = shards.iter().map(|shard| Layout::of(&checkpoint, shard)).collect();
        let sources = shards.iter().map(|shard| (Arc::clone(shard.source()), 0)).collect();
        let pieces = Arc::new(Checkpoint::of_pieces(sources, piece_bytes)?);
        let crcs = Crcs::of(&layouts);
        let lists = layouts.iter().map(|layout| layout.parts.clone()).collect();
        let digest = |_| OrderedSha256::new().map(Arc::new);
        let digests: Vec<_> =
            shards.iter().filter(|_| sha256).map(digest).collect::<Result<_>>()?;
        let checks = LoadChecks {
            parts: Some(PartChecks::new(lists, Box::new(crcs.clone()))),
            digests: digests.clone(),
            ..LoadChecks::default()
        };
        let mut loader = self.clone();
        if loader.options.read_path == ReadPath::Mapped {
            loader.options.read_path = ReadPath::Buffered; // pages could change after they were read
        }
        for piece in loader.stream_checked(pieces, limit, checks, report)? {
            drop(piece?);
        }
        let files = shards.iter().zip(layouts).zip(names).enumerate();
        let files = files.map(|(number, ((shard, layout), name))| {
            let digest = digests.get(number).map(|digest| digest_of(digest, shard)).transpose()?;
            layout.sums(&checkpoint, shard, name, &crcs.0[number], digest)
        });
        Ok(Manifest::new(files.collect::<Result<_>>()?))
    }

    /// The memory limit of a sum, and the length of the pieces: a quarter of it, within bounds.
    fn memory_of_sum(&self) -> Result<(MemoryLimit, u64)> {
        let engines = self.read_options()?.engines.unwrap_or_else(cores);
        let left_bytes = memory_check::left_bytes(engines, &self.options.system_root);
        let left_bytes = left_bytes.unwrap_or(u64::MAX);
        let limit_bytes = match self.resolved_memory_limit()? {
            MemoryLimit::Unlimited => (left_bytes / 2).clamp(MEMORY_BYTES_MIN, MEMORY_BYTES),
            MemoryLimit::Min | MemoryLimit::MinHoldingOne => MEMORY_BYTES_MIN,
            MemoryLimit::Bytes(bytes) if bytes < PIECE_BYTES_MIN => {
                let sentence = format!(
                    "the memory limit of {} is smaller than the {least} that a sum reads at least \
                     at once; set the limit to at least {least}, or to \"min\"",
                    Size(bytes),
                    least = Size(PIECE_BYTES_MIN)
                );
                return Err(Error::new(ErrorKind::MemoryLimit, sentence));
            }
            MemoryLimit::Bytes(bytes) => bytes,
        };
        // Smaller pieces where the limit does not fit, so that the error can name one that does.
        let piece_bytes = limit_bytes.min(left_bytes) / 4 / PIECE_BYTES_MIN * PIECE_BYTES_MIN;
        let piece_bytes = piece_bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        Ok((MemoryLimit::Bytes(limit_bytes), piece_bytes))
    }
}

fn digest_of(digest: &OrderedSha256, shard: &Shard) -> Result<[u8; 32]> {
    digest.complete(shard.len_bytes()).ok_or_else(|| {
        let sentence = format!("not all bytes of {} were read; this is a bug", shard.location());
        Error::new(ErrorKind::Io, sentence)
    })
}

/// The parts of a file, which together are all of it.
struct Layout {
    parts: Vec<Part>,
    /// The part of each tensor of the shard.
    of_tensors: Vec<usize>,
}

impl Layout {
    fn of(checkpoint: &Checkpoint, shard: &Shard) -> Self {
        let mut parts = vec![Part { offset: 0, bytes: shard.data_offset_bytes() }];
        let mut end = shard.data_offset_bytes();
        let mut of_tensors = Vec::new();
        for tensor in &checkpoint.tensors()[shard.tensors()] {
            let (offset, bytes) = (tensor.offset_bytes(), tensor.len_bytes());
            if offset > end {
                parts.push(Part { offset: end, bytes: offset - end });
            }
            of_tensors.push(parts.len());
            parts.push(Part { offset, bytes });
            end = offset + bytes;
        }
        if shard.len_bytes() > end {
            parts.push(Part { offset: end, bytes: shard.len_bytes() - end });
        }
        Self { parts, of_tensors }
    }

    /// The checksums of the file, of whose parts `crcs` are the CRCs.
    fn sums(
        self,
        checkpoint: &Checkpoint,
        shard: &Shard,
        name: String,
        crcs: &[AtomicU64],
        sha256: Option<[u8; 32]>,
    ) -> Result<FileSums> {
        let crc = |part: usize| crcs[part].load(Ordering::Acquire);
        let header_crc = crc(0);
        if header_crc != shard.header_crc() {
            let location = shard.location();
            let sentence =
                format!("the header of {location} changed since it was read; sum it again");
            return Err(Error::new(ErrorKind::Changed, sentence));
        }
        let sum = |(tensor, &part): (&TensorInfo, &usize)| TensorSum {
            name: tensor.name().into(),
            offset: tensor.offset_bytes(),
            bytes: tensor.len_bytes(),
            crc: crc(part),
        };
        let tensors = checkpoint.tensors()[shard.tensors()].iter().zip(&self.of_tensors).map(sum);
        let parts = self.parts.iter().enumerate().map(|(index, part)| (crc(index), part.bytes));
        Ok(FileSums {
            name,
            bytes: shard.len_bytes(),
            sha256,
            header_bytes: shard.data_offset_bytes(),
            header_crc,
            tensors: tensors.collect(),
            crc: crc64_nvme_of_parts(parts),
        })
    }
}

/// The CRCs of all parts, by list and index. Those of empty parts are 0, as the CRC of no bytes is.
#[derive(Clone)]
struct Crcs(Arc<[Vec<AtomicU64>]>);

impl Crcs {
    fn of(layouts: &[Layout]) -> Self {
        let crcs = |layout: &Layout| layout.parts.iter().map(|_| AtomicU64::new(0)).collect();
        Self(layouts.iter().map(crcs).collect())
    }
}

impl PartSink for Crcs {
    fn take(&self, list: usize, index: usize, crc: u64) -> Result<()> {
        self.0[list][index].store(crc, Ordering::Release);
        Ok(())
    }
}
