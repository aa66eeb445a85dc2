//! The tables of `perf/PLAN.md`, from the loads that are listed here.

use super::constants::Constants;
use super::forecast::Forecast;
use super::load::{Load, Preset, Share, Source};
use super::stages::MIB;
use super::time;
use crate::blocks::Block;
use anyhow::Result;
use ringload_measure::table::{markdown, number};

/// The constants that differ from those of a preset.
type Edits<'a> = &'a [(&'a str, f64)];

const RING: (&str, f64) = ("ring_mib", 2048.0);
/// With [`RING`], enough for 400 Gb/s of a store, for each of eight processes.
const CONNECTIONS: (&str, f64) = ("connections", 256.0);
const PREFIXES: (&str, f64) = ("store_prefixes", 1000.0);
/// A ring that is pinned while it fills: nothing waits for it.
const PINNED: (&str, f64) = ("pinning_seconds_per_gb", 1e-6);

/// All tables.
///
/// # Errors
/// If a constant that is named here does not exist.
pub fn blocks() -> Result<Vec<Block>> {
    Ok(vec![
        ("constants", constants()),
        ("gpu", gpu()?),
        ("node", node()?),
        ("ring", ring()?),
        ("cores", cores()),
        ("fleet", fleet()?),
        ("changes", changes()?),
    ])
}

fn constants() -> String {
    let row = |(name, value, origin): (&str, f64, &str)| {
        let value = if value.is_finite() { number(value) } else { "none".to_owned() };
        vec![name.to_owned(), value, origin.to_owned()]
    };
    let rows: Vec<_> = Constants::default().list().into_iter().map(row).collect();
    markdown(&["constant", "DGX H200", "origin"], &rows)
}

fn forecast(preset: Preset, edits: Edits<'_>, load: &Load) -> Result<Forecast> {
    Ok(Forecast::of(&preset.constants().with(edits)?, load))
}

/// A table of the rows' name, edits and load.
fn forecasts(head: &str, preset: Preset, rows: &[(&str, Edits<'_>, Load)]) -> Result<String> {
    let row = |(name, edits, load): &(&str, Edits<'_>, Load)| {
        let forecast = forecast(preset, edits, load)?;
        Ok(vec![
            (*name).to_owned(),
            time(forecast.seconds),
            number(forecast.gb_per_second),
            forecast.bottleneck.to_owned(),
        ])
    };
    let rows = rows.iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(markdown(&[head, "time", "GB/s a node", "limited by"], &rows))
}

fn gpu() -> Result<String> {
    let of = |source| Preset::OneH200.load_from(source);
    let large = [("ring_mib", 4096.0), ("connections", 512.0)];
    forecasts(
        "100 GB to one H200 (16 cores)",
        Preset::OneH200,
        &[
            ("one NVMe drive, 6.5 GB/s", &[], of(Source::Disk)),
            ("an array of 52 GB/s", &[("disk_gb_per_second", 52.0)], of(Source::Disk)),
            ("page cache or tmpfs", &[], of(Source::PageCache)),
            ("S3 by TLS, 100 Gb/s, as it is", &[], of(Source::Https)),
            ("the same, ring of 4 GiB, 512 connections", &large, of(Source::Https)),
        ],
    )
}

fn node() -> Result<String> {
    let of = |source| Preset::DgxH200.load_from(source);
    let disk = |share| Load { share, ..of(Source::Disk) };
    let enough = [RING, CONNECTIONS, PREFIXES];
    forecasts(
        "700 GB to 8 H200",
        Preset::DgxH200,
        &[
            ("NVMe, each GPU its own part", &[], disk(Share::Own)),
            ("NVMe, parts exchanged between the GPUs", &[], disk(Share::Exchange)),
            ("NVMe, every process reads everything", &[], disk(Share::Everything)),
            ("page cache or tmpfs, own parts", &[], of(Source::PageCache)),
            ("the local file cache, own parts", &[], of(Source::Cache)),
            ("S3 by TLS, as it is", &[PREFIXES], of(Source::Https)),
            ("S3, rings of 2 GiB, 256 connections each", &enough, of(Source::Https)),
        ],
    )
}

fn ring() -> Result<String> {
    let near = [("store_latency_seconds", 0.005), ("store_connection_gb_per_second", 0.5)];
    let row = |mib: f64| {
        let ring = ("ring_mib", mib);
        let wide = [("connections", 4096.0), ("in_flight_mib", 4096.0), PREFIXES, ring];
        let cell = |edits: Edits<'_>, source| -> Result<String> {
            let edits: Vec<_> = wide.iter().chain(edits).copied().collect();
            Ok(time(forecast(Preset::DgxH200, &edits, &Preset::DgxH200.load_from(source))?.seconds))
        };
        Ok(vec![
            format!("{mib:.0} MiB"),
            format!("{} GiB", number(mib * 8.0 / 1024.0)),
            cell(&[], Source::Disk)?,
            cell(&near, Source::Https)?,
            cell(&[], Source::Https)?,
        ])
    };
    let rows = [8.0, 128.0, 256.0, 1024.0, 2048.0, 4096.0].map(row);
    let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    let head =
        ["ring of each of 8", "pinned", "NVMe, 0.1 ms", "store of 5 ms, 0.5 GB/s", "S3, 100 ms"];
    Ok(markdown(&head, &rows))
}

fn cores() -> String {
    let all = Constants::default();
    let direct = all.direct_cpu_seconds_per_gb;
    let reads = all.read_cpu_seconds * 1e9 / (all.chunk_mib * MIB);
    let rows = [
        ("direct reads, at 8 MiB each", direct + reads),
        ("local file cache", direct + reads + all.cache_cpu_seconds_per_gb),
        ("page cache or tmpfs", all.page_cache_cpu_seconds_per_gb),
        ("http", all.http_cpu_seconds_per_gb),
        ("https", all.https_cpu_seconds_per_gb),
    ];
    let rows = rows.map(|(name, cost)| {
        let figures = [cost, 12.5 * cost, 50.0 * cost, all.engines / cost];
        std::iter::once(name.to_owned()).chain(figures.map(number)).collect()
    });
    let head = ["path", "CPU-s/GB", "cores at 100 Gb/s", "cores at 400 Gb/s", "GB/s of 16 engines"];
    markdown(&head, &rows)
}

fn fleet() -> Result<String> {
    let of = |source| Preset::Fleet.load_from(source);
    let quota = ("store_gb_per_second", 25.0);
    forecasts(
        "1,000 nodes, 700 GB each, at once",
        Preset::Fleet,
        &[
            ("one prefix of one bucket", &[RING, CONNECTIONS], of(Source::Https)),
            (
                "1,000 prefixes' worth of requests",
                &[RING, CONNECTIONS, PREFIXES],
                of(Source::Https),
            ),
            (
                "the same, a store of 200 Gb/s in all",
                &[RING, CONNECTIONS, PREFIXES, quota],
                of(Source::Https),
            ),
            ("local file cache, filled before", &[], of(Source::Cache)),
            (
                "node to node, the store read once, one prefix",
                &[RING, CONNECTIONS],
                of(Source::Peers),
            ),
            (
                "the same, a store of 200 Gb/s in all",
                &[RING, CONNECTIONS, PREFIXES, quota],
                of(Source::Peers),
            ),
        ],
    )
}

fn changes() -> Result<String> {
    let disk = &Preset::DgxH200.load();
    let s3 = &Preset::DgxH200.load_from(Source::Https);
    let one = &Load { processes: 1, ..s3.clone() };
    let cached = &Load { source: Source::PageCache, ..one.clone() };
    let alone = [PREFIXES, ("ring_mib", 16384.0), ("connections", 2048.0)];
    let engines = ("engines", 112.0);
    let more = [alone[0], alone[1], alone[2], engines];
    let in_parts = [alone[0], alone[1], alone[2], engines, PINNED];
    let tls = [
        alone[0],
        alone[1],
        alone[2],
        ("https_cpu_seconds_per_gb", Constants::default().http_cpu_seconds_per_gb),
    ];
    let gds = [("direct_memory_passes", 1e-6), PINNED];
    // A name, a load, and the edits before and after.
    let rows: [(&str, &Load, Edits<'_>, Edits<'_>); 7] = [
        ("S3: rings of 2 GiB instead of 256 MiB", s3, &[PREFIXES], &[PREFIXES, RING]),
        (
            "S3: 256 connections a process, with those",
            s3,
            &[PREFIXES, RING],
            &[PREFIXES, RING, CONNECTIONS],
        ),
        ("S3, one process: TLS at the cost of http", one, &alone, &tls),
        ("S3, one process: engines beyond 16", one, &alone, &more),
        ("S3, those engines: the ring pinned as it fills", one, &more, &in_parts),
        ("page cache, one process: engines beyond 16", cached, &[], &[engines]),
        ("NVMe: GDS instead of the ring", disk, &[], &gds),
    ];
    let row = |(name, load, before, after): (&str, &Load, Edits<'_>, Edits<'_>)| {
        let before = forecast(Preset::DgxH200, before, load)?;
        let after = forecast(Preset::DgxH200, after, load)?;
        Ok(vec![
            name.to_owned(),
            time(before.seconds),
            time(after.seconds),
            format!("{} x", number(before.seconds / after.seconds)),
            after.bottleneck.to_owned(),
        ])
    };
    let rows = rows.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(markdown(&["700 GB on a DGX H200", "before", "after", "gain", "then limited by"], &rows))
}
