//! Layouts are aligned and without overlaps, and few copies move every byte to its address.

use super::*;
use crate::plan::{Span, pieces_of};
use proptest::prelude::*;

/// LayoutItems of one or two sources, with gaps, and the extents of each place.
fn spec(sizes: &[(u64, u64)], places: u8) -> (Vec<LayoutItem>, Vec<Extent>) {
    let mut at = [100, 37];
    let mut items = Vec::new();
    let mut spans = Vec::new();
    for (number, &(gap, len_bytes)) in sizes.iter().enumerate() {
        let source = usize::from(number >= sizes.len() / 2);
        let offset_bytes = at[source] + gap;
        at[source] = offset_bytes + len_bytes;
        items.push(LayoutItem { source: source as u32, offset_bytes, len_bytes, cast: None });
        let span = Span { shard: source, offset_bytes, len_bytes, element_bytes: 1 };
        spans.push((span, (number % usize::from(places)) as u8));
    }
    (items, pieces_of(spans, 64 << 10))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn every_byte_is_copied_once_to_its_place(
        sizes in proptest::collection::vec(
            (prop_oneof![4 => Just(0_u64), 1 => 1_u64..300],
             prop_oneof![Just(0_u64), Just(256), 1_u64..3000, 50_000_u64..200_000]),
            1..30,
        ),
        places in 1_u8..3,
    ) {
        let (items, extents) = spec(&sizes, places);
        // Each byte of a source is its own offset, which identifies it on the GPU.
        let mut memory: Vec<Vec<Vec<u64>>> = Vec::new();
        for place in 0..usize::from(places) {
            let layout = Layout::new(items.clone(), &extents, place, 2, Addresses::PerShard);
            let mut allocations: Vec<Vec<u64>> =
                (0..2).map(|source| vec![0; layout.lens_bytes[source] as usize]).collect();
            for extent in extents.iter().filter(|extent| extent.destination() == place) {
                let copies = layout.copies(extent, |position| layout.starts[position]);
                let few = (copies.len() <= COPIES_MAX).then(|| copies.clone());
                prop_assert_eq!(layout.few_copies(extent, layout.relative_base()), few);
                for copy in copies {
                    for byte in 0..copy.len_bytes {
                        let at = &mut allocations[extent.shard()][(copy.to + byte) as usize];
                        prop_assert_eq!(*at, 0, "written twice");
                        *at = copy.from + byte;
                    }
                }
            }
            memory.push(allocations);
            for (position, item) in items.iter().enumerate() {
                if position % usize::from(places) != place {
                    continue;
                }
                let start = layout.starts[position];
                prop_assert_eq!(start % ALIGNMENT_BYTES, 0);
                let there = &memory[place][item.source as usize][start as usize..][..item.len_bytes as usize];
                prop_assert!(there.iter().copied().eq(item.offset_bytes..item.offset_bytes + item.len_bytes));
            }
            prop_assert!(layout.needed_bytes() <= items.iter().map(|item| item.len_bytes + 256).sum::<u64>());
        }
    }
}

#[test]
fn tensors_of_whole_256_bytes_are_one_copy_a_slot() {
    let (items, extents) = spec(&[(0, 4096); 64], 1);
    let layout = Layout::new(items, &extents, 0, 2, Addresses::PerShard);
    for extent in &extents {
        assert_eq!(layout.copies(extent, |position| layout.starts[position]).len(), 1);
    }
}

#[test]
fn memory_of_the_caller_is_listed_and_not_allocated() {
    let (items, extents) = spec(&[(0, 10), (0, 0), (0, 20)], 1);
    let addresses = Arc::from([1000, 2000, 3000]);
    let layout = Layout::new(items, &extents, 0, 2, Addresses::Given(addresses));
    assert_eq!(layout.needed_bytes(), 0);
    assert_eq!(layout.caller_memory, [(1000, 10), (2000, 0), (3000, 20)]);
}
