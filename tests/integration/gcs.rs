//! `gs://` against gcp-storage-emulator: URLs, ranges, whole loads, and missing objects.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::nginx::Nginx;
use crate::common::servers::{Server, free_port, python_program};
use crate::common::{Expected, directory, sharded, write};
use ringload::Dtype;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The emulator with the empty bucket `models`.
struct Emulator {
    server: Server,
    _directory: TempDir,
}

impl Emulator {
    /// Starts the emulator; `None` where it is not installed.
    fn start() -> Option<Self> {
        let program = python_program("gcp-storage-emulator")?;
        let (directory, port) = (directory(), free_port());
        let mut command = Command::new(program);
        command.args(["start", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--in-memory", "--default-bucket", "models"]);
        let server = Server::start(&mut command, port, &directory.path().join("log"));
        Some(Self { server, _directory: directory })
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// Uploads `content` as the object whose name is `key`, percent-encoded.
    fn put(&self, key: &str, content: &[u8]) {
        let target = format!("/upload/storage/v1/b/models/o?uploadType=media&name={key}");
        self.request("POST", &target, "x/y", content);
    }

    /// Makes a request that must succeed.
    fn request(&self, method: &str, target: &str, content_type: &str, content: &[u8]) {
        let mut stream = TcpStream::connect(self.host()).unwrap();
        let length = content.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(content).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// The command, with this emulator as its endpoint. Unlike Google's servers the emulator sends
    /// neither ETag nor Last-Modified.
    fn ringload(&self, arguments: &[&str]) -> Command {
        let mut command = self.pinned(arguments);
        command.arg("--unpinned").env("RINGLOAD_LOG", "error");
        command
    }

    fn pinned(&self, arguments: &[&str]) -> Command {
        let mut command = ringload();
        command.args(arguments).env("STORAGE_EMULATOR_HOST", self.host());
        command
    }
}

/// A checkpoint of several ranges, and its file.
fn checkpoint(directory: &Path) -> (Vec<Expected>, Vec<u8>) {
    let tensors = vec![
        Expected::of_bytes("a", 3 << 20, 1),
        Expected::new("b", Dtype::F32, &[511, 1023], 2),
        Expected::of_bytes("c", 17, 3),
        Expected::of_bytes("d", 5 << 20, 4),
    ];
    let path = directory.join("x.safetensors");
    write(&path, &tensors, None);
    (tensors, fs::read(path).unwrap())
}

#[test]
fn objects_load_as_files_do() {
    let Some(emulator) = Emulator::start() else { return };
    let files = directory();
    let (tensors, bytes) = checkpoint(files.path());
    emulator.put("x.safetensors", &bytes);
    emulator.put("deep%2Fa%20b%2B%2541%C3%BC.safetensors", &bytes);
    for location in ["gs://models/x.safetensors", "gs://models/deep/a b+%41ü.safetensors"] {
        let mut command = emulator.ringload(&["load", location, "--digest"]);
        assert_eq!(run(&mut command).quiet_success(), digest_lines(&tensors), "{location}");
    }
    let mut capped = emulator.ringload(&[
        "load",
        "gs://models/x.safetensors",
        "--digest",
        "--memory-limit",
        "min",
    ]);
    assert_eq!(run(&mut capped).quiet_success(), digest_lines(&tensors));
    let refused = run(&mut emulator.pinned(&["load", "gs://models/x.safetensors"])).failure();
    assert!(refused.contains("neither an ETag nor") && refused.contains("--unpinned"), "{refused}");
    let mut with_scheme = emulator.ringload(&["load", "gs://models/x.safetensors", "--digest"]);
    with_scheme.env("STORAGE_EMULATOR_HOST", format!("http://{}", emulator.host()));
    assert_eq!(run(&mut with_scheme).quiet_success(), digest_lines(&tensors));
}

/// Two small tensors.
fn pair() -> [Expected; 2] {
    [Expected::of_bytes("one", 70_001, 1), Expected::new("two", Dtype::BF16, &[300, 7], 2)]
}

#[test]
fn directories_are_listed_and_anyscale_s_lie_below_their_storage() {
    let Some(emulator) = Emulator::start() else { return };
    let tensors = pair();
    for (directory, indexed) in [("indexed", true), ("plain", false)] {
        for (name, bytes) in sharded(&tensors, indexed) {
            emulator.put(&format!("org%2F{directory}%2F{name}"), &bytes);
        }
        // Objects deeper in the directory and beside it are not part of the checkpoint.
        emulator.put(&format!("org%2F{directory}%2Fdeep%2Fx.safetensors"), b"no checkpoint");
        emulator.put(&format!("org%2F{directory}x.safetensors"), b"no checkpoint");
        for location in ["gs://models/org", "anyscale:/"] {
            let location = format!("{location}/{directory}/");
            let mut command = emulator.ringload(&["load", &location, "--digest"]);
            command.env("ANYSCALE_ARTIFACT_STORAGE", "gs://models/org");
            assert_eq!(run(&mut command).quiet_success(), digest_lines(&tensors), "{location}");
        }
    }
    let mut homeless = emulator.ringload(&["load", "anyscale://plain/"]);
    let report = run(homeless.env_remove("ANYSCALE_ARTIFACT_STORAGE")).failure();
    assert!(report.contains("ANYSCALE_ARTIFACT_STORAGE is not set"), "{report}");
}

#[test]
fn shards_of_one_load_may_be_in_different_stores() {
    let Some(emulator) = Emulator::start() else { return };
    let tensors: Vec<_> = (0..3)
        .map(|seed| Expected::of_bytes(format!("t{seed}"), (9 << 20) + seed, seed as u64))
        .collect();
    let [local, web, object] = [&tensors[..1], &tensors[1..2], &tensors[2..]];
    let Some(nginx) = Nginx::start("", |root| write(&root.join("web.safetensors"), web, None))
    else {
        return;
    };
    let files = directory();
    let path = |name: &str| files.path().join(name);
    write(&path("local.safetensors"), local, None);
    write(&path("object.safetensors"), object, None);
    emulator.put("object.safetensors", &fs::read(path("object.safetensors")).unwrap());
    let (local, web) = (path("local.safetensors"), nginx.url("web.safetensors"));
    let locations = [local.to_str().unwrap(), &web, "gs://models/object.safetensors"];
    for more in [&[][..], &["--memory-limit", "min"]] {
        let arguments = [&["load", "--digest"], &locations[..], more].concat();
        let mut command = emulator.ringload(&arguments);
        assert_eq!(run(&mut command).quiet_success(), digest_lines(&tensors), "{more:?}");
    }
}

#[test]
fn bytes_are_verified_against_checksums() {
    let Some(emulator) = Emulator::start() else { return };
    let files = directory();
    let (tensors, bytes) = checkpoint(files.path());
    emulator.put("m%2Fx.safetensors", &bytes);
    let location = "gs://models/m/x.safetensors";
    let mut command = emulator.ringload(&["load", location, "--digest", "--verify"]);
    assert_eq!(run(&mut command).quiet_success(), digest_lines(&tensors));

    let wrong = br#"{"crc32c": "AAAAAA=="}"#;
    emulator.request(
        "PATCH",
        "/storage/v1/b/models/o/m%2Fx.safetensors",
        "application/json",
        wrong,
    );
    let report = run(&mut emulator.ringload(&["load", location, "--verify"])).failure();
    assert!(report.contains(location) && report.contains("AAAAAA=="), "{report}");
}

#[test]
fn missing_objects_are_reported() {
    let Some(emulator) = Emulator::start() else { return };
    for location in ["gs://models/none.safetensors", "gs://nowhere/x.safetensors"] {
        let report = run(&mut emulator.ringload(&["load", location])).failure();
        assert!(report.contains(location) && report.contains("404"), "{report}");
        assert!(report.contains("check the location"), "{report}");
    }
    emulator.put("text.safetensors", b"this is no checkpoint at all");
    let report = run(&mut emulator.ringload(&["load", "gs://models/text.safetensors"])).failure();
    assert!(report.contains("gs://models/text.safetensors"), "{report}");
}
