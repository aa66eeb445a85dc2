//! Modules that are loaded with ringload are those that burn loads itself.

#![allow(clippy::unwrap_used)]

#[path = "support/model.rs"]
mod model;

use burn_core::tensor::Device;
use burn_store::{KeyRemapper, ModuleSnapshot, ModuleStore, PathFilter, SafetensorsStore, bridge};
use model::Chain;
use ringload::{ErrorKind, Loader};
use ringload_burn::RingloadStore;
use tempfile::TempDir;

/// Sharded checkpoints, which burn's own store does not read, have the weights of the single file.
#[test]
fn a_module_has_the_weights_of_burns_own_store() {
    let (directory, device) = (TempDir::new().unwrap(), Device::default());
    let sizes = Chain::sizes(64, 2);
    let single = model::write(directory.path(), &sizes, 1).unwrap().remove(0);
    let mut theirs = Chain::new(&sizes, &device);
    theirs.load_from(&mut SafetensorsStore::from_file(&single)).unwrap();
    let mut ours = Chain::new(&sizes, &device);
    let mut store = RingloadStore::open(&Loader::new(), &single).unwrap();
    let result = ours.load_from(&mut store).unwrap();
    assert_eq!(result.applied.len(), sizes.len());
    assert_eq!(ours.bits(64, &device), theirs.bits(64, &device));

    // By name, and without the module.
    let keys = store.keys().unwrap();
    assert_eq!(keys.len(), sizes.len());
    let tensor = store.get_tensor("layers.3.weight").unwrap().unwrap();
    let found = bridge::to_data(tensor).unwrap();
    assert_eq!(found, theirs.layers[3].weight.val().to_data());
    assert!(store.get_tensor("layers.99.weight").unwrap().is_none());
}

#[test]
fn shards_names_and_filters_are_those_that_were_given() {
    let (directory, device) = (TempDir::new().unwrap(), Device::default());
    let sizes = Chain::sizes(64, 1);
    model::write(directory.path(), &sizes, 3).unwrap();
    let open = || RingloadStore::open(&Loader::new(), directory.path()).unwrap();
    let mut all = Chain::new(&sizes, &device);
    all.load_from(&mut open()).unwrap();

    // Of two layers, the other is not loaded, and keeps its own weights.
    let filter = PathFilter::new().with_full_path("layers.1.weight");
    let mut one = Chain::new(&sizes[..2], &device);
    let result = one.load_from(&mut open().filter(filter).allow_partial(true)).unwrap();
    assert_eq!(result.applied, ["layers.1.weight"]);
    let weight = |chain: &Chain, layer: usize| chain.layers[layer].weight.val().to_data();
    assert_eq!(weight(&one, 1), weight(&all, 1));

    // The sixth layer as the first, and no other.
    let remapper = KeyRemapper::new().add_pattern(r"layers\.5\.", "first.").unwrap();
    let remapper = remapper.add_pattern(r"layers\.0\.", "last.").unwrap();
    let remapper = remapper.add_pattern("^first", "layers.0").unwrap();
    let mut renamed = Chain::new(&sizes[5..6], &device);
    renamed.load_from(&mut open().remap(remapper).unwrap()).unwrap();
    assert_eq!(weight(&renamed, 0), weight(&all, 5));
}

#[test]
fn what_does_not_fit_is_named() {
    let (directory, device) = (TempDir::new().unwrap(), Device::default());
    let sizes = Chain::sizes(64, 1);
    model::write(directory.path(), &sizes, 2).unwrap();
    let mut store = RingloadStore::open(&Loader::new(), directory.path()).unwrap();
    let more = [&sizes[..], &[(64, 64)]].concat();
    let error = Chain::new(&more, &device).load_from(&mut store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("layers.8.weight"), "{error}");
    let mut other = sizes.clone();
    other[2] = (64, 65);
    let error = Chain::new(&other, &device).load_from(&mut store).unwrap_err();
    assert!(error.to_string().contains("layers.2.weight"), "{error}");
    let error = Chain::new(&sizes, &device).save_into(&mut store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
