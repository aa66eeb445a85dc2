//! A pack, made once for all tests, and runs of it.

use super::stand_in::stand_in;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The steps that are parts of the program itself; the others are scripts in Python.
pub const OWN: [&str; 13] = [
    "machine",
    "right-kernels",
    "right-loads",
    "cached",
    "disk",
    "adapter",
    "small",
    "kernels",
    "copies",
    "pages",
    "processes",
    "gds",
    "verify",
];

/// Tiny sizes, and time enough on a machine that does other work, too.
const SIZES: [&str; 9] = [
    "--minutes=30",
    "--patience=8",
    "--size=6MiB",
    "--check-bytes=1MiB",
    "--adapter=1MiB",
    "--tiny=200",
    "--buffer=1MiB",
    "--turns=1",
    "--settle=0",
];

/// Beside the command that was built for this test.
fn built() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_ringload-gpu")).parent().unwrap();
    if !own.join("ringload").exists() {
        // Only this package is being tested.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "ringload", "--bin", "ringload"]);
        let target_directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let status = cargo.arg("--target-dir").arg(target_directory).status().unwrap();
        assert!(status.success(), "cannot build ringload: {status}");
    }
    own.to_owned()
}

/// The script in the repository.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu.sh")
}

/// Packs what was built, with a Python wheel if there is one. Without it nothing is downloaded.
pub fn pack(wheel: Option<&Path>, python: &str, to: &Path) {
    let mut packing = Command::new(script());
    packing.args(["pack", "--python", python, "--from"]).arg(built()).arg("--to").arg(to);
    match wheel {
        Some(wheel) => packing.arg("--wheel").arg(wheel),
        None => packing.env("PIP_NO_INDEX", "1"),
    };
    let packed = packing.output().unwrap();
    assert!(packed.status.success(), "{:?}", texts(&packed));
}

/// A pack without Python packages. Each test may be a process of its own, so the pack is made beside its
/// place and moved there; the first one stays, until something in it changes.
pub fn plain_pack() -> &'static Path {
    static PACK: OnceLock<PathBuf> = OnceLock::new();
    PACK.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let place = folder.join(format!("gpu-pack-{}", newest_nanoseconds()));
        if !place.exists() {
            let own = folder.join(format!("gpu-pack-of-{}", std::process::id()));
            pack(None, "3.12", &own);
            if std::fs::rename(&own, &place).is_err() {
                std::fs::remove_dir_all(&own).unwrap(); // another process was faster
            }
        }
        place
    })
}

/// When what is packed was changed last, since the epoch.
fn newest_nanoseconds() -> u128 {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join("steps");
    let steps = std::fs::read_dir(steps).unwrap().map(|entry| entry.unwrap().path());
    let programs = ["ringload", "ringload-gpu"].map(|name| built().join(name));
    let changed = |path: PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let newest = steps.chain(programs).chain([script()]).map(changed).max().unwrap();
    newest.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}

/// A command with nothing in its environment but the stand-in and the system's own commands.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command.env("LD_LIBRARY_PATH", stand_in());
    command
}

pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// On a disk, so that files can be made cold.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

/// Whether a row of the tables begins with these cells.
pub fn has_row(table: &str, cells: &[&str]) -> bool {
    let begins = |line: &str| {
        let row = line.split('|').skip(1).map(str::trim);
        row.take(cells.len()).eq(cells.iter().copied())
    };
    table.lines().any(begins)
}

/// A run of `gpu.sh`, with places of its own.
pub struct Run {
    pub directory: tempfile::TempDir,
    pub command: Command,
}

/// The results of a run.
pub struct Results {
    pub status: std::process::ExitStatus,
    pub table: String,
    pub told: String,
    pub json: Value,
    /// The lines of gpu.jsonl.
    pub lines: Vec<Value>,
}

impl Run {
    /// A run of these steps.
    pub fn new(pack: &Path, steps: &[&str]) -> Self {
        let directory = directory();
        let command = Self::again(pack, &directory, steps);
        Self { directory, command }
    }

    /// A run that goes on in `directory`. Without steps, it takes those that are not finished.
    pub fn again(pack: &Path, directory: &tempfile::TempDir, steps: &[&str]) -> Command {
        let mut running = command(&pack.join("gpu.sh"));
        let [out, work] = ["out", "work"].map(|name| directory.path().join(name));
        running.current_dir(directory.path()).arg("run").arg("--out").arg(out);
        running.arg("--dir").arg(work).args(["--machine", "no GPU"]);
        if !steps.is_empty() {
            running.args(["--only", &steps.join(",")]);
        }
        running.arg("--").args(SIZES);
        running
    }

    /// With a planted fault.
    pub fn with(mut self, variables: &[(&str, &str)]) -> Self {
        self.command.envs(variables.iter().copied());
        self
    }

    pub fn results(&mut self) -> Results {
        let ran = self.command.output().unwrap();
        results(&ran, &self.directory)
    }
}

/// The results in the places of a run.
pub fn results(ran: &Output, directory: &tempfile::TempDir) -> Results {
    let (table, told) = texts(ran);
    let read = |name: &str| {
        let file = directory.path().join("out").join(name);
        std::fs::read_to_string(file).unwrap_or_else(|_| panic!("no {name}: {told}"))
    };
    let log = std::fs::read_to_string(directory.path().join("out/gpu.log")).unwrap_or_default();
    let lines = read("gpu.jsonl");
    let lines = lines.lines().filter(|line| !line.is_empty());
    Results {
        status: ran.status,
        json: serde_json::from_str(&read("gpu.json")).unwrap(),
        lines: lines.map(|line| serde_json::from_str(line).unwrap()).collect(),
        table,
        told: told + &log,
    }
}

impl Results {
    pub fn list(&self, name: &str) -> &[Value] {
        self.json[name].as_array().unwrap_or_else(|| panic!("{name}: {:#}", self.json))
    }

    /// The errors of checks and of steps, and what was skipped.
    pub fn faults(&self) -> String {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let checks = self.list("checks").iter().filter_map(|check| {
            Some(format!("{}: {}", check["name"].as_str()?, check["error"].as_str()?))
        });
        let ends = self.lines.iter().filter_map(|line| text(&line["error"]));
        let skipped = self.list("skipped").iter().filter_map(text);
        checks.chain(ends).chain(skipped).collect::<Vec<_>>().join("\n")
    }

    /// How often a step was begun.
    pub fn begun(&self, step: &str) -> usize {
        let begins = |line: &&Value| line["step"] == step && line["kind"] == "begin";
        self.lines.iter().filter(begins).count()
    }

    /// How a step ended.
    pub fn ended(&self, step: &str) -> Option<&str> {
        let one = self.list("steps").iter().find(|one| one["name"] == step)?;
        one["ended"].as_str()
    }
}
