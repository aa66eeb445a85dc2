//! A load emits the documented metrics with their labels.

use crate::alone;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use ringload::{Loader, MemoryLimit, ReadPath};
use std::collections::BTreeMap;

#[test]
fn a_load_counts_what_it_read_and_returns_its_slots() {
    let _alone = alone();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let data = vec![7_u8; 1 << 20];
    let views: Vec<_> = (0..3)
        .map(|i| {
            let view =
                safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1 << 20], &data);
            (format!("t{i}"), view.unwrap())
        })
        .collect();
    safetensors::serialize_to_file(views, None, &path).unwrap();

    let loader = Loader::new().memory_limit(MemoryLimit::Min).read_path(ReadPath::Buffered);
    let mut stream = loader.stream(&path).unwrap();
    let tensors = stream.by_ref().map(|tensor| tensor.unwrap().len_bytes()).collect::<Vec<_>>();
    assert_eq!(tensors, [1 << 20; 3]);
    drop(stream);

    let seen: BTreeMap<String, DebugValue> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> =
                key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
        })
        .collect();
    let DebugValue::Counter(bytes) = seen["ringload_read_bytes_total{source=file,path=buffered}"]
    else {
        panic!("{seen:?}")
    };
    assert!((3 << 20..=(3 << 20) + 6 * 4096).contains(&bytes), "{bytes}");
    let DebugValue::Histogram(times) = &seen["ringload_read_seconds{source=file,path=buffered}"]
    else {
        panic!("{seen:?}")
    };
    assert!(times.len() >= 3 && times.iter().all(|t| t.into_inner() >= 0.0), "{times:?}");
    assert_eq!(seen["ringload_slots_in_use{}"], DebugValue::Gauge(0.0.into()));
}
