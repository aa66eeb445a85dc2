//! Loads that compute a SHA-256, for which reads wait until the bytes before theirs were hashed.

use super::{Rig, capped, loader, without_hanging};
use crate::checkpoint::TensorInfo;
use crate::checksum::crc64_nvme;
use crate::load::Loader;
use crate::manifest::{FileSums, Manifest, TensorSum};
use crate::source::memory::Fault;
use aws_lc_rs::digest::{SHA256, digest};
use std::sync::Arc;

impl Rig {
    /// A loader as `loader` that compares the SHA-256 of the file, for which reads wait for their turn.
    fn in_order(&self, loader: &Loader) -> Loader {
        let shard = &self.checkpoint.shards()[0];
        let sum = |tensor: &TensorInfo| {
            let start = tensor.offset_bytes() as usize;
            let bytes = &self.file[start..start + tensor.len_bytes() as usize];
            let (offset, bytes, crc) = (start as u64, bytes.len() as u64, crc64_nvme(bytes));
            TensorSum { name: tensor.name().into(), offset, bytes, crc }
        };
        let sums = FileSums {
            name: "rig.safetensors".to_owned(),
            bytes: self.file.len() as u64,
            sha256: digest(&SHA256, &self.file).as_ref().try_into().ok(),
            header_bytes: shard.data_offset_bytes(),
            header_crc: shard.header_crc(),
            tensors: self.checkpoint.tensors().iter().map(sum).collect(),
            crc: crc64_nvme(&self.file),
        };
        loader.clone().manifest(Manifest::new(vec![sums]))
    }
}

/// The bytes of all later reads wait until those of the lost one were hashed. Fails when a read waits
/// for its turn without an eye on the load's end.
#[test]
fn reads_that_wait_for_the_bytes_of_a_lost_one_do_not_hang() {
    for loader in [loader(), capped(), capped().engines(2)] {
        let rig = Arc::new(Rig::mixed(4096));
        let loader = rig.in_order(&loader);
        let summary = rig.load_well(&loader);
        assert_eq!(summary.verified_against.len(), 1, "{summary:?}");
        for n in 0..6 {
            for panics in [false, true] {
                rig.script(move |number, _, _| {
                    assert!(number != n || !panics, "planted");
                    if number == n { Fault::Errno(libc::EIO) } else { Fault::None }
                });
                let (of_load, loader) = (Arc::clone(&rig), loader.clone());
                let outcome = without_hanging(move || of_load.load(&loader));
                // Without a limit there may be fewer reads than that.
                assert!(outcome.error.is_some() || rig.seen().len() <= n, "read {n} was lost");
            }
        }
    }
}
