//! Checkpoints as a whole, and the pieces that the other tests build them from.

use super::*;
use crate::dtype::Dtype;
use crate::error::ErrorKind;

use crate::source::memory::MemorySource;

/// A file of `header` and `data_bytes` zeros.
pub(super) fn file_of(header: &[u8], data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

/// A tensor's entry in a header.
pub(super) fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// A file of one-byte tensors.
pub(super) fn file_with(names: &[&str]) -> Vec<u8> {
    let entry = |(i, name): (usize, &&str)| {
        format!("{name:?}:{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[{i},{}]}}", i + 1)
    };
    let entries: Vec<String> = names.iter().enumerate().map(entry).collect();
    file_of(format!("{{{}}}", entries.join(",")).as_bytes(), names.len())
}

pub(super) fn open_bytes(bytes: Vec<u8>) -> Result<Checkpoint> {
    open_memory(MemorySource::new("model.safetensors", bytes))
}

pub(super) fn open_memory(memory: MemorySource) -> Result<Checkpoint> {
    Checkpoint::from_sources(vec![Arc::new(memory)])
}

fn sources(files: &[(&str, Vec<u8>)]) -> Vec<Arc<dyn Source>> {
    let source = |(name, bytes): &(&str, Vec<u8>)| {
        Arc::new(MemorySource::new(name, bytes.clone())) as Arc<dyn Source>
    };
    files.iter().map(source).collect()
}

#[test]
fn tensors_come_by_shard_and_offset() {
    let header = br#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
        "a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]},"__metadata__":{"k":"v","x":"1"}}"#;
    let first = file_of(header, 12);
    let second = file_of(
        br#"{"c":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"__metadata__":{"k":"w","y":"2"}}"#,
        0,
    );
    let files = [("1.safetensors", first), ("2.safetensors", second)];
    let checkpoint = Checkpoint::from_sources(sources(&files)).unwrap();

    let data = 8 + header.len() as u64;
    let names: Vec<_> = checkpoint.tensors().iter().map(TensorInfo::name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let b = checkpoint.tensor("b").unwrap();
    assert_eq!((b.dtype(), b.shape(), b.shard()), (Dtype::F32, [2].as_slice(), 0));
    assert_eq!((b.offset_bytes(), b.len_bytes()), (data + 4, 8));
    assert_eq!(checkpoint.tensor("c").unwrap().shard(), 1);
    assert_eq!(checkpoint.tensor("d"), None);
    assert_eq!(checkpoint.data_bytes(), 12);

    let shards = checkpoint.shards();
    assert_eq!((shards[0].tensors(), shards[1].tensors()), (0..2, 2..3));
    assert_eq!((shards[0].len_bytes(), shards[0].data_offset_bytes()), (data + 12, data));
    assert_eq!(shards[1].location().to_string(), "2.safetensors");
    assert_eq!(shards[1].metadata()["k"], "w");
    let merged: Vec<_> = checkpoint.metadata().iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(merged, ["k=v", "x=1", "y=2"]);
    assert!(format!("{checkpoint:?}").contains("1.safetensors"));
}

#[test]
fn a_name_in_two_shards_is_refused() {
    let files = [
        ("1.safetensors", file_with(&["a", "b"])),
        ("2.safetensors", file_with(&["c"])),
        ("3.safetensors", file_with(&["d", "b"])),
    ];
    let error = Checkpoint::from_sources(sources(&files)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidCheckpoint);
    assert_eq!(
        error.to_string(),
        "tensor \"b\" is both in 1.safetensors and in 3.safetensors; \
         name only files that belong to one checkpoint"
    );
}

#[test]
fn the_first_bad_shard_is_reported() {
    let mut files: Vec<_> = (0..50).map(|_| ("good.safetensors", file_with(&[]))).collect();
    files[20] = ("bad1.safetensors", Vec::new());
    files[21] = ("bad2.safetensors", Vec::new());
    for _ in 0..10 {
        let error = Checkpoint::from_sources(sources(&files)).unwrap_err();
        assert!(error.to_string().starts_with("bad1.safetensors: "), "{error}");
    }
}

#[test]
fn nothing_is_no_checkpoint() {
    let error = Checkpoint::from_sources(Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = Checkpoint::open(Vec::<Location>::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// A million tensors in 500 shards, through their index. Meant for `--release`; the time is
/// printed, and only what no machine should exceed is asserted.
#[test]
#[ignore = "writes 150 MB; run with --release"]
fn a_million_tensors_open_fast() {
    let directory = tempfile::tempdir().unwrap();
    let mut weight_map = Vec::new();
    for shard in 0..500 {
        let file = format!("model-{shard:05}-of-00500.safetensors");
        let names: Vec<_> = (0..2000)
            .map(|i| format!("model.layers.{shard}.mlp.experts.{i}.down_proj.weight"))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        std::fs::write(directory.path().join(&file), file_with(&names)).unwrap();
        weight_map.extend(names.iter().map(|name| format!("{name:?}:{file:?}")));
    }
    let index = format!("{{\"weight_map\":{{{}}}}}", weight_map.join(","));
    std::fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(checkpoint.tensors().len(), 1_000_000);
        println!("opened 1,000,000 tensors in {seconds:.3} s");
        assert!(seconds < 10.0);
    }
}
