//! Files that the `safetensors` crate writes are loaded bit for bit, each tensor exactly once.
//!
//! Hazards: extents and blocks that cut tensors at any byte; files that do not end at a sector; empty
//! tensors before, between and after others; tensors larger than one read, one extent, or all memory
//! in flight; a ring so small that every slot is reused many times; races between shards and engines;
//! files of which the page cache holds a part; memory that is returned while it is in use.

use crate::common::{Expected, directory, evict, in_time, is_long, warm, write, write_index};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use ringload::{Dtype, ErrorKind, Loader, MemoryLimit, Order, ReadPath, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A checkpoint to write.
#[derive(Debug, Clone)]
struct Model {
    shards: Vec<Vec<Expected>>,
    metadata: Option<HashMap<String, String>>,
    has_index: bool,
}

impl Model {
    /// Writes the checkpoint. Returns the location to load.
    fn write(&self, directory: &Path) -> PathBuf {
        let files: Vec<String> =
            (0..self.shards.len()).map(|i| format!("model-{i:05}.safetensors")).collect();
        for (file, tensors) in files.iter().zip(&self.shards) {
            write(&directory.join(file), tensors, self.metadata.clone());
        }
        if !self.has_index {
            return directory.to_path_buf();
        }
        let index = directory.join("model.safetensors.index.json");
        let named = files.iter().map(String::as_str).zip(self.shards.iter().map(Vec::as_slice));
        write_index(&index, named.filter(|(_, tensors)| !tensors.is_empty()));
        index
    }

    fn tensors(&self) -> impl Iterator<Item = &Expected> {
        self.shards.iter().flatten()
    }

    fn evict(&self, directory: &Path) {
        for file in directory.read_dir().unwrap() {
            evict(&file.unwrap().path());
        }
    }
}

/// Which tensors to load.
#[derive(Debug, Clone, Copy)]
enum Subset {
    All,
    Layers,
    NotLayers,
    OddNumbers,
    None,
}

impl Subset {
    fn globs(self) -> &'static [&'static str] {
        match self {
            Subset::All => &[],
            Subset::Layers => &["layer.*"],
            Subset::NotLayers => &["{norm,\u{fc}ber}.*", "h/*"],
            Subset::OddNumbers => &["*.*[13579].[wb]*"],
            Subset::None => &["nothing is called that"],
        }
    }

    fn has(self, name: &str) -> bool {
        match self {
            Subset::All => true,
            Subset::Layers => name.starts_with("layer."),
            Subset::NotLayers => !name.starts_with("layer."),
            Subset::OddNumbers => {
                let number = name.split('.').nth(1).unwrap();
                number.ends_with(['1', '3', '5', '7', '9'])
            }
            Subset::None => false,
        }
    }
}

/// How to load.
#[derive(Debug, Clone)]
struct Way {
    path: ReadPath,
    /// The limit: `None` for none, else its position between the largest tensor (0) and a quarter
    /// more than all tensors (1000).
    limit: Option<u64>,
    order: Order,
    engines: usize,
    subset: Subset,
    cold: bool,
}

fn way(path: ReadPath) -> impl Strategy<Value = Way> {
    let limit = match path {
        ReadPath::Mapped => Just(None).boxed(),
        _ => prop_oneof![
            2 => Just(None),
            2 => Just(Some(0)),
            3 => (0..=1000_u64).prop_map(Some),
        ]
        .boxed(),
    };
    let order = prop_oneof![Just(Order::Completion), Just(Order::File)];
    let subset = prop_oneof![
        6 => Just(Subset::All),
        2 => Just(Subset::Layers),
        2 => Just(Subset::NotLayers),
        2 => Just(Subset::OddNumbers),
        1 => Just(Subset::None),
    ];
    (limit, order, 1..=3_usize, subset, any::<bool>()).prop_map(
        move |(limit, order, engines, subset, cold)| Way {
            path,
            limit,
            order,
            engines,
            subset,
            cold,
        },
    )
}

/// Two variants of each read path.
fn ways() -> impl Strategy<Value = [Way; 8]> {
    use ReadPath::{Auto, Buffered, Direct, Mapped};
    [Auto, Auto, Direct, Direct, Buffered, Buffered, Mapped, Mapped].map(way)
}

/// A shape of about `elements` elements with a whole number of bytes.
fn shape_of(elements: usize, form: usize, dtype: Dtype) -> Vec<usize> {
    // Two elements of F4 make a byte, and four of F6 make three.
    let unit = if dtype.bitsize() < 8 { 4 } else { 1 };
    let elements = elements.next_multiple_of(unit);
    match form {
        0 => vec![elements],
        1 => vec![elements / unit, 1, unit],
        2 if elements.is_multiple_of(2 * unit) => vec![2, elements / 2],
        3 if unit == 1 => vec![],
        4 => vec![3, 0, 7],
        _ => vec![1, elements],
    }
}

fn tensor() -> impl Strategy<Value = (usize, Vec<usize>, u64)> {
    let len_bytes = prop_oneof![
        2 => 0..4_usize,
        6 => 1..600_usize,
        4 => 600..20_000_usize,
        4 => 20_000..300_000_usize,
        // Sizes around one block.
        2 => prop::sample::select(vec![511, 512, 513, 4095, 4096, 4097, 65_536]),
    ];
    (0..Dtype::ALL.len(), len_bytes, 0..7_usize, any::<u64>()).prop_map(
        |(dtype, len_bytes, form, seed)| {
            let elements = len_bytes * 8 / Dtype::ALL[dtype].bitsize();
            (dtype, shape_of(elements, form, Dtype::ALL[dtype]), seed)
        },
    )
}

/// In one case of six, a tensor of several MiB, which has extents and reads of its own.
fn large_tensor() -> impl Strategy<Value = Option<(usize, Vec<usize>, u64)>> {
    let large = ((3_usize << 20)..(10 << 20), any::<u64>())
        .prop_map(|(len_bytes, seed)| (4, vec![len_bytes], seed));
    prop::option::weighted(1.0 / 6.0, large)
}

fn model() -> impl Strategy<Value = Model> {
    const KINDS: [&str; 4] = ["layer", "norm", "\u{fc}ber", "h/\u{1f980} \"\n"];
    let shard = (prop::collection::vec((0..KINDS.len(), tensor()), 0..12), large_tensor());
    let metadata = prop::option::of(prop::collection::hash_map(".{1,5}", ".{0,9}", 1..3));
    (prop::collection::vec(shard, 1..=4), metadata, any::<bool>()).prop_map(
        |(shards, metadata, has_index)| {
            let mut number = 0;
            let mut named = |kind: usize, (dtype, shape, seed): (usize, Vec<usize>, u64)| {
                number += 1;
                let name = format!("{}.{number}.weight", KINDS[kind]);
                Expected::new(name, Dtype::ALL[dtype], &shape, seed)
            };
            let shards = shards.into_iter().map(|(tensors, large)| {
                let large = large.map(|tensor| (0, tensor));
                tensors.into_iter().chain(large).map(|(kind, it)| named(kind, it)).collect()
            });
            let shards: Vec<Vec<_>> = shards.collect();
            // An index that names nothing has no shards.
            let has_index = has_index && shards.iter().any(|tensors| !tensors.is_empty());
            Model { shards, metadata, has_index }
        },
    )
}

/// Checks one tensor against what was written.
fn check(tensor: &Tensor, expected: &Expected) -> TestCaseResult {
    prop_assert_eq!(tensor.name(), &expected.name);
    prop_assert_eq!(tensor.dtype(), expected.dtype, "{}", expected.name);
    prop_assert_eq!(tensor.shape(), &expected.shape, "{}", expected.name);
    prop_assert_eq!(tensor.len_bytes(), expected.bytes.len(), "{}", expected.name);
    // Not compared with an assertion that would print them.
    prop_assert!(tensor.bytes() == expected.bytes, "bytes of {} differ", expected.name);
    Ok(())
}

/// Loads `location` in the given way, streamed and resident, and checks all tensors.
fn load_and_check(location: &Path, model: &Model, way: Way) -> TestCaseResult {
    let expected: BTreeMap<&str, &Expected> = model
        .tensors()
        .filter(|tensor| way.subset.has(&tensor.name))
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let sizes = || expected.values().map(|tensor| tensor.bytes.len() as u64);
    let (largest, total) = (sizes().max().unwrap_or(0), sizes().sum::<u64>());
    let limit = match way.limit {
        None => MemoryLimit::Unlimited,
        Some(0) => MemoryLimit::Min,
        Some(part) => {
            MemoryLimit::Bytes(largest + (total * 5 / 4 - largest.min(total)) * part / 1000)
        }
    };
    let loader = Loader::new()
        .read_path(way.path)
        .memory_limit(limit)
        .order(way.order.clone())
        .engines(way.engines)
        .tensors(way.subset.globs().iter().copied());

    if expected.is_empty() && !way.subset.globs().is_empty() {
        let error = loader.stream(location).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::NotFound);
        return Ok(());
    }
    let mut stream = loader.stream(location).unwrap();
    prop_assert_eq!(stream.tensor_count(), expected.len());
    let mut seen = BTreeMap::new();
    let mut last = None;
    for tensor in &mut stream {
        let tensor = tensor.unwrap();
        let of_name = expected.get(tensor.name());
        prop_assert!(of_name.is_some(), "{} was not asked for", tensor.name());
        check(&tensor, of_name.unwrap())?;
        prop_assert!(seen.insert(tensor.name().to_owned(), ()).is_none(), "{tensor:?} came twice");
        if way.order == Order::File {
            prop_assert!(last < Some(tensor.index()), "{tensor:?} is out of order");
            last = Some(tensor.index());
        }
    }
    prop_assert_eq!(seen.len(), expected.len());
    let summary = stream.summary();
    prop_assert_eq!((summary.tensors, summary.bytes), (expected.len(), total));
    drop(stream);

    match loader.load(location) {
        Ok(loaded) => {
            prop_assert_eq!(loaded.len(), expected.len());
            for (name, expected) in &expected {
                check(loaded.get(name).unwrap(), expected)?;
            }
            prop_assert!(loaded.get("nothing is called that").is_none());
            let metadata = model.metadata.clone().unwrap_or_default();
            prop_assert_eq!(loaded.checkpoint().metadata(), &metadata.into_iter().collect());
        }
        Err(error) => {
            prop_assert_eq!(error.kind(), ErrorKind::MemoryLimit);
            // All tensors in whole blocks, with up to two more blocks per extent.
            let needed = total + expected.len() as u64 * 2 * 4096;
            let below = summary.memory_limit_bytes.is_some_and(|limit| limit < needed);
            prop_assert!(below, "{error}");
            prop_assert!(error.to_string().starts_with("loading all tensors needs"), "{error}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_long() { 2000 } else { 64 },
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_written_comes_back_on_every_path(model in model(), ways in ways()) {
        let directory = directory();
        let location = model.write(directory.path());
        for way in ways {
            if way.cold {
                model.evict(directory.path());
            }
            load_and_check(&location, &model, way.clone())
                .map_err(|error| TestCaseError::fail(format!("{way:?}: {error}")))?;
        }
    }
}

/// Loads every tensor through `loader` and checks it.
#[track_caller]
fn assert_loads(loader: &Loader, location: &Path, expected: &[Expected]) {
    let expected: HashMap<_, _> = expected.iter().map(|tensor| (&*tensor.name, tensor)).collect();
    let mut seen = 0;
    for tensor in loader.stream(location).unwrap() {
        let tensor = tensor.unwrap();
        check(&tensor, expected[tensor.name()]).unwrap();
        seen += 1;
    }
    assert_eq!(seen, expected.len(), "{loader:?}");
}

const PATHS: [ReadPath; 5] = ReadPath::ALL;

#[test]
fn a_file_may_end_anywhere_in_a_sector() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    for tail in [0, 1, 7, 8, 255, 504, 511, 512, 513, 1024, 4088, 4095] {
        let tensors = [
            Expected::of_bytes("front", 9000, tail),
            Expected::of_bytes("tail", tail as usize, !tail),
        ];
        write(&path, &tensors, None);
        for read_path in PATHS {
            evict(&path);
            assert_loads(&Loader::new().read_path(read_path), &path, &tensors);
        }
        evict(&path);
        let capped = Loader::new().read_path(ReadPath::Direct).memory_limit(MemoryLimit::Min);
        assert_loads(&capped, &path, &tensors);
    }
}

#[test]
fn a_tensor_larger_than_all_reads_in_flight_is_whole() {
    let directory = directory();
    let path = directory.path().join("large.safetensors");
    let tensors = [
        Expected::of_bytes("before", 1001, 1),
        Expected::of_bytes("large", (65 << 20) + 3, 2),
        Expected::of_bytes("behind", 1, 3),
    ];
    write(&path, &tensors, None);
    for (read_path, limit, engines) in [
        (ReadPath::Auto, MemoryLimit::Unlimited, 2),
        (ReadPath::Direct, MemoryLimit::Min, 1),
        (ReadPath::Direct, MemoryLimit::Unlimited, 3),
        (ReadPath::Buffered, MemoryLimit::Min, 2),
        (ReadPath::Mapped, MemoryLimit::Unlimited, 2),
    ] {
        evict(&path);
        let loader = Loader::new().read_path(read_path).memory_limit(limit).engines(engines);
        assert_loads(&loader, &path, &tensors);
    }
    warm(&path);
    assert_loads(&Loader::new(), &path, &tensors);
}

#[test]
fn a_file_that_is_half_in_the_page_cache_is_read_both_ways() {
    let directory = directory();
    let path = directory.path().join("half.safetensors");
    let tensors: Vec<_> = (0..8)
        .map(|i| Expected::of_bytes(format!("t{i}"), (3 << 20) + i as usize * 111, i))
        .collect();
    write(&path, &tensors, None);
    evict(&path);
    let mut half = vec![0; 12 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open(&path).unwrap(), &mut half).unwrap();
    assert_loads(&Loader::new(), &path, &tensors);
}

#[test]
fn many_tiny_tensors_come_each_once() {
    let directory = directory();
    let path = directory.path().join("tiny.safetensors");
    let tensors: Vec<_> = (0..20_000)
        .map(|i| Expected::of_bytes(format!("model.layers.{i}.bias"), i % 9, i as u64))
        .collect();
    write(&path, &tensors, None);
    for read_path in PATHS {
        assert_loads(&Loader::new().read_path(read_path), &path, &tensors);
    }
    let capped = Loader::new().memory_limit(MemoryLimit::Bytes(10_000));
    assert_loads(&capped, &path, &tensors);
    // Each tensor has a read and a slot of its own.
    let few = &tensors[..2000];
    write(&path, few, None);
    assert_loads(&Loader::new().memory_limit(MemoryLimit::Min), &path, few);
}

#[test]
fn a_clone_outlives_its_stream_and_its_file() {
    for read_path in PATHS {
        let directory = directory();
        let path = directory.path().join("a.safetensors");
        let tensors: Vec<_> =
            (0..40).map(|i| Expected::of_bytes(format!("t{i}"), 300_000 + i as usize, i)).collect();
        write(&path, &tensors, None);
        let mut stream = Loader::new().read_path(read_path).stream(&path).unwrap();
        let first = stream.next().unwrap().unwrap();
        let copy = first.clone();
        drop(first);
        drop(stream);
        drop(directory);
        let expected = tensors.iter().find(|tensor| tensor.name == copy.name()).unwrap();
        check(&copy, expected).unwrap();
    }
}

#[test]
fn what_is_held_under_a_limit_is_never_overwritten() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    let tensors: Vec<_> =
        (0..64).map(|i| Expected::of_bytes(format!("t{i}"), 100_000, i)).collect();
    write(&path, &tensors, None);
    let limit = MemoryLimit::Bytes(1_500_000);
    for order in [Order::Completion, Order::File] {
        let stream = Loader::new().memory_limit(limit).order(order.clone()).stream(&path).unwrap();
        let mut held = std::collections::VecDeque::new();
        for tensor in stream {
            held.push_back(tensor.unwrap());
            if held.len() == 4 {
                let oldest = held.pop_front().unwrap();
                let expected = tensors.iter().find(|t| t.name == oldest.name()).unwrap();
                check(&oldest, expected).unwrap();
            }
        }
    }
}

#[test]
fn a_stream_dropped_at_any_point_ends_cleanly() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    let tensors: Vec<_> =
        (0..50).map(|i| Expected::of_bytes(format!("t{i}"), 400_000, i)).collect();
    write(&path, &tensors, None);
    in_time("dropping a stream", move || {
        for read_path in PATHS {
            for taken in [0, 1, 7, 50] {
                evict(&path);
                let stream = Loader::new().read_path(read_path).engines(2).stream(&path).unwrap();
                assert_eq!(stream.take(taken).filter(Result::is_ok).count(), taken);
            }
        }
    });
}

#[test]
fn no_tensors_at_all_are_no_error() {
    let directory = directory();
    let path = directory.path().join("none.safetensors");
    write(&path, &[], None);
    for read_path in PATHS {
        assert!(Loader::new().read_path(read_path).load(&path).unwrap().is_empty());
    }
    let empty =
        [Expected::new("e", Dtype::F32, &[0], 0), Expected::new("f", Dtype::F4, &[4, 0], 0)];
    write(&path, &empty, None);
    for limit in [MemoryLimit::Unlimited, MemoryLimit::Min, MemoryLimit::Bytes(1)] {
        assert_loads(&Loader::new().memory_limit(limit), &path, &empty);
    }
    assert_loads(&Loader::new().read_path(ReadPath::Mapped), &path, &empty);
}
