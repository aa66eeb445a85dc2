//! Tests of the simulation against closed formulas and against itself.

use super::constants::Constants;
use super::forecast::Forecast;
use super::load::{Load, Preset, Share, Source};
use super::pipeline;
use super::plan;
use super::stages::{Demand, MIB, Stage};
use crate::blocks;
use fastrand::Rng;

/// Constants with which nothing takes time.
fn free() -> Constants {
    let value = |name: &str| match name {
        _ if name.ends_with("gb_per_second") => Some(1e9),
        _ if name.contains("requests_per_second") => Some(1e12),
        _ if is_cost(name) => Some(1e-15),
        _ => None,
    };
    let all = Constants::default();
    let names = all.list().into_iter().map(|(name, ..)| name);
    let values: Vec<_> = names.filter_map(|name| Some((name, value(name)?))).collect();
    all.with(&values).unwrap()
}

/// Whether more of a constant makes a load slower.
fn is_cost(name: &str) -> bool {
    name.contains("seconds") || name.contains("passes")
}

fn to_one_gpu(source: Source, gb: f64) -> Load {
    Load { source, model_bytes: gb * 1e9, ..Preset::OneH200.load() }
}

fn assert_close(seconds: f64, expected: f64, tolerance: f64) {
    let error = (seconds / expected - 1.0).abs();
    assert!(error < tolerance, "{seconds} s instead of {expected} s");
}

/// The source, the GB, the constants that count, the seconds, their tolerance, and the stages that may
/// be the bottleneck.
type StageCase = (Source, f64, &'static [(&'static str, f64)], f64, f64, &'static [Stage]);

#[test]
fn a_stage_alone_takes_what_its_formula_says() {
    let ring = 64.0 * MIB / 1e9;
    let cases: [StageCase; 5] = [
        (Source::Disk, 10.0, &[("disk_gb_per_second", 5.0)], 2.0, 1e-6, &["disk"]),
        (Source::Disk, 10.0, &[("gpu_copy_gb_per_second", 50.0)], 0.2, 1e-6, &["GPU copies"]),
        // Little's law: what is on its way is the rate times the latency. The ring takes one latency
        // each time, and opening takes two.
        (
            Source::Http,
            ring * 50.0,
            &[("ring_mib", 64.0), ("store_latency_seconds", 0.1)],
            50.0 * 0.1 + 0.2,
            1e-6,
            &["ring", "reads in flight"],
        ),
        // The last round of the connections is not full.
        (
            Source::Http,
            20.0,
            &[("store_connection_gb_per_second", 0.1), ("ring_mib", 1024.0), ("connections", 20.0)],
            10.0,
            0.01,
            &["reads in flight"],
        ),
        (
            Source::Https,
            10.0,
            &[("cores", 1.0), ("https_cpu_seconds_per_gb", 0.5)],
            5.0,
            1e-6,
            &["engines"],
        ),
    ];
    for (source, gb, edits, seconds, tolerance, stages) in cases {
        let forecast = Forecast::of(&free().with(edits).unwrap(), &to_one_gpu(source, gb));
        assert_close(forecast.seconds, seconds, tolerance);
        assert!(stages.contains(&forecast.bottleneck), "{forecast:?}");
    }
}

#[test]
fn a_ring_is_held_until_the_copy_is_done() {
    // One slot: reading and copying take turns. Many: they overlap.
    let mut constants = free();
    constants.disk_gb_per_second = 10.0;
    constants.gpu_copy_gb_per_second = 10.0;
    constants.chunk_mib_min = 8.0;
    let seconds =
        |constants: &Constants| Forecast::of(constants, &to_one_gpu(Source::Disk, 10.0)).seconds;
    constants.ring_mib = 8.0;
    assert_close(seconds(&constants), 2.0, 1e-6);
    constants.ring_mib = 16.0;
    assert_close(seconds(&constants), 1.0, 0.01);
}

#[test]
fn gpus_of_a_node_share_its_disks() {
    let mut constants = free();
    constants.disk_gb_per_second = 40.0;
    let load =
        |processes| Load { processes, share: Share::Everything, ..to_one_gpu(Source::Disk, 10.0) };
    let seconds = |processes| Forecast::of(&constants, &load(processes)).seconds;
    assert_close(seconds(8) / seconds(1), 8.0, 1e-6);
    let own = Load { share: Share::Own, ..load(8) };
    assert_close(Forecast::of(&constants, &own).seconds, seconds(1), 1e-6);
}

#[test]
fn nodes_share_a_store_but_not_their_caches() {
    let mut constants = free();
    constants.store_gb_per_second = 100.0;
    constants.disk_gb_per_second = 10.0;
    let seconds = |source, nodes| {
        let load = Load { nodes, ..to_one_gpu(source, 10.0) };
        Forecast::of(&constants, &load).seconds
    };
    assert_close(seconds(Source::Http, 1000.0), 1000.0 * 10.0 / 100.0, 1e-6);
    assert_close(seconds(Source::Cache, 1000.0), 1.0, 1e-6);
    // From each other: the store gives the model once.
    assert!(seconds(Source::Peers, 1000.0) < 0.2);
}

#[test]
fn a_prefix_gives_so_many_requests() {
    let mut constants = free();
    constants.store_requests_per_second_per_prefix = 100.0;
    let load = Load { nodes: 10.0, ..to_one_gpu(Source::Http, 800.0 * MIB / 1e9) };
    // 100 ranges of 8 MiB on each of 10 nodes.
    assert_close(Forecast::of(&constants, &load).seconds, 10.0, 0.01);
}

#[test]
fn a_gpus_context_is_made_while_the_ring_fills() {
    let mut constants = free();
    constants.gpu_context_seconds = 0.4;
    constants.disk_gb_per_second = 10.0;
    let seconds = |gb, ring| {
        let mut constants = constants.clone();
        constants.ring_mib = ring;
        Forecast::of(&constants, &to_one_gpu(Source::Disk, gb)).seconds
    };
    // All of it fits: it was read meanwhile. A ring of 256 MiB has only so much ahead.
    assert_close(seconds(2.0, 4000.0), 0.4, 0.01);
    assert_close(seconds(2.0, 256.0), 0.4 + (2e9 - 256.0 * MIB) / 10e9, 0.01);
}

/// A random load and random constants, small enough to be simulated in milliseconds.
fn any(rng: &mut Rng) -> (Constants, Load) {
    let base = Constants { store_gb_per_second: 1.0 + 99.0 * rng.f64(), ..Constants::default() };
    let scaled = |(name, value, _)| (name, value * 4.0_f64.powf(rng.f64() * 2.0 - 1.0));
    let values: Vec<_> = base.list().into_iter().map(scaled).collect();
    let mut constants = base.with(&values).unwrap();
    if rng.bool() {
        constants.store_gb_per_second = f64::INFINITY;
    }
    let sources = [
        Source::Disk,
        Source::PageCache,
        Source::Cache,
        Source::Http,
        Source::Https,
        Source::Peers,
    ];
    let gpus = 1 << rng.usize(0..4);
    let load = Load {
        model_bytes: 1e9 + 4e9 * rng.f64(),
        nodes: f64::from(rng.u32(1..20)),
        processes: if rng.bool() { 1 } else { gpus },
        gpus,
        source: sources[rng.usize(0..sources.len())],
        share: [Share::Own, Share::Exchange, Share::Everything][rng.usize(0..3)],
    };
    (constants, load)
}

#[test]
fn no_load_is_faster_than_any_stage_and_none_overfills_the_ring() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..200 {
        let (constants, load) = any(&mut rng);
        let demand = Demand::of(&constants, &load);
        let outcome = pipeline::run(&demand);
        for (stage, seconds) in demand.bounds() {
            let is_below = seconds <= outcome.seconds * (1.0 + 1e-9);
            assert!(is_below, "{stage}: {seconds} > {outcome:?} of {load:?}");
        }
        assert!(outcome.slots_most <= demand.slots, "{outcome:?} of {}", demand.slots);
        let ring = demand.slots as f64 * demand.chunk_bytes;
        assert!(ring <= (constants.ring_mib * MIB).max(demand.chunk_bytes));
        // Nor is it much slower than all of them in turn, and a first and a last chunk.
        let turns: f64 = demand.bounds().iter().map(|(_, seconds)| seconds).sum();
        let chunks = demand.chunks as f64;
        assert!(outcome.seconds <= turns * (1.0 + 2.0 / chunks) + 1.0, "{outcome:?}, {turns}");
    }
}

#[test]
fn a_long_load_goes_on_as_it_began() {
    let mut rng = Rng::with_seed(9);
    let mut compared = 0;
    while compared < 10 {
        let (constants, load) = any(&mut rng);
        let load = Load { model_bytes: 400e9, gpus: 1, processes: 1, ..load };
        let demand = Demand::of(&constants, &load);
        if (20_000..100_000).contains(&demand.chunks) {
            assert_close(
                pipeline::run(&demand).seconds,
                pipeline::run_whole(&demand).seconds,
                0.03,
            );
            compared += 1;
        }
    }
}

#[test]
fn more_of_anything_never_takes_longer() {
    let mut rng = Rng::with_seed(8);
    for _ in 0..12 {
        let (constants, load) = any(&mut rng);
        let before = Forecast::of(&constants, &load).seconds;
        for (name, value, _) in constants.list() {
            if name.starts_with("chunk") || value.is_infinite() {
                continue; // larger reads are fewer to a ring, and fewer requests: both ways
            }
            let after = constants.with(&[(name, value * 1.5)]).unwrap();
            let after = Forecast::of(&after, &load).seconds;
            // A ring that is larger takes longer to pin.
            let pinning = constants.pinning_seconds_per_gb * constants.ring_mib * MIB / 1e9;
            let slack = before * 0.01 + if name == "ring_mib" { pinning } else { 0.0 };
            let is_right = match is_cost(name) {
                true => after >= before - slack,
                false => after <= before + slack,
            };
            assert!(is_right, "{name} x 1.5: {before} s, then {after} s, of {load:?}");
        }
    }
}

#[test]
fn every_constant_has_an_origin() {
    for (name, _, origin) in Constants::default().list() {
        let kinds = ["measured: ", "published: ", "assumed: ", "design: "];
        assert!(kinds.iter().any(|kind| origin.starts_with(kind)), "{name}: {origin}");
    }
}

#[test]
fn constants_that_are_none_are_refused() {
    let constants = Constants::default();
    for (name, value) in [("discs", 1.0), ("", 1.0), ("cores", 0.0), ("cores", f64::NAN)] {
        assert!(constants.with(&[(name, value)]).is_err(), "{name}");
    }
    assert_eq!(constants.store_gb_per_second, f64::INFINITY);
    let limited = constants.with(&[("store_gb_per_second", 25.0)]).unwrap();
    assert_eq!(limited, Constants { store_gb_per_second: 25.0, ..constants });
}

#[test]
fn the_plan_says_what_the_simulation_says() {
    let file = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/PLAN.md"));
    let stale = blocks::stale(file, &plan::blocks().unwrap()).unwrap();
    assert!(
        stale.is_empty(),
        "old blocks: {stale:?}; run `ringload-perf simulate --plan perf/PLAN.md`"
    );
}
