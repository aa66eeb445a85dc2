//! JSON has every name and location as it is.
//!
//! A past bug: `inspect --json` gave locations as they are shown to people, with control characters
//! escaped a second time, so that no program could open the file that it named; and bytes of a path that
//! are not UTF-8 were replaced, so that different files had the same name. Such a path is now a
//! `file://` URL, which is a location that every command takes.

use crate::common::command::{Finished, ringload, run};
use crate::common::{Expected, directory, write};
use ringload::Location;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names of files that a message may not show as they are.
const NAMES: [&[u8]; 5] =
    [b"\x1b[31mred", b"line\nbreak", b"quote\"back\\slash", b"not \xff utf-8", b"\xc3\xa9 50%25"];

/// The file that a program finds which takes `text` for a location.
fn path_of(text: &Value) -> PathBuf {
    match Location::parse(text.as_str().unwrap()).unwrap() {
        Location::File(path) => path,
        other => panic!("{other} is no file"),
    }
}

fn json(arguments: &[&OsStr]) -> Value {
    let Finished { status, stdout, stderr } = run(ringload().args(arguments));
    assert!(status.success(), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn in_text(command: &str, path: &Path) -> String {
    run(ringload().arg(command).arg(path)).quiet_success()
}

#[test]
fn programs_find_the_files_of_every_json_answer() {
    for name in NAMES {
        let directory = directory();
        let folder = directory.path().join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        let [path, other] =
            ["model.safetensors", "adapter_model.safetensors"].map(|file| folder.join(file));
        for file in [&path, &other] {
            write(file, &[Expected::of_bytes("t\n", 10, 1)], None);
        }
        let [arg, option] = [folder.as_os_str(), OsStr::new("--json")];

        let listed = json(&["inspect".as_ref(), arg, option]);
        assert_eq!(path_of(&listed["shards"][0]["location"]), path);
        assert_eq!(path_of(&listed["left_out"][0]), other);
        assert_eq!(listed["tensors"][0]["name"], "t\n");
        // What was printed is a location of the next command.
        let location = listed["shards"][0]["location"].as_str().unwrap();
        assert_eq!(json(&["load".as_ref(), location.as_ref(), option])["tensors"], 1);

        let trace = directory.path().join("trace");
        let report = json(&["load".as_ref(), arg, option, "--trace".as_ref(), trace.as_os_str()]);
        assert_eq!(path_of(&report["left_out"][0]), other);
        let trace: Value = serde_json::from_slice(&fs::read(&trace).unwrap()).unwrap();
        assert_eq!(path_of(&trace["otherData"]["locations"][0]), folder);
        let shards = trace["traceEvents"].as_array().unwrap().iter();
        let shards: Vec<_> = shards.filter_map(|event| event["args"].get("shard")).collect();
        assert!(!shards.is_empty() && shards.iter().all(|shard| path_of(shard) == path));

        assert_eq!(path_of(&json(&["doctor".as_ref(), arg, option])["path"]), folder);
        let to = folder.join("to");
        let fetched =
            json(&["fetch".as_ref(), path.as_os_str(), option, "--to".as_ref(), to.as_os_str()]);
        assert_eq!(path_of(&fetched["files"][0]), to.join("model.safetensors"));

        // People see neither a line break nor an escape sequence.
        for command in ["inspect", "doctor"] {
            let text = in_text(command, &folder);
            assert!(!text.contains(['\u{1b}']) && !text.contains("line\nbreak"), "{text:?}");
        }
    }
}
