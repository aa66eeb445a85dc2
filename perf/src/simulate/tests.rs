//! Tests of the simulation against closed formulas and against itself.

use super::constants::Constants;
use super::forecast::{Forecast, elasticities, numbers, with};
use super::pipeline;
use super::scenario::{Destination, Preset, Scenario, Share, Source};
use super::stages::{Demand, Stage};
use super::{origins, plan};
use crate::blocks;
use fastrand::Rng;

pub(super) const MIB: f64 = 1_048_576.0;

/// Constants with which nothing takes time.
fn free() -> Constants {
    let mut constants = Constants::dgx_h200();
    for (path, _) in numbers(&constants).unwrap() {
        let value = match path.as_str() {
            path if path.ends_with("gb_per_second") => 1e9,
            path if path.contains("requests_per_second") => 1e12,
            path if path.starts_with("costs.") || path.ends_with("latency_seconds") => 1e-15,
            _ => continue,
        };
        constants = with(&constants, &path, value).unwrap();
    }
    constants
}

fn to_one_gpu(source: Source, gb: f64) -> Scenario {
    Scenario { source, model_bytes: gb * 1e9, ..Preset::OneH200.scenario() }
}

pub(super) fn assert_close(seconds: f64, expected: f64, tolerance: f64) {
    let error = (seconds / expected - 1.0).abs();
    assert!(error < tolerance, "{seconds} s instead of {expected} s");
}

#[test]
fn a_disk_alone_gives_its_bandwidth() {
    let mut constants = free();
    constants.hardware.disk_gb_per_second = 5.0;
    let forecast = Forecast::of(&constants, &to_one_gpu(Source::Disk, 10.0));
    assert_close(forecast.seconds, 2.0, 1e-6);
    assert_eq!(forecast.bottleneck, Stage::Disk);
}

#[test]
fn a_gpu_alone_gives_its_links_bandwidth() {
    let mut constants = free();
    constants.hardware.gpu_copy_gb_per_second = 50.0;
    let forecast = Forecast::of(&constants, &to_one_gpu(Source::Disk, 10.0));
    assert_close(forecast.seconds, 0.2, 1e-6);
    assert_eq!(forecast.bottleneck, Stage::GpuCopy);
}

#[test]
fn a_small_ring_gives_itself_once_a_latency() {
    // Little: what is on its way is the rate times the latency. 64 MiB in 0.1 s.
    let mut constants = free();
    constants.design.ring_bytes = 64.0 * MIB;
    constants.store.latency_seconds = 0.1;
    let scenario = to_one_gpu(Source::Http, 64.0 * MIB / 1e9 * 50.0);
    let forecast = Forecast::of(&constants, &scenario);
    // And twice a latency to open.
    assert_close(forecast.seconds, 50.0 * 0.1 + 0.2, 1e-6);
    assert!(matches!(forecast.bottleneck, Stage::Ring | Stage::Connections));
}

#[test]
fn connections_alone_give_their_number_times_one() {
    let mut constants = free();
    constants.store.connection_gb_per_second = 0.1;
    constants.design.ring_bytes = 1024.0 * MIB;
    constants.design.connections = 20.0;
    let forecast = Forecast::of(&constants, &to_one_gpu(Source::Http, 20.0));
    assert_close(forecast.seconds, 10.0, 0.01); // the last round is not full
    assert_eq!(forecast.bottleneck, Stage::Connections);
}

#[test]
fn one_core_gives_a_gb_for_its_cost() {
    let mut constants = free();
    constants.hardware.cores = 1.0;
    constants.costs.https_cpu_seconds_per_gb = 0.5;
    let forecast = Forecast::of(&constants, &to_one_gpu(Source::Https, 10.0));
    assert_close(forecast.seconds, 5.0, 1e-6);
    assert_eq!(forecast.bottleneck, Stage::Engines);
}

#[test]
fn a_ring_is_held_until_the_copy_is_done() {
    // One slot: reading and copying take turns. Many: they overlap.
    let mut constants = free();
    constants.hardware.disk_gb_per_second = 10.0;
    constants.hardware.gpu_copy_gb_per_second = 10.0;
    constants.design.chunk_bytes_least = 8.0 * MIB;
    let seconds =
        |constants: &Constants| Forecast::of(constants, &to_one_gpu(Source::Disk, 10.0)).seconds;
    constants.design.ring_bytes = 8.0 * MIB;
    assert_close(seconds(&constants), 2.0, 1e-6);
    constants.design.ring_bytes = 16.0 * MIB;
    assert_close(seconds(&constants), 1.0, 0.01);
}

#[test]
fn gpus_of_a_node_share_its_disks() {
    let mut constants = free();
    constants.hardware.disk_gb_per_second = 40.0;
    let scenario = |processes| Scenario {
        processes,
        share: Share::Everything,
        ..to_one_gpu(Source::Disk, 10.0)
    };
    let seconds = |processes| Forecast::of(&constants, &scenario(processes)).seconds;
    assert_close(seconds(8) / seconds(1), 8.0, 1e-6);
    let own = Scenario { share: Share::Own, ..scenario(8) };
    assert_close(Forecast::of(&constants, &own).seconds, seconds(1), 1e-6);
}

#[test]
fn nodes_share_a_store_but_not_their_caches() {
    let mut constants = free();
    constants.store.total_gb_per_second = Some(100.0);
    constants.hardware.disk_gb_per_second = 10.0;
    let seconds = |source, nodes| {
        let scenario = Scenario { nodes, ..to_one_gpu(source, 10.0) };
        Forecast::of(&constants, &scenario).seconds
    };
    assert_close(seconds(Source::Http, 1000.0), 1000.0 * 10.0 / 100.0, 1e-6);
    assert_close(seconds(Source::Cache, 1000.0), 1.0, 1e-6);
    // From each other: the store gives the model once.
    assert!(seconds(Source::Peers, 1000.0) < 0.2);
}

#[test]
fn a_prefix_gives_so_many_requests() {
    let mut constants = free();
    constants.store.requests_per_second_per_prefix = 100.0;
    let scenario = Scenario { nodes: 10.0, ..to_one_gpu(Source::Http, 800.0 * MIB / 1e9) };
    // 100 ranges of 8 MiB on each of 10 nodes.
    assert_close(Forecast::of(&constants, &scenario).seconds, 10.0, 0.01);
}

#[test]
fn a_gpus_context_is_made_while_the_ring_fills() {
    let mut constants = free();
    constants.costs.gpu_context_seconds = 0.4;
    constants.hardware.disk_gb_per_second = 10.0;
    let seconds = |gb, ring| {
        let mut constants = constants.clone();
        constants.design.ring_bytes = ring;
        Forecast::of(&constants, &to_one_gpu(Source::Disk, gb)).seconds
    };
    // All of it fits: it was read meanwhile. A ring of 256 MiB has only so much ahead.
    assert_close(seconds(2.0, 4e9), 0.4, 0.01);
    assert_close(seconds(2.0, 256.0 * MIB), 0.4 + (2e9 - 256.0 * MIB) / 10e9, 0.01);
}

#[test]
fn zeroing_that_does_not_overlap_adds_up() {
    let mut constants = Constants::default();
    let scenario =
        Scenario { destination: Destination::Resident, ..Preset::ThisMachine.scenario() };
    constants.costs.process_start_seconds = 0.0;
    // Measured: 3.04 s cold and resident, 2.07 s for the disk alone.
    assert_close(Forecast::of(&constants, &scenario).seconds, 3.04, 0.06);
    constants.hardware.fresh_memory_overlaps_reads = true;
    assert_close(Forecast::of(&constants, &scenario).seconds, 2.07, 0.06);
}

/// A random scenario and random constants, small enough to be simulated in milliseconds.
fn any(rng: &mut Rng) -> (Constants, Scenario) {
    let mut constants = Constants::dgx_h200();
    for (path, value) in numbers(&constants).unwrap() {
        let factor = 4.0_f64.powf(rng.f64() * 2.0 - 1.0);
        constants = with(&constants, &path, value * factor).unwrap();
    }
    constants.store.total_gb_per_second = rng.bool().then(|| 1.0 + 99.0 * rng.f64());
    constants.hardware.fresh_memory_overlaps_reads = rng.bool();
    let sources = [
        Source::Disk,
        Source::PageCache,
        Source::Cache,
        Source::Http,
        Source::Https,
        Source::Peers,
        Source::Loopback,
        Source::LoopbackTls,
    ];
    let gpus = 1 << rng.usize(0..4);
    let scenario = Scenario {
        model_bytes: 1e9 + 4e9 * rng.f64(),
        nodes: f64::from(rng.u32(1..20)),
        processes: if rng.bool() { 1 } else { gpus },
        gpus,
        source: sources[rng.usize(0..sources.len())],
        share: [Share::Own, Share::Exchange, Share::Everything][rng.usize(0..3)],
        destination: [Destination::Gpus, Destination::Stream, Destination::Resident]
            [rng.usize(0..3)],
        verify: rng.bool(),
        fills_cache: rng.bool(),
        cross_socket_share: if rng.bool() { 0.5 } else { 0.0 },
    };
    (constants, scenario)
}

#[test]
fn no_load_is_faster_than_any_stage_and_none_overfills_the_ring() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..200 {
        let (constants, scenario) = any(&mut rng);
        let demand = Demand::of(&constants, &scenario);
        let outcome = pipeline::run(&demand);
        for (stage, seconds) in demand.bounds() {
            let is_below = seconds <= outcome.seconds * (1.0 + 1e-9);
            assert!(is_below, "{stage:?}: {seconds} > {outcome:?} of {scenario:?}");
        }
        let slots = demand.slots.unwrap_or(demand.chunks);
        assert!(outcome.slots_most <= slots, "{outcome:?} of {slots}");
        assert!(outcome.slots_mean <= outcome.slots_most as f64 + 1e-9);
        if let (Some(slots), Destination::Gpus | Destination::Stream) =
            (demand.slots, scenario.destination)
        {
            assert!(
                slots as f64 * demand.chunk_bytes
                    <= constants.design.ring_bytes.max(demand.chunk_bytes)
            );
        }
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
        let (constants, scenario) = any(&mut rng);
        let scenario = Scenario { model_bytes: 400e9, gpus: 1, processes: 1, ..scenario };
        let demand = Demand::of(&constants, &scenario);
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
        let (constants, scenario) = any(&mut rng);
        let before = Forecast::of(&constants, &scenario).seconds;
        for (path, value) in numbers(&constants).unwrap() {
            if path.starts_with("design.chunk") {
                continue; // larger reads are fewer to a ring, and fewer requests: both ways
            }
            let after = with(&constants, &path, value * 1.5).unwrap();
            let after = Forecast::of(&after, &scenario).seconds;
            // What costs more; and a ring that is larger takes longer to pin.
            let is_cost = path.starts_with("costs.") || path.ends_with("latency_seconds");
            let pinning =
                constants.costs.pinning_seconds_per_gb * constants.design.ring_bytes / 1e9;
            let slack = before * 0.01 + if path.starts_with("design.ring") { pinning } else { 0.0 };
            let is_right = if is_cost { after >= before - slack } else { after <= before + slack };
            assert!(is_right, "{path} x 1.5: {before} s, then {after} s, of {scenario:?}");
        }
    }
}

#[test]
fn every_constant_has_an_origin() {
    let mut constants = Constants::default();
    constants.store.total_gb_per_second = None;
    let listed: Vec<_> = origins::HERE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let mut all: Vec<_> = numbers(&constants).unwrap().into_iter().map(|(name, _)| name).collect();
    all.sort();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(sorted, all);
    assert!(origins::DGX.iter().all(|(name, ..)| listed.iter().any(|listed| listed == name)));
    // Constants without a separate value are the same on both machines.
    let dgx = numbers(&Constants::dgx_h200()).unwrap();
    for ((name, here), (_, there)) in std::iter::zip(numbers(&constants).unwrap(), dgx) {
        let is_listed = origins::DGX.iter().any(|(listed, ..)| *listed == name);
        assert_eq!(is_listed, here != there, "{name}");
    }
}

#[test]
fn constants_that_are_none_are_refused() {
    let constants = Constants::default();
    for (path, value) in [("hardware.discs", 1.0), ("disk", 1.0), ("hardware.cores", 0.0)] {
        assert!(with(&constants, path, value).is_err(), "{path}");
    }
    assert!(with(&constants, "hardware.fresh_memory_overlaps_reads", 1.0).is_err());
    assert!(with(&constants, "hardware.cores", f64::NAN).is_err());
    let limited = with(&constants, "store.total_gb_per_second", 25.0).unwrap();
    assert_eq!(limited.store.total_gb_per_second, Some(25.0));
}

#[test]
fn what_limits_is_what_moves_it() {
    let scenario = Preset::ThisMachine.scenario();
    let all = elasticities(&Constants::default(), &scenario).unwrap();
    assert_eq!(all[0].constant, "hardware.disk_gb_per_second");
    assert!((-0.5..-0.45).contains(&all[0].change), "{all:?}");
}

#[test]
fn the_plan_says_what_the_simulation_says() {
    let file = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/PLAN.md"));
    let stale = blocks::stale(file, &plan::blocks().unwrap()).unwrap();
    assert!(stale.is_empty(), "old blocks: {stale:?}; run `ringload-perf simulate --plan --into`");
}
