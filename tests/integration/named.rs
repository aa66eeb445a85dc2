//! Tensors in an order of the caller: `Order::Names`, and `Loader::by_name`.
//!
//! Past cost: a program that built a model from a store at 20 ms a round trip asked for one tensor after
//! the other, each with a request of its own, and took 10 s where a stream took 1.5 s. Hazards: an order
//! that the memory limit cannot hold, a load that waits for a tensor that waits for memory, and a
//! tensor that is lost or handed out twice.

use crate::common::fault_server::Request;
use crate::common::model::{Model, loader};
use crate::common::{Expected, in_time};
use futures_util::FutureExt;
use ringload::{Error, ErrorKind, Loader, MemoryLimit, NamedTensors, Order, Tensor};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Layers of tensors of different sizes, as a model has, and a large last one.
fn sizes() -> Vec<usize> {
    let layer = [70_000, 4096, 40_000, 100, 90_000, 40_000, 0];
    let layers = std::iter::repeat_n(layer, 12).flatten();
    std::iter::once(300_000).chain(layers).chain([300_000]).collect()
}

/// A model whose tensors are in the order of their names.
fn model() -> Model {
    let tensors: Vec<_> = (sizes().into_iter().enumerate())
        .map(|(number, size)| Expected::of_bytes(name_of(number), size, number as u64))
        .collect();
    Model::of(&tensors)
}

fn name_of(number: usize) -> String {
    format!("t{number:02}")
}

/// A model in a file.
struct OnDisk {
    model: Model,
    directory: TempDir,
}

impl OnDisk {
    fn new() -> Self {
        let on_disk = Self { model: model(), directory: tempfile::tempdir().unwrap() };
        std::fs::write(on_disk.path(), &on_disk.model.file).unwrap();
        on_disk
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("model.safetensors")
    }

    fn is_right(&self, tensor: &Tensor) -> bool {
        tensor.bytes() == self.model.tensors[tensor.name()].bytes
    }
}

/// In the order of the file.
fn names(model: &Model) -> Vec<String> {
    model.tensors.keys().cloned().collect()
}

fn shuffled(model: &Model, seed: u64) -> Vec<String> {
    let mut names = names(model);
    fastrand::Rng::with_seed(seed).shuffle(&mut names);
    names
}

/// As a model builder asks: the last tensor early, and each layer in an order of its own.
fn as_built(model: &Model) -> Vec<String> {
    let all = names(model);
    let (first, rest) = all.split_first().unwrap();
    let (last, layers) = rest.split_last().unwrap();
    let mut order = vec![first.clone(), last.clone()];
    for layer in layers.chunks(7) {
        order.extend([3, 0, 5, 1, 4, 2, 6].map(|at| layer[at].clone()));
    }
    order
}

/// The least limit, one that holds a few layers, and one that holds all.
const LIMITS: [MemoryLimit; 4] = [
    MemoryLimit::Bytes(310_000),
    MemoryLimit::Bytes(900_000),
    MemoryLimit::Bytes(8 << 20),
    MemoryLimit::Unlimited,
];

fn get_all(tensors: &NamedTensors, order: &[String], on_disk: &OnDisk) {
    for name in order {
        let tensor = tensors.get(name).unwrap();
        assert_eq!(tensor.name(), name);
        assert!(on_disk.is_right(&tensor), "{name} is wrong");
    }
}

#[test]
fn a_stream_yields_any_order_of_names_under_any_limit() {
    let on_disk = OnDisk::new();
    for (seed, limit) in (0..3).flat_map(|seed| LIMITS.map(|limit| (seed, limit))) {
        let mut wanted =
            if seed == 0 { as_built(&on_disk.model) } else { shuffled(&on_disk.model, seed) };
        let order = Order::names(&wanted[..wanted.len() - 20]);
        // Those that are not named follow in the order of the file.
        let named = wanted.len() - 20;
        wanted[named..].sort_by_key(|name| name[1..].parse::<usize>().unwrap());
        let limited = Loader::new().memory_limit(limit).order(order);
        let stream = limited.stream(on_disk.path()).unwrap();
        let mut found = Vec::new();
        for tensor in stream {
            let tensor = tensor.unwrap();
            assert!(on_disk.is_right(&tensor));
            found.push(tensor.name().to_owned());
        }
        assert_eq!(found, wanted, "{limit:?}");
    }
}

/// All tensors of a layer are one range of the file, so a request brings them all, also where the layer
/// is yielded in another order.
#[test]
fn an_order_of_names_costs_few_requests() {
    let model = model();
    for limit in [MemoryLimit::Bytes(1_200_000), MemoryLimit::Unlimited] {
        let requests = |order: Order| {
            let server = model.serve(|_, request| request.right());
            let loader = loader().memory_limit(limit).order(order);
            model.load(&loader, &server.url()).unwrap();
            server.seen().len()
        };
        let (plain, named) = (requests(Order::File), requests(Order::names(as_built(&model))));
        assert!(named <= 2 * plain + 12, "{named} requests instead of {plain}, {limit:?}");
    }
}

#[test]
fn names_that_cannot_be_are_errors_before_anything_is_read() {
    let model = model();
    let server = model.serve(|_, _| panic!("bytes of tensors were requested"));
    let refused = |loader: Loader| loader.stream(server.url().as_str()).map(drop).unwrap_err();
    let order = |names: &[&str]| loader().order(Order::names(names.iter().copied()));
    let absent = refused(order(&["t01", "nothing"]));
    assert_eq!(absent.kind(), ErrorKind::NotFound, "{absent}");
    let twice = refused(order(&["t01", "t02", "t01"]));
    assert_eq!(twice.kind(), ErrorKind::InvalidInput, "{twice}");
    assert!(twice.to_string().contains("\"t01\""), "{twice}");
    let left_out = refused(order(&["t01", "t02"]).names(["t01"]));
    assert_eq!(left_out.kind(), ErrorKind::NotFound, "{left_out}");
}

/// A SHA-256 is computed from front to back, so what comes early has to be kept.
#[test]
fn an_order_that_checksums_forbid_names_the_tensor_and_a_limit_that_does() {
    let on_disk = OnDisk::new();
    let sum = Command::new("sha256sum").arg(on_disk.path()).output().unwrap();
    std::fs::write(on_disk.path().with_extension("safetensors.sha256"), sum.stdout).unwrap();
    let wanted = as_built(&on_disk.model);
    let verified = |limit| Loader::new().verify(true).memory_limit(limit);
    let ordered = |limit| verified(limit).order(Order::names(&wanted));
    let error = ordered(MemoryLimit::Bytes(900_000)).stream(on_disk.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
    assert!(error.to_string().contains(&format!("{:?}", wanted[1])), "{error}");
    let whole = MemoryLimit::Bytes(on_disk.model.file.len() as u64 + (1 << 20));
    let found =
        ordered(whole).stream(on_disk.path()).unwrap().map(|it| it.unwrap().name().to_owned());
    assert_eq!(found.collect::<Vec<_>>(), wanted);

    let tensors = verified(MemoryLimit::Bytes(900_000)).by_name(on_disk.path()).unwrap();
    let error = tensors.get(&wanted[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
    assert!(error.to_string().contains(&format!("{:?}", wanted[1])), "{error}");
    get_all(&tensors, &names(&on_disk.model), &on_disk);
    assert_eq!(tensors.finish().unwrap().verified_against.len(), 1);
}

#[test]
fn any_order_of_asking_gets_every_tensor_under_any_limit() {
    let on_disk = OnDisk::new();
    for (seed, limit) in (0..4).flat_map(|seed| LIMITS.map(|limit| (seed, limit))) {
        let order = match seed {
            0 => as_built(&on_disk.model),
            1 => names(&on_disk.model).into_iter().rev().collect(),
            _ => shuffled(&on_disk.model, seed),
        };
        let tensors = Loader::new().memory_limit(limit).by_name(on_disk.path()).unwrap();
        get_all(&tensors, &order, &on_disk);
        let summary = tensors.finish().unwrap();
        assert_eq!(summary.tensors, order.len());
        if let MemoryLimit::Bytes(most) = limit {
            assert!(summary.ring_bytes <= most + (8 << 10), "{} of {most}", summary.ring_bytes);
        }
    }
}

/// Without a limit that matters, no order costs a request more than a stream.
#[test]
fn asking_by_name_costs_no_requests_without_a_limit() {
    let model = model();
    let ranges = |requests: Vec<Request>| -> BTreeSet<_> {
        requests.iter().filter_map(Request::range).collect()
    };
    let server = model.serve(|_, request| request.right());
    model.load(&loader(), &server.url()).unwrap();
    let plain = ranges(server.seen());
    let server = model.serve(|_, request| request.right());
    let tensors = loader().by_name(server.url().as_str()).unwrap();
    for name in shuffled(&model, 3) {
        assert!(tensors.get(&name).unwrap().bytes() == model.tensors[&name].bytes);
    }
    let summary = tensors.finish().unwrap();
    assert_eq!(ranges(server.seen()).len(), plain.len());
    assert_eq!(summary.read_bytes.values().sum::<u64>(), summary.bytes, "nothing is read twice");
}

/// Under a limit, the last tensor costs one restart, and the layers none.
#[test]
fn a_builder_under_a_limit_reads_little_twice() {
    let model = model();
    let server = model.serve(|_, request| request.right());
    let limited = loader().memory_limit(MemoryLimit::Bytes(1_200_000));
    let tensors = limited.by_name(server.url().as_str()).unwrap();
    for name in as_built(&model) {
        assert!(tensors.get(&name).unwrap().bytes() == model.tensors[&name].bytes);
    }
    let summary = tensors.finish().unwrap();
    let read = summary.read_bytes.values().sum::<u64>();
    assert!(read <= summary.bytes + 2 * 1_200_000, "{read} bytes read for {}", summary.bytes);
    // With the order told beforehand, nothing is read twice.
    let foreseen = limited.order(Order::names(as_built(&model)));
    let tensors = foreseen.by_name(server.url().as_str()).unwrap();
    for name in as_built(&model) {
        assert!(tensors.get(&name).unwrap().bytes() == model.tensors[&name].bytes);
    }
    let summary = tensors.finish().unwrap();
    assert_eq!(summary.read_bytes.values().sum::<u64>(), summary.bytes);
}

/// A model with 14 layers, whose file is sorted by name, as savers write it: layer 10 follows layer 1, and
/// the norm and the head are at its ends.
fn sorted_model() -> Model {
    let parts = [("down", 60_000), ("gate", 60_000), ("norm", 100), ("q", 30_000), ("up", 60_000)];
    let layers = (0..14)
        .flat_map(|layer| parts.map(|(part, size)| (format!("model.layers.{layer}.{part}"), size)));
    let others = [("lm_head", 300_000), ("model.embed", 300_000), ("model.norm", 100)];
    let others = others.map(|(name, size)| (name.to_owned(), size));
    let mut tensors: Vec<_> = layers.chain(others).collect();
    tensors.sort();
    let tensors = (1..).zip(tensors);
    let tensors: Vec<_> =
        tensors.map(|(seed, (name, size))| Expected::of_bytes(name, size, seed)).collect();
    Model::of(&tensors)
}

/// Gets the tensors in this order, and returns how many bytes were read twice.
fn read_twice(model: &Model, limit: u64, order: &[String]) -> u64 {
    let server = model.serve(|_, request| request.right());
    let limited = loader().memory_limit(MemoryLimit::Bytes(limit));
    let tensors = limited.by_name(server.url().as_str()).unwrap();
    for name in order {
        assert!(tensors.get(name).unwrap().bytes() == model.tensors[name].bytes, "{name}");
    }
    let summary = tensors.finish().unwrap();
    assert_eq!(summary.tensors, order.len());
    summary.read_bytes.values().sum::<u64>() - summary.bytes
}

/// Under a limit, a builder took 1.5 times as long as a stream: the load read ahead in the order of the
/// file, where layer 10 follows layer 1, and at each jump threw away what it had read.
#[test]
fn a_builder_that_asks_layer_by_layer_reads_nothing_twice() {
    let model = sorted_model();
    let layer = |layer: usize| {
        ["q", "up", "gate", "norm", "down"].map(|part| format!("model.layers.{layer}.{part}"))
    };
    let first = ["model.embed", "lm_head", "model.norm"].map(str::to_owned);
    let order: Vec<_> = first.into_iter().chain((0..14).flat_map(layer)).collect();
    // Three layers and a half, with pages that are read twice at the ends of layers.
    assert!(read_twice(&model, 740_000, &order) <= 14 * 2 * 4096);
    // One that goes through the file is noticed at its first jump.
    let in_file: Vec<_> = model.tensors.keys().cloned().collect();
    let twice = read_twice(&model, 740_000, &in_file);
    assert!(twice <= 740_000 + 14 * 2 * 4096, "{twice} bytes were read twice");
    // Little more than the largest tensor, which is given up once.
    let twice = read_twice(&model, 320_000, &order);
    assert!(twice <= 2 * 320_000, "{twice} bytes were read twice");
}

/// What was read ahead stays in memory when the load is restarted.
#[test]
fn a_jump_keeps_what_was_read_ahead() {
    let model = model();
    let mut order = names(&model);
    let late = order.remove(60);
    order.insert(3, late);
    let twice = read_twice(&model, 1_200_000, &order);
    assert!(twice <= 300_000, "{twice} bytes were read twice");
}

/// `finish` of a load with checks reads what nobody asked for. After several jumps in a row, the load
/// had one tensor only, and the others were not checked.
#[test]
fn what_nobody_asks_for_is_checked_after_jumps() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let (right, wrong) =
        (1.0_f32.to_le_bytes().repeat(50_000), f32::NAN.to_le_bytes().repeat(50_000));
    let view = |bytes: &'static [u8]| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![bytes.len() / 4], bytes)
    };
    let (right, wrong): (&[u8], &[u8]) = (right.leak(), wrong.leak());
    let tensors = (0..20).map(|number| (name_of(number), if number == 11 { wrong } else { right }));
    let tensors = tensors.map(|(name, bytes)| (name, view(bytes).unwrap()));
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let limited = Loader::new().memory_limit(MemoryLimit::Bytes(450_000)).check_finite(true);
    let tensors = limited.by_name(&path).unwrap();
    for number in [19, 3, 16, 7, 14, 1] {
        tensors.get(&name_of(number)).unwrap();
    }
    let error = tensors.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFinite, "{error}");
    assert!(error.to_string().contains("t11"), "{error}");
}

#[test]
fn tensors_are_handed_out_once_and_names_that_are_none_are_errors() {
    let on_disk = OnDisk::new();
    for limit in LIMITS {
        let selected = Loader::new().memory_limit(limit).tensors(["t1*"]);
        let tensors = selected.by_name(on_disk.path()).unwrap();
        assert!(on_disk.is_right(&tensors.get("t12").unwrap()));
        let kind = |name: &str| tensors.get(name).unwrap_err().kind();
        assert_eq!(kind("t12"), ErrorKind::InvalidInput);
        assert_eq!(kind("t02"), ErrorKind::NotFound);
        assert_eq!(kind("nothing"), ErrorKind::NotFound);
        assert!(tensors.contains("t02") && !tensors.contains("nothing"));
        assert!(on_disk.is_right(&tensors.get("t11").unwrap()));
    }
}

#[test]
fn a_caller_that_holds_all_memory_gets_an_error_in_time() {
    let on_disk = OnDisk::new();
    let limited = Loader::new().memory_limit(MemoryLimit::Bytes(500_000));
    let tensors = limited.hold_timeout(Duration::from_millis(600)).by_name(on_disk.path()).unwrap();
    let held = tensors.get("t00").unwrap();
    let error: Error = in_time("asking for more", move || tensors.get("t85").unwrap_err());
    assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
    assert!(on_disk.is_right(&held));
}

/// Threads ask for tensors that are beyond the ring of each other.
#[test]
fn several_threads_ask_at_once() {
    let on_disk = OnDisk::new();
    for limit in LIMITS {
        let limit = match limit {
            // Each thread holds one while another waits.
            MemoryLimit::Bytes(bytes) => MemoryLimit::Bytes(bytes + 900_000),
            other => other,
        };
        let tensors = Loader::new().memory_limit(limit).by_name(on_disk.path()).unwrap();
        let (order, next) = (shuffled(&on_disk.model, 7), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(name) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        assert!(on_disk.is_right(&tensors.get(name).unwrap()), "{name}");
                    }
                });
            }
        });
        assert_eq!(tensors.summary().tensors, order.len());
    }
}

#[test]
fn futures_that_are_dropped_lose_no_tensor() {
    let on_disk = OnDisk::new();
    for limit in LIMITS {
        let tensors = Loader::new().memory_limit(limit).by_name(on_disk.path()).unwrap();
        for (number, name) in shuffled(&on_disk.model, 5).iter().enumerate() {
            let mut dropped = tensors.get_async(name).boxed();
            let polled = dropped.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop(dropped);
            match polled {
                std::task::Poll::Ready(tensor) => assert!(on_disk.is_right(&tensor.unwrap())),
                _ if number % 3 == 0 => {} // asked for later
                _ => assert!(on_disk.is_right(&tensors.get(name).unwrap())),
            }
        }
    }
}
