//! Extents for GPUs: every byte of every tensor exactly once, in pieces that suit the reads.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::error::ErrorKind;
use crate::options::{Device, DeviceMap, MemoryLimit};
use crate::plan::tensor_sizes::FILE_PIECE_BYTES;
use crate::source::memory::{Fault, MemorySource};
use crate::test_files::{checkpoint_of, file_at};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn shards(sizes: &[Vec<usize>], data_offset: usize, block_bytes: usize) -> Arc<Checkpoint> {
    let shard = |(number, sizes): (usize, &Vec<usize>)| {
        let bytes = file_at(&format!("s{number}.t"), sizes, data_offset);
        let name = format!("{number}.safetensors");
        MemorySource::faulty(&name, bytes, block_bytes, |_, _, _| Fault::None)
    };
    checkpoint_of(sizes.iter().enumerate().map(shard).collect())
}

/// What has to hold for any plan.
fn check(plan: &Plan) {
    let tensors = plan.checkpoint().tensors();
    let mut seen: BTreeMap<usize, u64> = BTreeMap::new();
    let mut listed: BTreeMap<usize, usize> = BTreeMap::new();
    for extent in plan.extents().iter() {
        let device = plan.devices()[extent.destination()];
        let mut at = extent.offset_bytes();
        for position in extent.positions() {
            let tensor = &tensors[plan.tensors()[position] as usize];
            let end = tensor.offset_bytes() + tensor.len_bytes();
            assert_eq!(tensor.shard(), extent.shard());
            let so_far = seen.entry(position).or_default();
            assert_eq!(tensor.offset_bytes() + *so_far, at, "a gap in tensor {position}");
            let to = end.min(extent.end_bytes());
            assert!(to > at || tensor.len_bytes() == 0, "listed without a byte of it");
            *so_far += to - at;
            *listed.entry(position).or_default() += 1;
            at = to;
        }
        assert_eq!(at, extent.end_bytes(), "bytes of no tensor");
        if !device.is_host() {
            let slot = extent.slot_bytes(plan.checkpoint(), plan.sizes.block_bytes as usize);
            let most = plan.sizes.piece_bytes + 2 * plan.sizes.block_bytes;
            assert!(slot <= most, "a slot of {slot} bytes");
            assert!(2 * slot <= plan.sizes.gpu_ring_bytes_max, "two slots do not fit");
        }
    }
    for (position, &index) in plan.tensors().iter().enumerate() {
        let tensor = &tensors[index as usize];
        assert_eq!(seen.get(&position), Some(&tensor.len_bytes()), "tensor {position}");
        if tensor.len_bytes() == 0 {
            assert_eq!(listed[&position], 1, "an empty tensor comes twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_plan_for_gpus_covers_every_byte_once(
        sizes in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof![Just(0), 1_usize..5000, Just(64 << 10), 60_000_usize..400_000],
                0..20,
            ),
            1..4,
        ),
        data_offset in 0_usize..300,
        block_log in 0_u32..14,
        limit in prop_oneof![
            Just(MemoryLimit::Unlimited),
            Just(MemoryLimit::Min),
            (600_000_u64..4_000_000).prop_map(MemoryLimit::Bytes),
        ],
        spread in any::<bool>(),
    ) {
        let checkpoint = shards(&sizes, data_offset, 1 << block_log);
        let mut map = DeviceMap::from(Device::cuda(0));
        if spread {
            map = map.with("*[13]", Device::cuda(1)).unwrap().with("*[57]", Device::Host).unwrap();
        }
        check(&Plan::new(checkpoint, limit, &Selection::default(), &map, None).unwrap());
    }

    #[test]
    fn no_element_is_cut(
        spans in proptest::collection::vec((0_u64..5, 1_u64..40_000), 1..12),
        start in 0_u64..100,
    ) {
        let mut offset_bytes = start;
        let spans: Vec<Span> = spans
            .into_iter()
            .map(|(log, count)| {
                let span = Span {
                    shard: 0,
                    offset_bytes,
                    len_bytes: count << log,
                    element_bytes: 1 << log,
                };
                offset_bytes += span.len_bytes;
                span
            })
            .collect();
        for extent in pieces_of(spans.iter().map(|&span| (span, 0)), 64 << 10) {
            for position in extent.positions() {
                let span = spans[position];
                for cut in [extent.offset_bytes(), extent.end_bytes()] {
                    if (span.offset_bytes..span.offset_bytes + span.len_bytes).contains(&cut) {
                        let into = cut - span.offset_bytes;
                        prop_assert_eq!(into % span.element_bytes, 0, "{:?} in {:?}", extent, span);
                    }
                }
            }
        }
    }
}

#[test]
fn aligned_files_are_cut_at_multiples_of_the_piece() {
    let checkpoint = shards(&[vec![20 << 20, 100, 9 << 20]], 4096, 4096);
    let map = DeviceMap::from(Device::cuda(0));
    let plan =
        Plan::new(checkpoint, MemoryLimit::Unlimited, &Selection::default(), &map, None).unwrap();
    check(&plan);
    let cuts: Vec<u64> = plan.extents().iter().map(Extent::offset_bytes).collect();
    assert!(cuts[1..].iter().all(|cut| cut % FILE_PIECE_BYTES == 0), "{cuts:?}");
    assert_eq!(plan.extents().len(), 8);
}

#[test]
fn no_load_has_more_devices_than_a_byte_can_count() {
    let mut devices = Vec::new();
    for ordinal in 0..256 {
        assert_eq!(
            usize::from(destination_among(&mut devices, Device::cuda(ordinal)).unwrap()),
            ordinal as usize
        );
    }
    assert_eq!(destination_among(&mut devices, Device::cuda(7)).unwrap(), 7);
    let error = destination_among(&mut devices, Device::cuda(256)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
