//! Manifests: loads of some tensors, ranges and remote objects, and manifests that do not fit.
//!
//! A checksum of a whole file says nothing about the tensors that one rank loads, and nothing about
//! bytes from a cache. A manifest has a checksum of each tensor. Whoever writes it may be wrong, and so
//! may the file be that is named: every fault is an error that says which, and none hangs the load or
//! takes its memory.

use crate::common::fault_server::FaultServer;
use crate::common::{Expected, directory, in_time, noise, write};
use ringload::{
    Error, ErrorKind, Loader, Location, Manifest, MemoryLimit, Order, Pick, ReadRequest,
};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

struct Model {
    directory: TempDir,
    file: PathBuf,
    manifest: Manifest,
}

const SIZES: [usize; 4] = [3_000_001, 5, 0, 700_000];

impl Model {
    fn new() -> Self {
        let directory = directory();
        let file = directory.path().join("m.safetensors");
        let tensor =
            |(i, &size): (usize, &usize)| Expected::of_bytes(format!("t{i}"), size, i as u64);
        write(&file, &SIZES.iter().enumerate().map(tensor).collect::<Vec<_>>(), None);
        let manifest = Loader::new().sum(&file, false).unwrap();
        Self { directory, file, manifest }
    }

    /// The bytes of the file that hold the tensor `name`.
    fn range(&self, name: &str) -> Range<usize> {
        let checkpoint = Loader::new().open(&self.file).unwrap();
        let tensor = checkpoint.tensor(name).unwrap();
        let start = tensor.offset_bytes() as usize;
        start..start + tensor.len_bytes() as usize
    }

    /// Flips a bit of the last byte of the tensor `name`.
    fn damage(&self, name: &str) {
        let mut bytes = fs::read(&self.file).unwrap();
        bytes[self.range(name).end - 1] ^= 0x80;
        fs::write(&self.file, bytes).unwrap();
    }

    fn loader(&self) -> Loader {
        Loader::new().manifest(self.manifest.clone())
    }

    fn written(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join("manifest.json");
        fs::write(&path, text).unwrap();
        path
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T, Error>, kind: ErrorKind, says: &str) {
    let error = outcome.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{says}: {error}");
}

#[test]
fn a_damaged_tensor_is_never_handed_out() {
    let model = Model::new();
    model.damage("t0");
    for order in [Order::Completion, Order::File] {
        for limit in [MemoryLimit::Unlimited, MemoryLimit::Min] {
            let loader = model.loader().order(order.clone()).memory_limit(limit).engines(2);
            let items: Vec<_> = loader.stream(&model.file).unwrap().collect();
            assert!(items.iter().flatten().all(|tensor| tensor.name() != "t0"), "{order:?}");
            let error = items.into_iter().find_map(Result::err);
            refused(error.map_or(Ok(()), Err), ErrorKind::Corrupt, "tensor \"t0\" of ");
        }
    }
}

#[test]
fn loads_of_some_tensors_are_verified() {
    let model = Model::new();
    let some = model.loader().tensors(["t[013]"]).load(&model.file).unwrap();
    assert_eq!((some.len(), some.summary().verified_tensors), (3, 3));
    model.damage("t3");
    let others = model.loader().names(["t0", "t2"]).load(&model.file).unwrap();
    // A past fault: tensors without bytes were not counted, so that some seemed to be unverified.
    assert_eq!((others.len(), others.summary().verified_tensors), (2, 2));
    refused(model.loader().tensors(["t3"]).load(&model.file), ErrorKind::Corrupt, "\"t3\"");
    let checkpoint = Arc::new(Loader::new().open(&model.file).unwrap());
    let read = |name, picks| model.loader().read_tensor(&checkpoint, name, picks);
    for name in ["t0", "t1", "t2"] {
        let tensor = read(name, None).unwrap();
        assert_eq!(tensor.bytes(), &fs::read(&model.file).unwrap()[model.range(name)]);
    }
    refused(read("t3", None), ErrorKind::Corrupt, "tensor \"t3\" of ");
    let part = [Pick { start: 0, count: 2, step: 1 }];
    refused(read("t0", Some(&part)), ErrorKind::InvalidInput, "a part of a tensor");
}

#[test]
fn ranges_are_verified_where_they_are_whole_tensors() {
    let model = Model::new();
    let read = |loader: &Loader, ranges: &[Range<usize>]| {
        let mut memory: Vec<_> = ranges.iter().map(|range| vec![0; range.len()]).collect();
        let mut requests: Vec<_> = (ranges.iter().zip(&mut memory))
            .map(|(range, into)| {
                ReadRequest::new(Location::from(model.file.as_path()), range.start as u64, into)
            })
            .collect();
        loader.read_into(&mut requests, |_| ControlFlow::Continue(())).map(|summary| {
            let file = fs::read(&model.file).unwrap();
            ranges
                .iter()
                .zip(&memory)
                .for_each(|(range, read)| assert!(file[range.clone()] == **read));
            summary.verified_tensors
        })
    };
    let [first, last] = ["t0", "t3"].map(|name| model.range(name));
    let all = 0..fs::metadata(&model.file).unwrap().len() as usize;
    // The same tensor twice, the header, all of the file, and nothing.
    let ranges = [first.clone(), first.clone(), 0..first.start, all, 9..9];
    assert_eq!(read(&model.loader(), &ranges).unwrap(), 1 + 1 + 1 + 4);
    for part in [first.start..first.end - 1, first.start + 1..first.end, 0..first.end - 1, 8..9] {
        refused(
            read(&model.loader(), std::slice::from_ref(&part)),
            ErrorKind::InvalidInput,
            "whole tensors",
        );
        read(&Loader::new(), &[part]).unwrap();
    }
    model.damage("t3");
    assert_eq!(read(&model.loader(), &[first]).unwrap(), 1);
    refused(read(&model.loader(), &[last]), ErrorKind::Corrupt, "tensor \"t3\" of ");
}

/// Past faults: `sum` took as much memory as the checkpoint has, so that one larger than the container was
/// refused, and a limit below 8 MiB was refused as smaller than a tensor that had another size. Any
/// limit from 64 KiB on suffices, and without one a sum takes half of what the container leaves.
#[test]
fn a_sum_needs_little_memory() {
    let directory = directory();
    let file = directory.path().join("m.safetensors");
    write(&file, &[Expected::of_bytes("big", 50 << 20, 1), Expected::of_bytes("b", 9, 2)], None);
    let right = Loader::new().sum(&file, true).unwrap();
    for limit in [MemoryLimit::Bytes(4 << 20), MemoryLimit::Bytes(64 << 10), MemoryLimit::Min] {
        let summed = Loader::new().memory_limit(limit).engines(2).sum(&file, true);
        assert!(summed.unwrap() == right, "{limit:?}");
    }
    let tight = Loader::new().memory_limit(MemoryLimit::Bytes((64 << 10) - 1));
    refused(tight.sum(&file, false), ErrorKind::MemoryLimit, "to at least 64 KiB");

    let root = directory.path().join("root");
    for (path, text) in [
        ("proc/self/cgroup", "0::/pod\n"),
        ("sys/fs/cgroup/pod/memory.max", "8388608\n"),
        ("sys/fs/cgroup/pod/memory.current", "5242880\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let contained = Loader::new().system_root(&root);
    assert!(contained.sum(&file, false).unwrap().to_string().contains("\"big\""));
    let too_much = contained.memory_limit(MemoryLimit::Bytes(100 << 20));
    refused(
        too_much.sum(&file, false),
        ErrorKind::OutOfMemory,
        "set a memory limit of 1 MiB with ",
    );
}

/// A cache between the store and the load: its bytes are compared as those of the store are.
#[test]
fn bytes_of_servers_and_of_the_cache_are_verified() {
    let model = Model::new();
    let file = fs::read(&model.file).unwrap();
    let (server, cache) =
        (FaultServer::start(file.clone(), |_, request| request.right()), directory());
    let cached = model.loader().cache_dir(cache.path());
    for loader in [&model.loader(), &cached, &cached] {
        let loaded = loader.load(server.url().as_str()).unwrap();
        assert_eq!(loaded.summary().verified_tensors, 4);
        assert!(loader.flush(None));
    }
    let from_cache = cached.load(server.url().as_str()).unwrap();
    let data_bytes = SIZES.iter().sum::<usize>() as u64;
    assert!(from_cache.summary().cached_bytes >= data_bytes, "{:?}", from_cache.summary());
    let summed = cached.sum(server.url().as_str(), false).unwrap();
    // All but the name, which is that of the server's file.
    let sums = |manifest: &Manifest| manifest.to_string().lines().skip(4).collect::<String>();
    assert_eq!(sums(&summed), sums(&model.manifest));

    // What is in the cache is what the store sent, and is not what the manifest says.
    let mut wrong = file;
    *wrong.last_mut().unwrap() ^= 1;
    let wrong_server = FaultServer::start(wrong, |_, request| request.right());
    Loader::new().cache_dir(cache.path()).load(wrong_server.url().as_str()).unwrap();
    assert!(cached.flush(None));
    for loader in [&model.loader(), &cached] {
        let load = loader.load(wrong_server.url().as_str());
        refused(load, ErrorKind::Corrupt, &wrong_server.url());
    }
}

#[test]
fn a_manifest_of_another_checkpoint_is_told_from_damage() {
    let model = Model::new();
    let text = model.manifest.to_string();
    let load = |text: &str| {
        let manifest = Manifest::read(&model.written(text))?;
        Loader::new().manifest(manifest).load(&model.file)
    };
    load(&text).unwrap();
    // Absent tensors, other files, other lengths. The last line of a tensor ends the list.
    let without = |name: &str| -> String {
        let lines = text.lines().filter(|line| !line.contains(name));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let input = ErrorKind::InvalidInput;
    refused(load(&without("\"t1\"")), input, "has no checksum of its tensor \"t1\"");
    refused(
        load(&text.replace("\"bytes\": 5,", "\"bytes\": 4,")),
        input,
        "its tensor \"t1\" with 4",
    );
    let bytes = fs::metadata(&model.file).unwrap().len();
    let longer = text.replace(&format!("\"bytes\": {bytes}"), &format!("\"bytes\": {}", bytes + 1));
    refused(load(&longer), input, "bytes, and the file has");
    let empty = "{\"format\": \"ringload-manifest\", \"version\": 1, \"files\": []}";
    refused(load(empty), input, "has no file of this name");
    // A file of another header.
    write(&model.file, &[Expected::of_bytes("t0", 3_700_006, 7)], None);
    let error = load(&text).err().unwrap();
    assert!([ErrorKind::InvalidInput, ErrorKind::Corrupt].contains(&error.kind()), "{error}");
    assert!(error.to_string().contains("ringload sum"), "{error}");
}

#[test]
fn a_malformed_manifest_is_an_error_within_bounds() {
    let model = Model::new();
    let text = model.manifest.to_string();
    let file = text.lines().nth(3).unwrap();
    assert!(file.starts_with("{\"name\": \"m.safetensors\""), "{file}");
    let twice = |what: &str| text.replacen(what, &format!("{what}{what}"), 1);
    let texts = [
        String::new(),
        "[]".to_owned(),
        text[..text.len() - 3].to_owned(),
        format!("{text}x"),
        text.replace("\"version\": 1", "\"version\": 2"),
        text.replace("ringload-manifest", "other"),
        text.replace("\"offset\"", "\"Offset\""),
        twice("\"bytes\": 5, "),
        text.replacen("\"crc64nvme\": \"", "\"crc64nvme\": \"0", 1),
        text.replacen("\"crc64nvme\": \"", "\"crc64nvme\": \"x", 1),
        text.replace("\"bytes\": 5", "\"bytes\": -5"),
        text.replace("\"bytes\": 5", "\"bytes\": 18446744073709551615"),
        text.replace("\"bytes\": 5", "\"bytes\": 1e3"),
        text.replace("\"t1\"", "\"t0\""),
        text.replace("\"name\": \"m.safetensors\"", "\"name\": \"\""),
        format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)),
        format!("{{\"format\": {}", "{\"a\":".repeat(200_000)),
    ];
    for text in texts {
        let path = model.written(&text);
        let read = in_time("a manifest", move || Manifest::read(&path));
        let what = text.get(..text.len().min(200)).unwrap_or_default();
        let error = read.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
        assert!(error.to_string().len() < 1000, "{what}: {error}");
    }
    model.written(noise(1, 100_000));
    let path = model.directory.path().join("manifest.json");
    refused(Manifest::read(&path), ErrorKind::InvalidInput, "not a manifest");
    let long = fs::File::create(&path).unwrap();
    long.set_len(600 << 20).unwrap();
    refused(Manifest::read(&path), ErrorKind::InvalidInput, "longer than the limit of 512 MiB");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let says = "is a FIFO; name a regular file as the manifest";
    refused(Manifest::read(&path), ErrorKind::InvalidInput, says);
    refused(Manifest::read(Path::new("/nowhere/m.json")), ErrorKind::NotFound, "/nowhere/m.json");
}
