//! `--dtype`: floats are loaded cast and all other tensors as stored, under every limit.
//!
//! Hazards: a cast tensor at the wrong offset of its slot; neighbours of another type that are cast
//! with it or left out; a limit exceeded by the stored and the cast tensor together; a slot that never
//! fits; a target type that is not supported but accepted.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::{Expected, directory, in_time, write};
use proptest::prelude::*;
use ringload::cast::Cast;
use ringload::{Dtype, ErrorKind, Loader, MemoryLimit, Order, ReadPath};
use std::path::Path;

const TO: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// The type that a tensor is delivered as.
fn delivered(tensor: &Expected, to: Dtype) -> Expected {
    let Some(cast) = Cast::new(tensor.dtype, to) else {
        return tensor.clone();
    };
    let mut bytes = vec![0; cast.target_bytes(tensor.bytes.len() as u64) as usize];
    cast.run(&tensor.bytes, &mut bytes);
    Expected { dtype: to, bytes, ..tensor.clone() }
}

/// The smallest limit: the largest tensor, with its cast.
fn least_limit(tensors: &[Expected], to: Dtype) -> u64 {
    let bytes = |tensor: &Expected| {
        let cast = Cast::new(tensor.dtype, to);
        let stored = tensor.bytes.len() as u64;
        stored + cast.map_or(0, |cast| cast.target_bytes(stored))
    };
    tensors.iter().map(bytes).max().unwrap_or(0)
}

/// Loads the file of `tensors` and compares every tensor. Each is dropped before the next is taken.
fn check(loader: &Loader, path: &Path, tensors: &[Expected], to: Dtype) {
    let (loader, path, tensors) = (loader.clone(), path.to_path_buf(), tensors.to_vec());
    in_time("a load with casts", move || {
        let mut stream = loader.stream(path.as_path()).unwrap();
        let progress = stream.progress();
        let (mut came, mut casts, mut bytes) = (0, 0, 0);
        for tensor in stream.by_ref() {
            let tensor = tensor.unwrap();
            let stored = tensors.iter().find(|expected| expected.name == tensor.name()).unwrap();
            let expected = delivered(stored, to);
            assert_eq!((tensor.dtype(), tensor.info().dtype()), (expected.dtype, stored.dtype));
            assert_eq!(tensor.shape(), expected.shape);
            assert_eq!(tensor.len_bytes(), expected.bytes.len());
            assert!(tensor.bytes() == expected.bytes, "{} is wrong", tensor.name());
            if expected.dtype != stored.dtype {
                casts += 1;
                let aligned = tensor.address().is_multiple_of(to.bitsize() as u64 / 8);
                assert!(aligned || tensor.len_bytes() == 0, "{} is not aligned", tensor.name());
            }
            came += 1;
            bytes += expected.bytes.len() as u64;
        }
        let summary = stream.summary();
        assert_eq!((came, summary.tensors), (tensors.len(), tensors.len()));
        assert_eq!((summary.bytes, summary.cast_tensors), (bytes, casts));
        assert_eq!((progress.total_bytes(), progress.done_bytes()), (bytes, bytes));
        if let Some(limit) = summary.memory_limit_bytes {
            assert!(summary.ring_bytes <= limit + 4 * 4096, "{summary:?}");
        }
    });
}

/// Tensors of all types, mostly of those that are cast, of odd sizes, some empty.
fn tensors() -> impl Strategy<Value = Vec<Expected>> {
    let floats = vec![Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2];
    let dtype = prop_oneof![
        3 => prop::sample::select(floats),
        1 => prop::sample::select(Dtype::ALL.to_vec()),
    ];
    let elements = prop_oneof![1 => Just(0), 6 => 1_usize..300, 3 => 300_usize..9000];
    proptest::collection::vec((dtype, elements), 1..14).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named
            // Eight elements of any type are whole bytes.
            .map(|(i, (dtype, elements))| {
                let name = format!("t{:02}", (i * 7) % 16);
                let elements = if dtype.bitsize() % 8 == 0 { elements } else { elements / 8 * 8 };
                Expected::new(name, dtype, &[elements], i as u64)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn every_tensor_comes_as_it_has_to_under_any_limit(
        tensors in tensors(),
        to in 0_usize..3,
        more in 0_u64..60_000,
        engines in 1_usize..3,
        order in prop_oneof![Just(Order::Completion), Just(Order::File)],
        path in prop_oneof![Just(ReadPath::Auto), Just(ReadPath::Direct), Just(ReadPath::Buffered)],
    ) {
        let (to, directory) = (TO[to], directory());
        let file = directory.path().join("model.safetensors");
        write(&file, &tensors, None);
        let least = least_limit(&tensors, to);
        let limits = [
            MemoryLimit::Unlimited,
            MemoryLimit::Min,
            MemoryLimit::Bytes(least.max(1)),
            MemoryLimit::Bytes(least.max(1) + more),
        ];
        for limit in limits {
            let loader = Loader::new().dtype(to).memory_limit(limit).engines(engines);
            check(&loader.order(order.clone()).read_path(path), &file, &tensors, to);
        }
    }
}

#[test]
fn small_tensors_that_grow_keep_the_limit_together() {
    let directory = directory();
    let file = directory.path().join("model.safetensors");
    let tensor = |i| Expected::new(format!("t{i}"), Dtype::F8_E5M2, &[1000], i);
    let tensors: Vec<_> = (0..300).map(tensor).collect();
    write(&file, &tensors, None);
    let loader = Loader::new().dtype(Dtype::F32).memory_limit(MemoryLimit::Bytes(100_000));
    check(&loader, &file, &tensors, Dtype::F32);
}

#[test]
fn a_limit_below_a_tensor_and_its_cast_names_what_is_needed() {
    let directory = directory();
    let file = directory.path().join("model.safetensors");
    write(&file, &[Expected::new("w", Dtype::F32, &[1000], 1)], None);
    let stream =
        |limit| Loader::new().dtype(Dtype::BF16).memory_limit(limit).stream(file.as_path());
    let error = stream(MemoryLimit::Bytes(5999)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    for size in
        ["(5999 bytes)", "(4000 bytes) as stored", "(2000 bytes) as it is cast", "(6000 bytes), or"]
    {
        assert!(error.to_string().contains(size), "{error}");
    }
    assert_eq!(stream(MemoryLimit::Bytes(6000)).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let directory = directory();
    let file = directory.path().join("model.safetensors");
    write(&file, &[Expected::new("w", Dtype::F32, &[1000], 1)], None);
    let refused = |loader: Loader| loader.stream(file.as_path()).unwrap_err();
    let error = refused(Loader::new().dtype(Dtype::I32));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("use f32, f16 or bf16"), "{error}");
    let error = refused(Loader::new().dtype(Dtype::F16).read_path(ReadPath::Mapped));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("mapped"), "{error}");
}

#[test]
fn all_tensors_can_be_kept_and_are_there_by_name() {
    let directory = directory();
    let file = directory.path().join("model.safetensors");
    let tensors: Vec<_> =
        (0..9).map(|i| Expected::new(format!("t{i}"), Dtype::F16, &[i * 1001], i as u64)).collect();
    write(&file, &tensors, None);
    let loaded = Loader::new().dtype(Dtype::F32).load(file.as_path()).unwrap();
    for tensor in &tensors {
        let expected = delivered(tensor, Dtype::F32);
        assert!(loaded.get(&tensor.name).unwrap().bytes() == expected.bytes);
    }
}

#[test]
fn the_command_digests_what_it_delivers_and_counts_it() {
    let directory = directory();
    let file = directory.path().join("model.safetensors");
    let tensors = [
        Expected::new("a", Dtype::F32, &[33, 7], 1),
        Expected::new("b", Dtype::F64, &[5], 2),
        Expected::new("c", Dtype::F8_E4M3, &[1001], 3),
        Expected::new("d", Dtype::I64, &[2], 4),
    ];
    write(&file, &tensors, None);
    let cast = tensors.each_ref().map(|tensor| delivered(tensor, Dtype::BF16));
    let load = |more: &[&str]| {
        run(ringload().arg("load").arg(&file).args(["--dtype", "bfloat16"]).args(more))
    };
    assert_eq!(load(&["--digest"]).quiet_success(), digest_lines(&cast));
    let report = load(&["--json", "--memory-limit", "min"]).json();
    let bytes: usize = cast.iter().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!((&report["bytes"], &report["cast_tensors"]), (&bytes.into(), &2.into()));
    assert!(load(&[]).quiet_success().contains("2 tensors cast\n"));
    assert!(load(&["--read-path", "mapped"]).failure().contains("cannot cast"));
}

#[test]
fn the_command_names_the_types_that_it_casts_to() {
    for wrong in ["int4", "f64", "f8_e4m3"] {
        let error = run(ringload().args(["load", "nowhere", "--dtype", wrong])).wrong_usage();
        assert!(error.contains(wrong) && error.contains("f32, f16 or bf16"), "{error}");
    }
}
