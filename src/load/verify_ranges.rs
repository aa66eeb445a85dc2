//! Verification of `read_into`: the ranges that are requested have to be whole headers and tensors of
//! the manifest.

use super::loader::Loader;
use super::verify::corrupt;
use crate::checks::{LoadChecks, Part, PartChecks, PartSink};
use crate::error::{Error, Result, option};
use crate::location::Location;
use crate::manifest::{Manifest, PartSum};
use crate::source::Source;
use std::ops::Range;
use std::sync::Arc;

/// The requested ranges, each with the index of its source.
pub(super) struct RequestedRanges {
    /// Each has a list of parts of its own.
    pub host: Vec<(usize, Range<u64>)>,
    /// Those of one source share a list.
    pub gpus: Vec<(usize, Range<u64>)>,
}

impl Loader {
    /// The checks of a `read_into` of `ranges` of `sources`: a list of parts for each range for host
    /// memory, then one for each source.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a range that cannot be verified.
    pub(super) fn checks_of_ranges(
        &self,
        sources: &[Arc<dyn Source>],
        ranges: &RequestedRanges,
    ) -> Result<LoadChecks> {
        let Some(manifest) = &self.options.manifest else { return Ok(LoadChecks::default()) };
        let mut lists = RangeSums::new(manifest);
        for (source, range) in &ranges.host {
            let list = lists.add_list(sources[*source].location());
            lists.add_range(manifest, sources, (*source, range), list)?;
        }
        let first = lists.parts.len();
        for source in sources {
            lists.add_list(source.location());
        }
        let mut gpus: Vec<_> = ranges.gpus.iter().collect();
        gpus.sort_by_key(|(source, range)| (*source, range.start));
        let overlap =
            |two: &&[&(usize, Range<u64>)]| two[0].0 == two[1].0 && two[0].1.end > two[1].1.start;
        if let Some(two) = gpus.windows(2).find(overlap) {
            let location = sources[two[0].0].location();
            return Err(Error::invalid_input(format!(
                "two of the ranges of {location} that are requested into GPU memory overlap, and \
                 overlapping ranges cannot be verified; request them one after the other"
            )));
        }
        for (source, range) in gpus {
            lists.add_range(manifest, sources, (*source, range), first + source)?;
        }
        let parts = std::mem::take(&mut lists.parts);
        let parts = Some(PartChecks::new(parts, Box::new(lists)));
        Ok(LoadChecks { parts, ..LoadChecks::default() })
    }
}

/// The expected checksums of a list of parts.
struct RangeList {
    location: Location,
    /// The name of the tensor, which a header does not have, and the CRC.
    expected: Vec<(Option<Box<str>>, u64)>,
}

/// Compares the parts of ranges with their checksums.
struct RangeSums {
    parts: Vec<Vec<Part>>,
    /// By list and index, as the parts.
    sums: Vec<RangeList>,
    origin: String,
}

impl RangeSums {
    fn new(manifest: &Manifest) -> Self {
        Self { parts: Vec::new(), sums: Vec::new(), origin: manifest.origin().to_owned() }
    }

    /// Adds an empty list. Returns its index.
    fn add_list(&mut self, location: &Location) -> usize {
        self.parts.push(Vec::new());
        self.sums.push(RangeList { location: location.clone(), expected: Vec::new() });
        self.parts.len() - 1
    }

    /// Adds the parts in a range of a source to a list.
    fn add_range(
        &mut self,
        manifest: &Manifest,
        sources: &[Arc<dyn Source>],
        (source, range): (usize, &Range<u64>),
        list: usize,
    ) -> Result<()> {
        let source = &sources[source];
        let file = manifest.file_of(source.location(), source.len_bytes(), sources.len() == 1)?;
        let mut end = range.start;
        for part in file.parts_in(range.clone()) {
            if part.offset != end || part.offset + part.bytes > range.end {
                break;
            }
            end = part.offset + part.bytes;
            let PartSum { tensor, offset, bytes, crc } = part;
            self.parts[list].push(Part { offset, bytes });
            self.sums[list].expected.push((tensor.map(Into::into), crc));
        }
        if end == range.end {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "bytes {} to {} of {} were requested, and {} has checksums of whole tensors and headers \
             alone; request whole tensors, or read without {}",
            range.start,
            range.end,
            source.location(),
            self.origin,
            option("manifest")
        )))
    }
}

impl PartSink for RangeSums {
    fn take(&self, list: usize, index: usize, crc: u64) -> Result<()> {
        let RangeList { location, expected } = &self.sums[list];
        let (tensor, expected) = &expected[index];
        if crc == *expected {
            return Ok(());
        }
        let what = match tensor {
            Some(name) => format!("tensor {name:?} of {location}"),
            None => format!("the header of {location}"),
        };
        Err(corrupt(what, crc, *expected, &self.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc64_nvme;
    use crate::error::ErrorKind;
    use crate::manifest::{FileSums, TensorSum};
    use crate::source::memory::MemorySource;

    /// Ranges for GPU memory pass through slots, which do not tell one request from another: those of
    /// one source share a list, so bytes that two requests ask for would be counted once.
    #[test]
    fn ranges_for_gpus_that_overlap_are_refused() {
        let bytes: Vec<u8> = (0..100).collect();
        let tensor = |name: &str, offset: u64| TensorSum {
            name: name.into(),
            offset,
            bytes: 40,
            crc: crc64_nvme(&bytes[offset as usize..offset as usize + 40]),
        };
        let file = FileSums {
            name: "m".to_owned(),
            bytes: 100,
            sha256: None,
            header_bytes: 20,
            header_crc: crc64_nvme(&bytes[..20]),
            tensors: vec![tensor("a", 20), tensor("b", 60)],
            crc: crc64_nvme(&bytes),
        };
        let loader = Loader::new().manifest(Manifest::new(vec![file]));
        let sources: [Arc<dyn Source>; 1] = [Arc::new(MemorySource::new("m", bytes.clone()))];
        let checks = |host: &[Range<u64>], gpus: &[Range<u64>]| {
            let of =
                |ranges: &[Range<u64>]| ranges.iter().map(|range| (0, range.clone())).collect();
            loader.checks_of_ranges(&sources, &RequestedRanges { host: of(host), gpus: of(gpus) })
        };
        for overlapping in [[20..60, 20..60], [20..100, 60..100], [60..100, 0..100]] {
            let refused = checks(&[], &overlapping).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains("overlap"), "{refused}");
        }
        // List 0 is that of the range for the host, list 1 that of the source.
        let (host, gpus) = (std::slice::from_ref(&(20..60)), [60..100, 20..60, 0..20]);
        let parts = checks(host, &gpus).unwrap().parts.unwrap();
        parts.add(0, 20, &bytes[20..60]).unwrap();
        parts.add(1, 0, &bytes[..70]).unwrap();
        assert!(parts.result().is_err(), "b is missing");
        parts.add(1, 70, &bytes[70..]).unwrap();
        parts.result().unwrap();
        let wrong = checks(host, &gpus).unwrap().parts.unwrap().add(1, 20, &[7; 40]).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Corrupt);
        assert!(wrong.to_string().starts_with("tensor \"a\" of m is corrupt"), "{wrong}");
    }
}
