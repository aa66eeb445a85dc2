//! Whatever names a file, only a regular file is opened.
//!
//! A past bug: a directory whose index was a FIFO made `load` hang without end, and one whose index
//! was a link to /dev/zero read 1 GiB first. The same held for files of credentials and
//! certificates, for the token of the Hub and for `--trace`. So every file is opened by one
//! function, `sys::open_regular`, and the last test finds any code that opens files otherwise.

use crate::common::command::{ringload, run};
use crate::common::{self, Expected, directory, write};
use crate::source_tree::calls_in_sources;
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A port of this machine at which nothing listens.
const NOTHING: &str = "http://127.0.0.1:9";

/// Makes `path` a FIFO, a link to an endless device, a directory or a socket.
fn make(kind: &str, path: &Path) {
    match kind {
        "a FIFO" => nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap(),
        "a device" => symlink("/dev/zero", path).unwrap(),
        "a directory" => fs::create_dir(path).unwrap(),
        _ => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
    }
}

#[test]
fn an_index_that_is_no_file_is_refused() {
    for kind in ["a FIFO", "a device", "a directory", "a socket"] {
        // Short, because the path of a socket is.
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("model.safetensors.index.json");
        make(kind, &index);
        let named = run(ringload().arg("inspect").arg(&index)).failure();
        assert!(named.contains(&format!(" is {kind}; name a regular ")) || kind == "a directory");
        let found = run(ringload().arg("load").arg(directory.path())).failure();
        // A directory is no file of the checkpoint that holds it.
        let why = if kind == "a directory" { "no *.safetensors file in" } else { kind };
        assert!(found.contains(why), "{kind}: {found}");
    }
}

/// The variable, the location, and variables that go with it.
type NamedFile<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A FIFO in `SSL_CERT_FILE` was tried four times and the server blamed; one in `HF_TOKEN_PATH` or
/// `AWS_CONFIG_FILE` counted as an empty file.
#[test]
fn files_that_variables_name_are_refused() {
    const S3: &str = "s3://bucket/m.safetensors";
    const HTTPS: &str = "https://127.0.0.1:9/m.safetensors";
    const AZ: &str = "az://c/m.safetensors";
    const HF: &str = "hf://owner/repo/m.safetensors";
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
    let full_uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", NOTHING);
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let azure = [
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
    ];
    let cases: [NamedFile; 11] = [
        ("AWS_CONFIG_FILE", S3, &[]),
        ("AWS_CONFIG_FILE", S3, &keys),
        ("AWS_SHARED_CREDENTIALS_FILE", S3, &[]),
        ("AWS_SHARED_CREDENTIALS_FILE", S3, &keys),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", S3, &[role]),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", S3, &[full_uri]),
        ("AWS_CA_BUNDLE", HTTPS, &[]),
        ("SSL_CERT_FILE", HTTPS, &[]),
        ("GOOGLE_APPLICATION_CREDENTIALS", "gs://bucket/m.safetensors", &[]),
        ("AZURE_FEDERATED_TOKEN_FILE", AZ, &azure),
        ("HF_TOKEN_PATH", HF, &[("HF_ENDPOINT", NOTHING)]),
    ];
    let directory = directory();
    let [fifo, zero, below] = common::paths(directory.path(), ["fifo", "zero", "below"]);
    make("a FIFO", &fifo);
    make("a device", &zero);
    make("a directory", &below);
    for (variable, location, others) in cases {
        for (path, kind) in [(&fifo, "a FIFO"), (&zero, "a device"), (&below, "a directory")] {
            let mut command = ringload();
            command.env_clear().envs(others.iter().copied()).env(variable, path);
            command.env("HOME", directory.path()).env("AWS_EC2_METADATA_DISABLED", "true");
            command.env("AZURE_AUTHORITY_HOST", NOTHING).env("AWS_REGION", "us-east-1");
            let told = run(command.args(["load", location])).failure();
            let named = format!("{} is {kind}", path.display());
            assert!(told.contains(&named), "{variable}: {told}");
            assert!(!told.contains("attempts used up"), "{variable} is retried: {told}");
        }
    }
}

/// An index that named "." or a FIFO as a shard failed with "is a directory" or "is a FIFO", without a
/// word of the index.
#[test]
fn a_shard_that_is_no_file_is_told_with_its_index() {
    let directory = directory();
    let index = directory.path().join("model.safetensors.index.json");
    make("a FIFO", &directory.path().join("fifo.safetensors"));
    for (shard, told) in [
        (".", "the index gives tensor \"t\" the file \".\", which is the directory of the index"),
        (
            "fifo.safetensors",
            "names the shard \"fifo.safetensors\" for tensor \"t\", and this shard",
        ),
    ] {
        fs::write(&index, format!(r#"{{"weight_map":{{"t":"{shard}"}}}}"#)).unwrap();
        let stderr = run(ringload().arg("load").arg(directory.path())).failure();
        let begin = format!("error: {}", index.display());
        assert!(stderr.starts_with(&begin) && stderr.contains(told), "{stderr}");
    }
}

/// `doctor FIFO` said that direct I/O was refused and advised another file system.
#[test]
fn a_doctor_of_no_file_says_that_the_path_is_wrong() {
    let directory = directory();
    let path = directory.path().join("fifo");
    make("a FIFO", &path);
    let told = run(ringload().arg("doctor").arg(&path)).failure();
    assert!(told.contains("is neither a directory nor a regular file"), "{told}");
}

#[test]
fn a_trace_is_not_written_to_a_pipe_that_nobody_reads() {
    let directory = directory();
    let [model, fifo] = common::paths(directory.path(), ["m.safetensors", "trace"]);
    write(&model, &[Expected::of_bytes("t", 10, 1)], None);
    make("a FIFO", &fifo);
    let told = run(ringload().arg("load").arg(&model).arg("--trace").arg(&fifo)).failure();
    assert!(told.contains("cannot write the trace to"), "{told}");
}

/// Everything below `src/` that opens a file, other than `sys::open`, `sys::output` and the files named here.
#[test]
fn every_file_is_opened_by_the_same_function() {
    const CALLS: [&str; 6] = [
        " File::open(",
        "File::options(",
        "OpenOptions::new(",
        "fs::read(",
        "read_to_string(",
        "pem_file_iter(",
    ];
    let allowed = [
        "src/sys/open.rs",
        "src/sys/output.rs",
        // The cache has rules of its own for its directory.
        "src/cache/",
        // Opens directories, to sync them, and the files that it has written.
        "src/load/download/",
        // Measures bare O_DIRECT reads of the bench's own files.
        "src/bin/ringload/bench/bare.rs",
        // Reads from sockets of tests.
        "src/test_server.rs",
        // Reads the certificates that the tests have made.
        "src/source/http/tls/test_peer.rs",
    ];
    let offences = calls_in_sources(&CALLS, &allowed);
    assert!(offences.is_empty(), "use sys::open_regular:\n{}", offences.join("\n"));
}
