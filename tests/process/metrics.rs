//! A load emits the documented metrics with their labels, units and descriptions.

use crate::alone;
use metrics::Unit;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
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

    let seen = seen(&snapshotter);
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
    check_ended(&seen, "source=file,outcome=ok", 3 << 20);

    drop(loader.load(path.with_file_name("absent")).unwrap_err());
    drop(loader.stream(&path).unwrap().next()); // the others are not wanted
    let seen = self::seen(&snapshotter);
    check_ended(&seen, "source=,outcome=not_found", 0);
    check_ended(&seen, "source=file,outcome=cancelled", 1 << 20);
}

/// The metrics by name and labels. Each has to be described.
fn seen(snapshotter: &Snapshotter) -> BTreeMap<String, DebugValue> {
    let metrics = snapshotter.snapshot().into_vec().into_iter();
    let named = metrics.map(|(key, unit, description, value)| {
        let name = key.key().name();
        assert!(description.is_some(), "{name} has no description");
        let expected = match name {
            name if name.contains("_bytes") => Unit::Bytes,
            name if name.ends_with("_seconds") => Unit::Seconds,
            _ => Unit::Count,
        };
        assert_eq!(unit, Some(expected), "{name}");
        let labels: Vec<_> =
            key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        (format!("{name}{{{}}}", labels.join(",")), value)
    });
    named.collect()
}

/// One load with these labels ended, after it had handed out so many bytes.
fn check_ended(seen: &BTreeMap<String, DebugValue>, labels: &str, bytes: u64) {
    let loaded = &seen[&format!("ringload_loaded_bytes_total{{{labels}}}")];
    assert_eq!(loaded, &DebugValue::Counter(bytes), "{labels}");
    let took = &seen[&format!("ringload_load_seconds{{{labels}}}")];
    let DebugValue::Histogram(times) = took else { panic!("{seen:?}") };
    assert!(times.len() == 1 && times[0].into_inner() > 0.0, "{labels}: {times:?}");
}
