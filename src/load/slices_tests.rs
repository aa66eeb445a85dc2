//! Loads of slices: whatever is sliced, read, cast and limited, tensors are what a naive program picks.

use crate::cast::Cast;
use crate::checkpoint::Checkpoint;
use crate::source::memory::{Fault, MemorySource};
use crate::test_files::{Random, checkpoint_of};
use crate::{Dtype, ErrorKind, Loader, MemoryLimit, Slice, SliceRange, Slices};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TYPES: [(&str, Dtype); 8] = [
    ("BF16", Dtype::BF16),
    ("U8", Dtype::U8),
    ("F32", Dtype::F32),
    ("F4", Dtype::F4),
    ("I64", Dtype::I64),
    ("F8_E4M3", Dtype::F8_E4M3),
    ("F6_E2M3", Dtype::F6_E2M3),
    ("F16", Dtype::F16),
];

/// A tensor of a test: its type, how many elements rows are multiples of, and for each dimension its size
/// and the start, length and step of its slice.
type Spec = (usize, usize, Vec<(usize, usize, usize, usize)>);
/// The start, end and step of the indices of a dimension.
type Indices = (usize, usize, usize);

pub(super) struct Scene {
    pub checkpoint: Arc<Checkpoint>,
    pub file: Vec<u8>,
    pub reads: Arc<AtomicU64>,
    pub read_bytes: Arc<AtomicU64>,
}

/// A checkpoint of one file with these tensors, called by their numbers, with random bytes.
pub(super) fn scene(tensors: &[(&str, Dtype, Vec<usize>)], block_bytes: usize) -> Scene {
    scene_of(tensors, block_bytes, false)
}

/// As [`scene`]; `is_remote` puts the file behind a network.
pub(super) fn scene_of(
    tensors: &[(&str, Dtype, Vec<usize>)],
    block_bytes: usize,
    is_remote: bool,
) -> Scene {
    let (mut entries, mut end) = (Vec::new(), 0);
    for (number, (text, dtype, shape)) in tensors.iter().enumerate() {
        let begin = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        entries.push(format!(
            r#""t{number}":{{"dtype":"{text}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    let mut random = Random(end as u64);
    while end > 0 {
        let word = random.next().to_le_bytes();
        file.extend_from_slice(&word[..end.min(8)]);
        end -= end.min(8);
    }
    let (reads, read_bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let counts = (Arc::clone(&reads), Arc::clone(&read_bytes));
    let source = MemorySource::faulty("t", file.clone(), block_bytes, move |_, _, asked| {
        counts.0.fetch_add(1, Ordering::Relaxed);
        counts.1.fetch_add(asked as u64, Ordering::Relaxed);
        Fault::None
    });
    let source = if is_remote { source.remote() } else { source };
    Scene { checkpoint: checkpoint_of(vec![source]), file, reads, read_bytes }
}

/// The bytes that numpy would pick: the elements one by one, by their bits.
fn picked(bytes: &[u8], bits: usize, shape: &[usize], ranges: &[Indices]) -> Vec<u8> {
    let mut indices = vec![0];
    for (&size, &(start, end, step)) in shape.iter().zip(ranges) {
        let along = |outer: usize| (start..end).step_by(step).map(move |i| outer * size + i);
        indices = indices.into_iter().flat_map(along).collect();
    }
    let bit = |at: usize| bytes[at / 8] >> (at % 8) & 1;
    let bits: Vec<u8> = indices.iter().flat_map(|i| i * bits..(i + 1) * bits).map(bit).collect();
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | bit)).collect()
}

/// The shape of a tensor with the slice of `spec`, and the indices; all of them where the slice would
/// cut a byte. Rows have whole bytes, and no tensor is without elements.
fn tensor_of((of, multiple, dims): &Spec) -> (Vec<usize>, Vec<Indices>, Slice) {
    let dtype = TYPES[*of].1;
    let mut shape: Vec<usize> = dims.iter().map(|dim| dim.0 + 1).collect();
    match shape.last_mut() {
        Some(last) => *last *= multiple,
        None if dtype.bitsize() < 8 => shape = vec![4],
        None => {}
    }
    let all: Vec<Indices> = shape.iter().map(|&size| (0, size, 1)).collect();
    let mut ranges = all.clone();
    for (range, &(_, start, count, step)) in ranges.iter_mut().zip(dims) {
        let start = start.min(range.1 - 1);
        *range = (start, (start + 1 + count).min(range.1), step);
    }
    let to = |&(start, end, step): &Indices| SliceRange {
        step: step as isize,
        ..SliceRange::from(start..end)
    };
    let slice = Slice::new(ranges.iter().map(to));
    match slice.of(&shape, dtype.bitsize() as u64) {
        Ok(_) => (shape, ranges, slice),
        Err(_) => (shape, all, Slice::whole()),
    }
}

fn limits() -> impl Strategy<Value = MemoryLimit> {
    prop_oneof![
        Just(MemoryLimit::Unlimited),
        Just(MemoryLimit::Min),
        Just(MemoryLimit::Bytes(1 << 20)),
    ]
}

fn dims() -> impl Strategy<Value = Vec<(usize, usize, usize, usize)>> {
    prop::collection::vec((0_usize..9, 0_usize..9, 0_usize..9, 1_usize..3), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn slices_are_what_numpy_picks(
        // Some are too long to be packed.
        specs in prop::collection::vec(
            (0..TYPES.len(), prop::sample::select(vec![4_usize, 4, 4, 200]), dims()),
            1..12,
        ),
        block_bytes in prop::sample::select(vec![1_usize, 512, 4096]),
        limit in limits(),
        cast in any::<bool>(),
        keep in any::<bool>(),
    ) {
        let (mut tensors, mut ranges, mut slices) = (Vec::new(), Vec::new(), Slices::default());
        for (number, spec) in specs.iter().enumerate() {
            let (shape, range, slice) = tensor_of(spec);
            slices = slices.with(&format!("t{number}"), slice).unwrap();
            tensors.push((TYPES[spec.0].0, TYPES[spec.0].1, shape));
            ranges.push(range);
        }
        let scene = scene(&tensors, block_bytes);
        let mut loader = Loader::new().memory_limit(limit).engines(2).slices(slices);
        if cast {
            loader = loader.dtype(Dtype::F32);
        }
        let (mut kept, mut seen) = (Vec::new(), 0);
        for tensor in loader.stream_checkpoint(Arc::clone(&scene.checkpoint)).unwrap() {
            let tensor = tensor.unwrap();
            seen += 1;
            let number: usize = tensor.name()[1..].parse().unwrap();
            let (_, dtype, shape) = &tensors[number];
            let start = tensor.info().offset_bytes() as usize;
            let bytes = &scene.file[start..start + tensor.info().len_bytes() as usize];
            let mut expected = picked(bytes, dtype.bitsize(), shape, &ranges[number]);
            if let Some(cast) = Cast::new(*dtype, Dtype::F32).filter(|_| cast) {
                let mut target = vec![0; cast.target_bytes(expected.len() as u64) as usize];
                cast.run(&expected, &mut target);
                expected = target;
            }
            let size = |&(start, end, step): &Indices| (end - start).div_ceil(step);
            let sizes: Vec<_> = ranges[number].iter().map(size).collect();
            prop_assert_eq!(tensor.shape(), &sizes[..]);
            prop_assert_eq!(tensor.full_shape(), &shape[..]);
            prop_assert_eq!(tensor.bytes(), &expected[..], "{} {:?}", tensor.name(), shape);
            let alone = loader.read_tensor(&scene.checkpoint, tensor.name(), None).unwrap();
            prop_assert_eq!((alone.bytes(), alone.shape()), (&expected[..], &sizes[..]));
            if keep && limit == MemoryLimit::Unlimited {
                kept.push((tensor, expected));
            }
        }
        prop_assert_eq!(seen, tensors.len());
        for (tensor, expected) in kept {
            prop_assert_eq!(tensor.bytes(), &expected[..], "changed while it was held");
        }
    }

    /// The parts of all ranks, one after the other, are the tensor.
    #[test]
    fn the_shares_of_all_ranks_are_the_tensor(
        shape in prop::collection::vec(1_usize..12, 1..4),
        dim in 0_usize..4,
        world in 1_usize..5,
        limit in limits(),
    ) {
        let dim = dim % shape.len();
        let scene = scene(&[("BF16", Dtype::BF16, shape.clone())], 512);
        let outer: usize = shape[..dim].iter().product();
        let mut rows = vec![Vec::new(); outer];
        for rank in 0..world {
            let share = Slice::share(dim as isize, rank, world);
            let slices = Slices::default().with("*", share).unwrap();
            let loader = Loader::new().memory_limit(limit).slices(slices);
            match loader.stream_checkpoint(Arc::clone(&scene.checkpoint)) {
                Ok(mut stream) => {
                    let tensor = stream.next().unwrap().unwrap();
                    let bytes = tensor.bytes();
                    for (row, part) in rows.iter_mut().zip(bytes.chunks(bytes.len() / outer)) {
                        row.extend_from_slice(part);
                    }
                }
                Err(error) => {
                    prop_assert!(error.to_string().contains("gets nothing"), "{}", error);
                }
            }
        }
        let start = scene.checkpoint.tensors()[0].offset_bytes() as usize;
        prop_assert_eq!(&rows.concat()[..], &scene.file[start..]);
    }
}

/// Tensors of 24 MiB whose columns are loaded through a ring of two pieces, while the caller holds
/// what it got: the ring of pieces must not be needed by what the caller holds.
#[test]
fn columns_are_gathered_under_the_smallest_limit() {
    let tensors: Vec<_> = (0..3).map(|_| ("BF16", Dtype::BF16, vec![3000, 4096])).collect();
    let scene = scene(&tensors, 4096);
    let (part, row) = (3000 * 4096, 2048 * 2);
    for rank in 0..2 {
        let slices = Slices::default().with("*", Slice::share(1, rank, 2)).unwrap();
        for limit in [MemoryLimit::Min, MemoryLimit::Bytes(part + (1 << 20))] {
            scene.read_bytes.store(0, Ordering::Relaxed);
            let loader = Loader::new().memory_limit(limit).slices(slices.clone());
            let mut stream = loader.stream_checkpoint(Arc::clone(&scene.checkpoint)).unwrap();
            for number in 0..3 {
                let tensor = stream.next().unwrap().unwrap();
                assert_eq!(tensor.shape(), [3000, 2048]);
                let start = tensor.info().offset_bytes() as usize;
                let whole = &scene.file[start..start + 3000 * 2 * row];
                for (found, expected) in tensor.bytes().chunks(row).zip(whole.chunks(2 * row)) {
                    assert!(found == &expected[rank * row..(rank + 1) * row], "{number}");
                }
            }
            assert!(stream.next().is_none());
            let ring_bytes = stream.summary().ring_bytes;
            assert!(ring_bytes <= part + (3 << 20), "{ring_bytes}");
            // The gaps are short, so nearly all of each tensor is read, and never more.
            let read = scene.read_bytes.load(Ordering::Relaxed);
            assert!(read <= 3 * 2 * part * 102 / 100, "{read}");
        }
    }
}

#[test]
fn only_the_bytes_of_a_slice_of_rows_are_read_and_long_gaps_are_skipped() {
    let tensors = [
        ("BF16", Dtype::BF16, vec![4096, 512]),
        ("U8", Dtype::U8, vec![8, 1 << 19]),
        ("U8", Dtype::U8, vec![3 << 20]),
    ];
    let scene = scene(&tensors, 4096);
    let slices = Slices::default()
        .with("t0", Slice::share(0, 1, 4))
        .and_then(|slices| slices.with("t1", Slice::share(1, 2, 4)))
        .unwrap();
    let loader = Loader::new().slices(slices).filter(|tensor| tensor.name() != "t2");
    let loaded = loader.load_checkpoint(Arc::clone(&scene.checkpoint)).unwrap();
    assert_eq!(loaded.len(), 2, "the filter leaves one out");
    let share = (4096 * 512 * 2 + (8 << 19)) / 4;
    assert_eq!(loaded.summary().bytes, share);
    // Each of the 9 runs is rounded to whole blocks.
    let read = scene.read_bytes.load(Ordering::Relaxed);
    assert!((share..=share + 9 * 2 * 4096).contains(&read), "{read}");
}

#[test]
fn what_needs_whole_tensors_refuses_slices() {
    let scene = scene(&[("BF16", Dtype::BF16, vec![4, 4])], 1);
    let slices = Slices::default().with("*", Slice::share(1, 0, 2)).unwrap();
    let loader = Loader::new().slices(slices);
    let error = loader.clone().verify(true).load_checkpoint(Arc::clone(&scene.checkpoint));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("slice of \"t0\""), "{error}");
    let mapped = loader.read_path(crate::ReadPath::Mapped);
    let error = mapped.load_checkpoint(Arc::clone(&scene.checkpoint)).unwrap_err();
    assert!(error.to_string().contains("slices of inner dimensions"), "{error}");
}

/// NaN in the part of another rank is that rank's; in a part that is gathered it is found.
#[test]
fn values_of_the_part_are_looked_at() {
    let header = r#"{"t":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    for value in [1.0, f32::NAN, 2.0, f32::INFINITY] {
        file.extend(value.to_le_bytes());
    }
    let checkpoint = checkpoint_of(vec![MemorySource::new("t", file)]);
    for (rank, is_finite) in [(0, true), (1, false)] {
        let slices = Slices::default().with("t", Slice::share(1, rank, 2)).unwrap();
        let loader = Loader::new().slices(slices).check_finite(true);
        let loaded = loader.load_checkpoint(Arc::clone(&checkpoint));
        assert_eq!(loaded.is_ok(), is_finite);
        if let Err(error) = loaded {
            assert!(error.to_string().contains("(1 NaN, 1 infinite)"), "{error}");
        }
    }
}
