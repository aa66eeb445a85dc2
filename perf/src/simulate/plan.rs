//! The tables of `perf/PLAN.md`, from the scenarios that are listed here.

use super::constants::Constants;
use super::forecast::{Forecast, with};
use super::origins;
use super::scenario::{Preset, Scenario, Share, Source};
use super::table::{markdown, number, time};
use anyhow::Result;

const MIB: f64 = 1_048_576.0;

/// The differences from a preset.
type Edits<'a> = &'a [(&'a str, f64)];

/// The ring and connections for 400 Gb/s of a store, for each of eight processes.
const ENOUGH: Edits<'_> = &[("design.ring_bytes", 2048.0 * MIB), ("design.connections", 256.0)];
/// The same on one process.
const ENOUGH_ALONE: Edits<'_> =
    &[("design.ring_bytes", 16384.0 * MIB), ("design.connections", 2048.0)];
const PREFIXES: (&str, f64) = ("store.prefixes", 1000.0);

/// All tables, by the names of their markers.
///
/// # Errors
/// When a constant that is named here does not exist.
pub fn blocks() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("constants", measured_and_published()?),
        ("gpu", gpu()?),
        ("node", node()?),
        ("ring", ring()?),
        ("cores", cores()),
        ("fleet", fleet()?),
        ("changes", changes()?),
    ])
}

/// The constants, except those of the design, which the text describes.
fn measured_and_published() -> Result<String> {
    let all = origins::table(&Constants::default())?;
    Ok(all
        .lines()
        .filter(|line| !line.starts_with("| design."))
        .map(|line| format!("{line}\n"))
        .collect())
}

fn edited(constants: Constants, edits: Edits<'_>) -> Result<Constants> {
    edits.iter().try_fold(constants, |all, (path, value)| with(&all, path, *value))
}

fn forecast(preset: Preset, edits: Edits<'_>, scenario: &Scenario) -> Result<Forecast> {
    Ok(Forecast::of(&edited(preset.constants(), edits)?, scenario))
}

fn line(name: &str, forecast: &Forecast) -> Vec<String> {
    vec![
        name.to_owned(),
        time(forecast.seconds),
        number(forecast.gb_per_second()),
        forecast.bottleneck.name().to_owned(),
    ]
}

fn lines(head: &str, preset: Preset, rows: &[(&str, Edits<'_>, Scenario)]) -> Result<String> {
    let all = rows
        .iter()
        .map(|(name, edits, scenario)| Ok(line(name, &forecast(preset, edits, scenario)?)));
    let all = all.collect::<Result<Vec<_>>>()?;
    Ok(markdown(&[head, "time", "GB/s a node", "limited by"], &all))
}

fn gpu() -> Result<String> {
    let of = |source| Scenario { source, ..Preset::OneH200.scenario() };
    let network = ("hardware.network_gb_per_second", 50.0);
    let ring = |mib: f64| ("design.ring_bytes", mib * MIB);
    let connections = |count| ("design.connections", count);
    let slow = [ring(4096.0), connections(512.0)];
    let fast = [network, ring(12288.0), connections(1536.0)];
    let in_parts = [fast[0], fast[1], fast[2], ("costs.pinning_seconds_per_gb", 1e-6)];
    let disk = "hardware.disk_gb_per_second";
    lines(
        "100 GB to one H200 (16 cores)",
        Preset::OneH200,
        &[
            ("one NVMe drive, 6.5 GB/s", &[], of(Source::Disk)),
            ("an array of 26 GB/s", &[(disk, 26.0)], of(Source::Disk)),
            ("an array of 52 GB/s", &[(disk, 52.0)], of(Source::Disk)),
            ("page cache or tmpfs", &[], of(Source::PageCache)),
            ("S3 by TLS, 100 Gb/s, as it is", &[], of(Source::Https)),
            ("S3 by TLS, 400 Gb/s, as it is", &[network], of(Source::Https)),
            ("100 Gb/s, ring of 4 GiB, 512 connections", &slow, of(Source::Https)),
            ("400 Gb/s, ring of 12 GiB, 1,536 connections", &fast, of(Source::Https)),
            ("the same without TLS", &fast, of(Source::Http)),
            ("the same without TLS, pinned as it fills", &in_parts, of(Source::Http)),
        ],
    )
}

fn node() -> Result<String> {
    let dgx = || Preset::DgxH200.scenario();
    let of = |source| Scenario { source, ..dgx() };
    let one = |source| Scenario { processes: 1, cross_socket_share: 0.5, ..of(source) };
    let enough = [ENOUGH[0], ENOUGH[1], PREFIXES];
    lines(
        "700 GB to 8 H200",
        Preset::DgxH200,
        &[
            ("NVMe, each GPU its own part", &[], dgx()),
            (
                "NVMe, parts exchanged between the GPUs",
                &[],
                Scenario { share: Share::Exchange, ..dgx() },
            ),
            (
                "NVMe, every process reads everything",
                &[],
                Scenario { share: Share::Everything, ..dgx() },
            ),
            ("page cache or tmpfs, own parts", &[], of(Source::PageCache)),
            ("page cache, one process for all GPUs", &[], one(Source::PageCache)),
            ("the local file cache, own parts", &[], of(Source::Cache)),
            ("S3 by TLS, as it is", &[PREFIXES], of(Source::Https)),
            ("S3, rings of 2 GiB, 256 connections each", &enough, of(Source::Https)),
            (
                "the same, checked, and the cache filled",
                &enough,
                Scenario { verify: true, fills_cache: true, ..of(Source::Https) },
            ),
        ],
    )
}

fn ring() -> Result<String> {
    let scenario = |source| Scenario { source, ..Preset::DgxH200.scenario() };
    let cells = |mib: f64, source| -> Result<String> {
        let edits = [
            ("design.ring_bytes", mib * MIB),
            ("design.connections", 4096.0),
            ("design.in_flight_bytes", 4096.0 * MIB),
            PREFIXES,
        ];
        Ok(time(forecast(Preset::DgxH200, &edits, &scenario(source))?.seconds))
    };
    let near = |mib: f64| -> Result<String> {
        let edits = [
            ("design.ring_bytes", mib * MIB),
            ("design.connections", 4096.0),
            ("store.latency_seconds", 0.005),
            ("store.connection_gb_per_second", 0.5),
            PREFIXES,
        ];
        Ok(time(forecast(Preset::DgxH200, &edits, &scenario(Source::Https))?.seconds))
    };
    let rows = [8.0, 32.0, 128.0, 256.0, 1024.0, 2048.0, 4096.0].map(|mib| {
        let pinned = format!("{} MiB", number(mib * 8.0));
        let each = format!("{mib:.0} MiB");
        Ok(vec![each, pinned, cells(mib, Source::Disk)?, near(mib)?, cells(mib, Source::Https)?])
    });
    let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    let head =
        ["ring of each of 8", "pinned", "NVMe, 0.1 ms", "store of 5 ms, 0.5 GB/s", "S3, 100 ms"];
    Ok(markdown(&head, &rows))
}

fn cores() -> String {
    let costs = Constants::default().costs;
    let rows = [
        (
            "direct reads, at 8 MiB each",
            costs.direct_cpu_seconds_per_gb + costs.request_cpu_seconds * 119.0,
        ),
        ("page cache or tmpfs", costs.buffered_cpu_seconds_per_gb),
        ("local file cache", costs.direct_cpu_seconds_per_gb + costs.cache_read_cpu_seconds_per_gb),
        ("http", costs.http_cpu_seconds_per_gb),
        ("http, checked", costs.http_cpu_seconds_per_gb + costs.verify_cpu_seconds_per_gb),
        ("https", costs.https_cpu_seconds_per_gb),
        (
            "https, checked",
            costs.https_cpu_seconds_per_gb + costs.verify_after_tls_cpu_seconds_per_gb,
        ),
        (
            "https, cache filled",
            costs.https_cpu_seconds_per_gb + costs.cache_write_cpu_seconds_per_gb,
        ),
    ];
    let lines = rows.map(|(name, cost)| {
        let sixteen = Constants::default().design.engines / cost;
        vec![
            name.to_owned(),
            number(cost),
            number(12.5 * cost),
            number(50.0 * cost),
            number(sixteen),
        ]
    });
    let head = ["path", "CPU-s/GB", "cores at 100 Gb/s", "cores at 400 Gb/s", "GB/s of 16 engines"];
    markdown(&head, &lines)
}

fn fleet() -> Result<String> {
    let fleet = || Preset::Fleet.scenario();
    let of = |source| Scenario { source, ..fleet() };
    let ranges = [ENOUGH[0], ENOUGH[1], ("design.chunk_bytes", 16.0 * MIB)];
    let hundred = [ENOUGH[0], ENOUGH[1], ("store.prefixes", 100.0)];
    let thousand = [ENOUGH[0], ENOUGH[1], PREFIXES];
    let quota = [thousand[0], thousand[1], PREFIXES, ("store.total_gb_per_second", 25.0)];
    let slow = [ENOUGH[0], ENOUGH[1], PREFIXES, ("store.total_gb_per_second", 25.0)];
    lines(
        "1,000 nodes, 700 GB each, at once",
        Preset::Fleet,
        &[
            ("one prefix of one bucket", ENOUGH, fleet()),
            ("the same, ranges of 16 MiB", &ranges, fleet()),
            ("100 prefixes' worth of requests", &hundred, fleet()),
            ("1,000 prefixes' worth", &thousand, fleet()),
            ("a store of 200 Gb/s in all", &quota, fleet()),
            ("local file cache, filled before", &[], of(Source::Cache)),
            ("node to node, the store read once, one prefix", ENOUGH, of(Source::Peers)),
            ("the same, a store of 200 Gb/s in all", &slow, of(Source::Peers)),
        ],
    )
}

/// A name; before: what differs, and the load; after: the same.
type Change<'a> = (&'a str, Edits<'a>, &'a Scenario, Edits<'a>, &'a Scenario);

fn changes() -> Result<String> {
    let disk = &Preset::DgxH200.scenario();
    let s3 = &Scenario { source: Source::Https, ..disk.clone() };
    let plain = &Scenario { source: Source::Http, ..disk.clone() };
    let one = &Scenario { processes: 1, cross_socket_share: 0.5, ..s3.clone() };
    let cached = &Scenario { source: Source::PageCache, ..one.clone() };
    let cached_near = &Scenario { cross_socket_share: 0.0, ..cached.clone() };
    let everything = &Scenario { share: Share::Everything, ..disk.clone() };
    let exchange = &Scenario { share: Share::Exchange, ..disk.clone() };

    let as_it_is = &[PREFIXES];
    let ring = &[PREFIXES, ENOUGH[0]];
    let both = &[PREFIXES, ENOUGH[0], ENOUGH[1]];
    let alone = &[PREFIXES, ENOUGH_ALONE[0], ENOUGH_ALONE[1]];
    let more_engines = ("design.engines", 112.0);
    let engines = &[alone[0], alone[1], alone[2], more_engines];
    let pinned = ("costs.pinning_seconds_per_gb", 1e-6);
    let in_parts = &[alone[0], alone[1], alone[2], more_engines, pinned];
    let ktls = &[alone[0], alone[1], alone[2], ("costs.https_cpu_seconds_per_gb", 0.24)];
    let ports = ("hardware.network_gb_per_second", 200.0);
    let many = ("design.connections", 1024.0);
    let large = ("design.ring_bytes", 8192.0 * MIB);
    let one_port = &[PREFIXES, large, many, pinned];
    let four_ports = &[PREFIXES, large, many, pinned, ports];
    let passes = ("costs.http_memory_passes", 1.0);
    let half = ("costs.http_cpu_seconds_per_gb", 0.12);
    let received = &[PREFIXES, large, many, pinned, ports, passes, half];
    let gds = &[("costs.direct_memory_passes", 1e-6), pinned];
    let rows: &[Change<'_>] = &[
        ("S3: a process a GPU instead of one for all", as_it_is, one, as_it_is, s3),
        ("S3: rings of 2 GiB instead of 256 MiB", as_it_is, s3, ring, s3),
        ("S3: 256 connections a process, with those", ring, s3, both, s3),
        ("S3, one process: engines beyond 16", alone, one, engines, one),
        ("S3, one process: TLS by the NIC (as http)", alone, one, ktls, one),
        ("S3, those engines: the ring pinned as it fills", engines, one, in_parts, one),
        ("http: four ports of 400 Gb/s instead of one", one_port, plain, four_ports, plain),
        ("http, four ports: zero-copy receive", four_ports, plain, received, plain),
        ("page cache, one process: engines beyond 16", &[], cached, &[more_engines], cached),
        ("the same: a ring at each socket", &[more_engines], cached, &[more_engines], cached_near),
        ("NVMe: GDS instead of the ring", &[], disk, gds, disk),
        ("NVMe: exchange, not everything by everyone", &[], everything, &[], exchange),
    ];
    let lines = rows.iter().map(|(name, before, from, after, to)| {
        let before = forecast(Preset::DgxH200, before, from)?;
        let after = forecast(Preset::DgxH200, after, to)?;
        Ok(vec![
            (*name).to_owned(),
            time(before.seconds),
            time(after.seconds),
            format!("{} x", number(before.seconds / after.seconds)),
            after.bottleneck.name().to_owned(),
        ])
    });
    let lines = lines.collect::<Result<Vec<_>>>()?;
    let head = ["700 GB on a DGX H200", "before", "after", "gain", "then limited by"];
    Ok(markdown(&head, &lines))
}
