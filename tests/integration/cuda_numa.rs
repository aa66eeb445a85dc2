//! On a machine with several NUMA nodes a load runs on the node of its GPU. The tests use a fake
//! /sys and the driver's stand-in.

use crate::common::child::passes_in_a_child;
use crate::common::{Expected, directory, write};
use ringload::{Device, DeviceMap, Loader};
use std::fs;
use std::path::Path;

/// A /sys with two nodes, the first with all cores, and the GPUs on these nodes.
fn machine(root: &Path, nodes_of_gpus: &[usize]) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("sys/devices/system/node/has_cpu", "0-1\n");
    write("sys/devices/system/node/node0/cpulist", "0-1023\n");
    write("sys/devices/system/node/node1/cpulist", "5000\n");
    let gpus = ringload::gpus().unwrap().0;
    for (gpu, node) in gpus.iter().zip(nodes_of_gpus) {
        write(&format!("sys/bus/pci/devices/{}/numa_node", gpu.pci_address), &format!("{node}\n"));
    }
}

#[test]
fn a_load_stays_near_its_gpu_and_says_so() {
    if !passes_in_a_child("cuda_numa::a_load_stays_near_its_gpu_and_says_so", &[]) {
        return;
    }
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    let tensors = [Expected::of_bytes("a", 3_000_001, 1), Expected::of_bytes("b", 77_777, 2)];
    write(&path, &tensors, None);
    let split = || DeviceMap::from(Device::cuda(0)).with("b", Device::cuda(1)).unwrap();
    let load = |nodes: &[usize], devices: DeviceMap| {
        let root = tempfile::tempdir_in(directory.path()).unwrap();
        machine(root.path(), nodes);
        let loader = Loader::new().device(devices).system_root(root.path());
        let loaded = loader.load(path.as_path()).unwrap();
        for tensor in &tensors {
            assert!(loaded.get(&tensor.name).unwrap().to_vec().unwrap() == tensor.bytes);
        }
        loaded.summary().numa_node
    };
    assert_eq!(load(&[0, 0], Device::cuda(0).into()), Some(0));
    assert_eq!(load(&[0, 0], split()), Some(0));
    assert_eq!(load(&[0, 1], split()), None);
    // The process may use no core of that node.
    assert_eq!(load(&[0, 1], Device::cuda(1).into()), None);
    assert_eq!(load(&[0, 0], Device::Host.into()), None);
}
