//! A number or a name from a file, a server, a flag or a variable is checked before it is used.
//!
//! Past bugs: `inspect` panicked for a name or a shape wider than 65,535 characters, and wrote 300 MB
//! for a file of 398 KB; `--engines 4294967295` started 32,700 threads and aborted, and had a
//! "capacity overflow" with a GPU; threads that `ulimit -u` forbids were panics; an S3 listing with
//! pages of 16 MiB each was read for as long as it went on; an index of 1.5 million files that do not
//! exist took 41 s; control characters in names reached the terminal. Every such number has a bound
//! now, which its error names.

use crate::common::command::{ringload, run};
use crate::common::fault_server::{FaultServer, Reply};
use crate::common::seccomp::{NOBODY, is_root};
use crate::common::{self, Expected, directory, raw_file, skip, write};
use crate::source_tree::calls_in_sources;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A file with one byte for each name, and these shapes.
fn of_names<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, usize)>) {
    let (mut header, mut at) = (String::from("{"), 0);
    for (name, dimensions) in tensors {
        let comma = if at == 0 { "" } else { "," };
        let shape = vec!["1"; dimensions].join(",");
        let (name, end) = (serde_json::to_string(name).unwrap(), at + 1);
        write!(
            header,
            r#"{comma}{name}:{{"dtype":"U8","shape":[{shape}],"data_offsets":[{at},{end}]}}"#
        )
        .unwrap();
        at = end;
    }
    fs::write(path, raw_file(header + "}", &vec![7; at])).unwrap();
}

#[test]
fn names_and_shapes_of_any_width_are_listed() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    let inspect = || run(ringload().arg("inspect").arg(&path)).quiet_success();
    for name in ["n".repeat(65_535), "n".repeat(65_536), "\u{1}".repeat(13_200)] {
        of_names(&path, [(&*name, 1)]);
        assert!(inspect().contains("..."));
        run(ringload().arg("load").arg(&path)).quiet_success();
    }
    of_names(&path, [("w", 22_000)]);
    assert!(inspect().contains("1, 1, ...]"));
    let (many, long) = (5000, "n".repeat(60_000));
    let names: Vec<_> = (0..many).map(|number| format!("w{number}")).collect();
    of_names(&path, names.iter().map(|name| (&**name, 1)).chain([(&*long, 1)]));
    let (printed, file) = (inspect().len() as u64, fs::metadata(&path).unwrap().len());
    assert!(printed < 5 * file, "{printed} bytes for a file of {file}");
}

/// Fails if `text` has a character that acts on a terminal.
#[track_caller]
fn assert_harmless(text: &str) {
    let found = text.chars().find(|&c| c.is_control() && c != '\n' || c == '\u{202e}');
    assert!(found.is_none(), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("shard  9")), "{text:?}");
}

#[test]
fn nothing_from_a_file_acts_on_the_terminal() {
    let directory = directory();
    let [file, folder] = common::paths(directory.path(), ["m.safetensors", "folder"]);
    let names =
        ["\u{1b}]0;owned\u{7}\u{1b}[2Jw", "a\rb", "nul\0x", "c\nshard  9", "\u{202e}r\u{9b}"];
    let tensors: Vec<_> = names.iter().map(|name| Expected::of_bytes(*name, 1, 1)).collect();
    let metadata = [("k\u{1b}[31m\nshard  9", "v\u{1b}[2J\nshard  9"), ("plain", "x")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    write(&file, &tensors, Some(HashMap::from(metadata)));
    let inspected = run(ringload().arg("inspect").arg(&file)).quiet_success();
    assert_harmless(&inspected);
    assert!(inspected.contains(r"\u{1b}[2Jw") && inspected.contains(r"a\rb"), "{inspected}");
    let digests = run(ringload().args(["load", "--digest"]).arg(&file)).quiet_success();
    assert_harmless(&digests);
    assert_eq!(digests.lines().filter(|line| line.starts_with('\\')).count(), names.len());
    // Paths, in errors and in the log.
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a\u{1b}[31m\nshard  9.safetensors"), "x").unwrap();
    let told = run(ringload().args(["load", "-vvv"]).arg(&folder));
    assert_harmless(&told.stderr);
    assert!(told.stderr.contains(r"a\u{1b}[31m\nshard  9.safetensors"), "{}", told.stderr);
    let named = folder.join("b\u{1b}c.safetensors");
    assert_harmless(&run(ringload().arg("load").arg(&named)).failure());
    write(&named, &tensors, None);
    assert_harmless(&run(ringload().arg("inspect").arg(&named)).quiet_success());
}

#[test]
fn numbers_of_flags_and_variables_have_a_maximum() {
    let directory = directory();
    let path = directory.path().join("m.safetensors");
    write(&path, &[Expected::of_bytes("t", 10, 1)], None);
    let load = || {
        let mut command = ringload();
        command.arg("load").arg(&path);
        command
    };
    for (flag, things) in [("--engines", "engines"), ("--connections", "connections")] {
        for number in ["1025", "99999", "4294967295", "18446744073709551615"] {
            for device in ["cpu", "cuda"] {
                let told = run(load().args([flag, number, "--device", device])).wrong_usage();
                let sentence = format!("{number} {things} are more than the maximum of 1024");
                assert!(told.contains(&sentence), "{told}");
            }
        }
    }
    let told = run(load().env("RINGLOAD_CONCURRENCY", "99999")).failure();
    assert!(told.contains("RINGLOAD_CONCURRENCY: 99999 engines are more than the"), "{told}");
    for size in ["18446744073709551615", "16777215TiB"] {
        for flag in ["--memory-limit", "--read-size", "--cache-size"] {
            run(load().args([flag, size])).quiet_success();
        }
        let mut on_gpu = load();
        on_gpu.env("LD_LIBRARY_PATH", common::stand_in::stand_in());
        run(on_gpu.args(["--device", "cuda", "--memory-limit", size])).quiet_success();
    }
    // What is wrong on the command line is found while it is parsed, also what is found late.
    assert!(run(load().args(["--tensors", "["])).wrong_usage().contains("not a valid glob"));
    let told = run(load().args(["--header", "s3cret"])).wrong_usage();
    assert!(told.contains("write a header as 'Name: value'") && !told.contains("s3cret"), "{told}");
}

#[test]
fn threads_that_cannot_be_started_are_no_panic() {
    if !is_root() {
        return skip("a limit of processes needs a user without processes");
    }
    let directory = directory();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("m.safetensors");
    let tensors: Vec<_> =
        (0..80).map(|i| Expected::of_bytes(format!("t{i}"), 2 << 20, i)).collect();
    write(&path, &tensors, None);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mut refused = 0;
    for (threads, options) in (1..=9).flat_map(|threads| {
        ["", "--digest", "--read-path buffered --memory-limit 16MiB --engines 2"]
            .map(|options| (threads, options))
    }) {
        let line = format!(
            "ulimit -u {threads}; exec setpriv --reuid {} --clear-groups \"$0\" load \"$1\" {options}",
            NOBODY - 7
        );
        let mut command = Command::new("bash");
        command.arg("-c").arg(line).arg(ringload().get_program()).arg(&path);
        let finished = run(&mut command);
        finished.assert_no_panic();
        if !finished.status.success() {
            refused += 1;
            let told = finished.failure();
            assert!(told.contains("cannot start a thread: the limit of processes"), "{told}");
        }
    }
    assert!(refused > 0, "the limit had no effect");
}

#[test]
fn an_index_of_too_many_files_is_refused_at_once() {
    let directory = directory();
    let path = directory.path().join("model.safetensors.index.json");
    let mut text = String::from(r#"{"weight_map":{"#);
    for number in 0..1_500_000 {
        let comma = if number == 0 { "" } else { "," };
        write!(text, r#"{comma}"{number}":"{number}.safetensors""#).unwrap();
    }
    fs::write(&path, text + "}}").unwrap();
    let began = Instant::now();
    let told = run(ringload().arg("load").arg(directory.path())).failure();
    assert!(told.contains("more than 50000 files are named"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_listing_without_end_is_given_up() {
    let server = FaultServer::start(Vec::new(), |number, _| {
        let padding = "x".repeat(15 << 20);
        let page = format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><Name>{padding}</Name>\
             <NextContinuationToken>t{number}</NextContinuationToken></ListBucketResult>"
        );
        Reply::new(200).body(page.as_bytes())
    });
    let mut command = ringload();
    command.env("AWS_ACCESS_KEY_ID", "AKIA").env("AWS_SECRET_ACCESS_KEY", "secret");
    command.env("AWS_REGION", "us-east-1").args(["load", "s3://bucket/m/", "--endpoint"]);
    let told = run(command.arg(server.origin())).failure();
    assert!(told.contains("the listing has more than 1000 pages or 256 MiB"), "{told}");
    assert!(server.seen().len() < 20, "{} pages", server.seen().len());
}

#[test]
fn every_thread_is_started_by_the_same_functions() {
    const CALLS: [&str; 4] = ["thread::spawn(", "scope.spawn(", "spawn_blocking(", "lookup_host("];
    // The bench measures bare reads on threads of its own.
    let allowed = ["src/sys/threads.rs", "src/test_server.rs", "src/bin/ringload/bench/bare.rs"];
    let offences = calls_in_sources(&CALLS, &allowed);
    assert!(offences.is_empty(), "use sys::spawn:\n{}", offences.join("\n"));
}
