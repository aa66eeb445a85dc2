//! Plans: every selected tensor exactly once, whole, in order, in as little memory as promised.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{DeviceMap, MemoryLimit};
use crate::ring::PAGE_BYTES;
use crate::source::memory::{Fault, MemorySource};
use crate::test_files::{Random, checkpoint_of, file_at};
use proptest::prelude::*;
use std::sync::Arc;

const MIB: usize = 1 << 20;

/// A source of `bytes` in blocks of `block_bytes`.
fn source(number: usize, bytes: Vec<u8>, block_bytes: usize) -> MemorySource {
    let name = format!("{number}.safetensors");
    MemorySource::faulty(&name, bytes, block_bytes, |_, _, _| Fault::None)
}

fn shards(sizes: &[Vec<usize>], block_bytes: usize) -> Arc<Checkpoint> {
    let shard = |(number, sizes): (usize, &Vec<usize>)| {
        source(number, file_at(&format!("s{number}.t"), sizes, 0), block_bytes)
    };
    checkpoint_of(sizes.iter().enumerate().map(shard).collect())
}

fn plan(checkpoint: &Arc<Checkpoint>, limit: MemoryLimit, globs: &[&str]) -> Result<Plan> {
    let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
    Plan::new(
        Arc::clone(checkpoint),
        limit,
        &Selection::of_globs(globs),
        &DeviceMap::default(),
        None,
    )
}

/// How many tensors each extent has.
fn counts(plan: &Plan) -> Vec<usize> {
    plan.extents().iter().map(|extent| plan.tensors_of(extent).len()).collect()
}

/// What has to hold for any plan.
fn check(plan: &Plan, selected: &[u32]) {
    let tensors = plan.checkpoint().tensors();
    let planned: Vec<u32> =
        plan.extents().iter().flat_map(|extent| plan.tensors_of(extent)).copied().collect();
    assert_eq!(planned, selected, "each selected tensor once, in order");
    assert_eq!(plan.tensor_count(), selected.len());
    for extent in plan.extents().iter() {
        let block = plan.checkpoint().shards()[extent.shard()].source().block_bytes() as u64;
        let (start, end) = (extent.offset_bytes(), extent.offset_bytes() + extent.len_bytes());
        let mut at = start;
        for &index in plan.tensors_of(extent) {
            let tensor = &tensors[index as usize];
            assert_eq!((tensor.shard(), tensor.offset_bytes()), (extent.shard(), at), "a gap");
            at += tensor.len_bytes();
        }
        assert_eq!(at, end, "an extent ends in mid-tensor");
        let slot_start = extent.slot_offset_bytes(block as usize);
        let slot_end = slot_start + extent.slot_len_bytes(block as usize);
        assert_eq!((slot_start % block, slot_end % block), (0, 0), "a slot is not of blocks");
        assert!(slot_start <= start && start - slot_start < block);
        assert!(slot_end >= end && slot_end - end < block);
    }
    let total: u64 = selected.iter().map(|&i| tensors[i as usize].len_bytes()).sum();
    assert_eq!(plan.total_bytes(), total);
    let largest_slot = plan
        .extents()
        .iter()
        .map(|e| e.slot_bytes(plan.checkpoint(), plan.sizes.block_bytes as usize))
        .max();
    assert!(plan.sizes.ring_bytes() >= largest_slot.unwrap_or(0), "an extent would never fit");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_plan_covers_exactly_the_selected_tensors(
        sizes in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(0), 1_usize..5000, Just(70_000)], 0..20),
            1..4,
        ),
        block_log in 0_u32..14,
        limit in prop_oneof![
            Just(MemoryLimit::Unlimited),
            Just(MemoryLimit::Min),
            (70_000_u64..400_000).prop_map(MemoryLimit::Bytes),
        ],
        glob in prop_oneof![Just(None), Just(Some("*[02468]")), Just(Some("s1.*"))],
    ) {
        let checkpoint = shards(&sizes, 1 << block_log);
        let globs: Vec<&str> = glob.into_iter().collect();
        let matches = |name: &str| match glob {
            None => true,
            Some("s1.*") => name.starts_with("s1."),
            Some(_) => name.ends_with(['0', '2', '4', '6', '8']),
        };
        let selected: Vec<u32> = checkpoint.tensors().iter().zip(0_u32..)
            .filter(|(tensor, _)| matches(tensor.name())).map(|(_, i)| i).collect();
        match plan(&checkpoint, limit, &globs) {
            Ok(plan) => check(&plan, &selected),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::NotFound);
                prop_assert!(selected.is_empty());
            }
        }
    }
}

#[test]
fn small_tensors_are_gathered_up_to_the_target_and_large_ones_stand_alone() {
    let sizes = vec![vec![3 * MIB, 5 * MIB, MIB, 20 * MIB, MIB, 8 * MIB + 1, 8 * MIB], vec![7]];
    let checkpoint = shards(&sizes, 4096);
    let plan = plan(&checkpoint, MemoryLimit::Unlimited, &[]).unwrap();
    check(&plan, &(0..8).collect::<Vec<_>>());
    assert_eq!(counts(&plan), [2, 1, 1, 1, 1, 1, 1], "8 MiB is the target, shards do not mix");
    assert_eq!(plan.sizes.limit_bytes, None);
}

#[test]
fn a_tight_limit_makes_extents_of_a_quarter_of_it() {
    let checkpoint = shards(&[vec![MIB / 4; 64]], 4096);
    let plan = plan(&checkpoint, MemoryLimit::Bytes(4 * MIB as u64), &[]).unwrap();
    assert_eq!(counts(&plan), [4; 16]);
    assert_eq!(plan.sizes.ring_bytes(), 4 * MIB as u64);
    // A limit that holds everything is not tight.
    let roomy = self::plan(&checkpoint, MemoryLimit::Bytes(16 * MIB as u64), &[]).unwrap();
    assert_eq!(counts(&roomy), [32; 2]);
}

#[test]
fn the_smallest_limit_is_one_slot_of_the_largest_tensor() {
    for block in [1, 512, 4096, 16384] {
        let checkpoint = shards(&[vec![1000, 2_000_003, 10, 1_999_999], vec![2_000_000]], block);
        let plan = plan(&checkpoint, MemoryLimit::Min, &[]).unwrap();
        check(&plan, &[0, 1, 2, 3, 4]);
        assert_eq!(plan.sizes.limit_bytes, Some(2_000_003));
        let overhead = plan.sizes.ring_bytes() - 2_000_003;
        assert!(overhead < 2 * block.max(PAGE_BYTES) as u64, "{overhead} bytes over");
    }
}

#[test]
fn a_limit_below_the_largest_selected_tensor_names_both_sizes() {
    let checkpoint = shards(&[vec![1000, 5000, 20]], 1);
    let error = plan(&checkpoint, MemoryLimit::Bytes(4999), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    let text = error.to_string();
    assert!(text.contains("4999 bytes") && text.contains("5000 bytes"), "{text}");
    // Not selected, not counted.
    assert!(plan(&checkpoint, MemoryLimit::Bytes(4999), &["*00", "*02"]).is_ok());
    assert!(plan(&checkpoint, MemoryLimit::Bytes(5000), &[]).is_ok());
}

#[test]
fn extents_do_not_span_what_is_not_selected() {
    let checkpoint = shards(&[vec![10; 6]], 4096);
    let plan = plan(&checkpoint, MemoryLimit::Unlimited, &["*0", "*1", "*[34]"]).unwrap();
    check(&plan, &[0, 1, 3, 4]);
    assert_eq!(counts(&plan), [2, 2]);
}

#[test]
fn globs_are_alternatives_and_a_tensor_that_two_match_comes_once() {
    let checkpoint = shards(&[vec![1; 12], vec![1; 3]], 1);
    for (globs, selected) in [
        (&["s0.t00000?"][..], (0..10).collect::<Vec<u32>>()),
        (&["{s0,s1}.t000001"], vec![1, 13]),
        (&["s1.*", "*"], (0..15).collect()),
        (&["s0.t000003"], vec![3]),
    ] {
        check(&plan(&checkpoint, MemoryLimit::Unlimited, globs).unwrap(), &selected);
    }
}

#[test]
fn a_glob_without_match_and_a_bad_glob_are_named() {
    let checkpoint = shards(&[vec![1; 3]], 1);
    let error = plan(&checkpoint, MemoryLimit::Unlimited, &["lm_head.*", "x?"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("lm_head.* or x?"), "{error}");
    for bad in ["[", "{a", "a[z-a]"] {
        let error = plan(&checkpoint, MemoryLimit::Unlimited, &["s*", bad]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        assert!(error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn empty_tensors_cost_nothing_wherever_they_stand() {
    let checkpoint = shards(&[vec![0, 0, 5, 0, 9 * MIB, 0], vec![0], vec![]], 4096);
    let plan = plan(&checkpoint, MemoryLimit::Unlimited, &[]).unwrap();
    check(&plan, &(0..7).collect::<Vec<_>>());
    let only_empty = self::plan(&checkpoint, MemoryLimit::Min, &["s1.*"]).unwrap();
    assert_eq!((only_empty.total_bytes(), only_empty.sizes.ring_bytes()), (0, 0));
    let none = shards(&[vec![]], 4096);
    let nothing = self::plan(&none, MemoryLimit::Unlimited, &[]).unwrap();
    assert_eq!((nothing.extents().len(), nothing.tensor_count()), (0, 0));
}

/// The plan of a million tensors must not grow faster than they do, nor need seconds.
#[test]
fn a_plan_s_memory_is_linear_in_the_tensors() {
    let mut random = Random(7);
    let mut bytes_a_tensor = Vec::new();
    for count in [1000, 10_000] {
        let sizes: Vec<usize> = (0..count).map(|_| random.below(64)).collect();
        let checkpoint = shards(&[sizes], 4096);
        // Every other tensor: no two are neighbours, so there are as many extents as can be.
        let plan = plan(&checkpoint, MemoryLimit::Min, &["*[02468]"]).unwrap();
        let bytes =
            plan.tensors.capacity() * size_of::<u32>() + plan.extents.len() * size_of::<Extent>();
        bytes_a_tensor.push(bytes as f64 / plan.tensor_count() as f64);
    }
    assert!(bytes_a_tensor[1] <= bytes_a_tensor[0].max(48.0), "{bytes_a_tensor:?}");
}

#[test]
#[ignore = "times a release build; run with --release -- --ignored --nocapture"]
fn a_million_tensors_in_500_shards_plan_fast() {
    let sizes: Vec<Vec<usize>> = (0..500).map(|_| vec![8; 2000]).collect();
    let checkpoint = shards(&sizes, 4096);
    for (limit, globs) in [(MemoryLimit::Unlimited, &[][..]), (MemoryLimit::Min, &["*[02468]"])] {
        let began = std::time::Instant::now();
        let plan = plan(&checkpoint, limit, globs).unwrap();
        let (took, extents) = (began.elapsed(), plan.extents().len());
        println!("{} tensors, {extents} extents planned in {took:?}", plan.tensor_count());
    }
}

#[test]
fn an_extent_holds_tensors_of_one_cast_and_counts_what_they_become() {
    let tensors =
        [("F16", 1000), ("F16", 600), ("BF16", 600), ("U8", 50), ("F32", 800), ("F32", 4)];
    let file = crate::test_files::float_file(&tensors);
    let checkpoint = checkpoint_of(vec![MemorySource::new("f.safetensors", file)]);
    let plan = |dtype| {
        let map = DeviceMap::default();
        Plan::new(
            Arc::clone(&checkpoint),
            MemoryLimit::Unlimited,
            &Selection::default(),
            &map,
            dtype,
        )
        .unwrap()
    };
    assert_eq!(counts(&plan(None)), [6]);
    let cast = plan(Some(Dtype::F32));
    assert_eq!(counts(&cast), [2, 1, 3]);
    assert_eq!(cast.total_bytes(), 3054);
    assert_eq!(cast.delivered_bytes(), 2 * 2200 + 854);
    let cast_bytes: Vec<_> = cast.extents().iter().map(Extent::copied_bytes).collect();
    assert_eq!(cast_bytes, [3200, 1200, 0]);
    // F16 and BF16 become as long as they are, F32 half as long.
    assert_eq!(counts(&plan(Some(Dtype::BF16))), [2, 2, 2]);
}

#[test]
fn names_are_exact_and_come_in_the_order_of_the_checkpoint() {
    let checkpoint = shards(&[vec![10, 20], vec![30]], 1);
    let named = |names: &[&str], globs: &[&str]| {
        let names = Some(names.iter().map(|&name| name.to_owned()).collect());
        let selection = Selection { names, ..Selection::of_globs(globs.iter().copied()) };
        let map = DeviceMap::default();
        let plan =
            Plan::new(Arc::clone(&checkpoint), MemoryLimit::Unlimited, &selection, &map, None)?;
        Ok::<_, Error>(plan.tensors().to_vec())
    };
    let name = |index: usize| checkpoint.tensors()[index].name();
    assert_eq!(named(&[name(2), name(0), name(2)], &[]).unwrap(), [0, 2]);
    assert_eq!(named(&[name(0)], &["s1*", "s0*1"]).unwrap(), [0, 1, 2], "besides what globs match");
    assert!(named(&[], &[]).unwrap().is_empty(), "no names are no tensors");
    let error = named(&[name(0), "s0*"], &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"s0*\""), "{error}");
}
