//! Every option is set by its name, and refusals keep secrets.

use super::*;
use crate::error::ErrorKind;

#[test]
fn every_option_is_known_and_refusals_keep_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("manifest.json");
    std::fs::write(&manifest, Manifest::new(Vec::new()).to_string()).unwrap();
    let values = [
        ("memory_limit", "64MiB"),
        ("device", "cpu"),
        ("device_map", "a.*=cuda:1\nb=cpu"),
        ("dtype", "BF16"),
        ("allocation", "tensor"),
        ("tensors", "a.*\nb"),
        ("names", "a.w\nb"),
        ("slice", "a.*=0:1/2\nb=-1:0/4"),
        ("order", "file"),
        ("read_path", "buffered"),
        ("immutable", "true"),
        ("read_size", "4MiB"),
        ("engines", "2"),
        ("hold_timeout_seconds", "0.5"),
        ("verify", "false"),
        ("manifest", manifest.to_str().unwrap()),
        ("check_finite", "true"),
        ("all_files", "true"),
        ("variant", "fp16"),
        ("strict", "true"),
        ("region", "eu-central-1"),
        ("endpoint", "http://localhost:9000"),
        ("header", "Authorization: Bearer s3cret"),
        ("connections", "4"),
        ("pin", "etag"),
        ("unpinned", "true"),
        ("s3_access_key_id", "id"),
        ("s3_secret_access_key", "s3cret"),
        ("s3_session_token", "token"),
        ("cache_dir", "/nowhere"),
        ("cache_size", "1GiB"),
        ("cache_validate", "never"),
        ("cache_shared", "true"),
    ];
    let names: Vec<_> = Loader::options().iter().map(|option| option.name).collect();
    assert_eq!(values.map(|(name, _)| name).to_vec(), names);
    let set = |loader: Loader, (name, value): (&str, &str)| loader.set(name, value);
    let loader = values.into_iter().try_fold(Loader::new(), set).unwrap();
    assert_eq!(loader.options.devices.to_string(), "a.*=cuda:1, b=cpu, cpu");
    assert_eq!(loader.options.selection.globs, ["a.*", "b"]);
    let slices = format!("{:?}", loader.options.selection.slices);
    assert_eq!(slices, "Slices(a.*=0:1/2, b=-1:0/4)");
    for (name, value) in [
        ("memory_limit", "lots"),
        ("device", "gpu"),
        ("device_map", "a"),
        ("order", "random"),
        ("read_size", "0"),
        ("engines", "-1"),
        ("engines", "1025"),
        ("connections", "4294967295"),
        ("tensors", "["),
        ("slice", "a=0:2/2"),
        ("hold_timeout_seconds", "-1"),
        ("hold_timeout_seconds", "soon"),
        ("verify", "maybe"),
        ("check_finite", "maybe"),
        ("header", "s3cret"),
        ("pin", "time"),
        ("colour", "blue"),
    ] {
        let error = Loader::new().set(name, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn half_of_a_pair_of_s3_keys_is_not_used() {
    let given = |loader: &Loader| loader.opener.options.s3_credentials.clone();
    let id = Loader::new().set("s3_access_key_id", "id").unwrap();
    assert_eq!(given(&id), None);
    let both = id.set("s3_secret_access_key", "").unwrap();
    assert_eq!(given(&both), Some(crate::S3Credentials::new("id", "")));
}

#[test]
fn lists_are_replaced_and_headers_added_in_any_order_of_device_and_map() {
    let loader = Loader::new()
        .set_all("device_map", &["a=cuda:1"])
        .and_then(|loader| loader.set("device", "cuda:2"))
        .and_then(|loader| loader.set_all("tensors", &["a", "b\nc"]))
        .and_then(|loader| loader.set_all("header", &["A: 1", "B: 2"]))
        .unwrap();
    assert_eq!(loader.options.devices.to_string(), "a=cuda:1, cuda:2");
    assert_eq!(loader.options.selection.globs, ["a", "b\nc"]);
    assert_eq!(loader.opener.options.headers.len(), 2);
    let loader = loader.set_all("device_map", &["b=cpu"]).unwrap();
    assert_eq!(loader.options.devices.to_string(), "b=cpu, cuda:2");
}
