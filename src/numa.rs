//! NUMA: which node a GPU sits at, and staying near it.
//!
//! On a machine of several nodes a copy to a GPU crosses the link between them unless the slot's
//! pages are at the GPU's own node; and an engine that runs elsewhere writes to them across it. So
//! engines are bound to the cores of that node, and the pages of the ring prefer it.
//!
//! ```text
//! GPU -> PCI address -> /sys/bus/pci/devices/ADDRESS/numa_node -> /sys/.../nodeN/cpulist
//! ```
//!
//! A load to GPUs of different nodes prefers none: all engines fill the slots of all GPUs. Where
//! there is one node with cores, or /sys does not say, nothing of this happens, and the driver is
//! not even asked where its GPUs are.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

const NODES: &str = "sys/devices/system/node";
const PCI_DEVICES: &str = "sys/bus/pci/devices";

/// A node to stay near to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumaAffinity {
    pub node: usize,
    /// Its cores that this process may use; at least one.
    pub cores: Vec<usize>,
}

/// The numbers that a list of the kernel's names, such as `0-3,8`; none in an empty one.
pub fn numbers_in(list: &str) -> Option<Vec<usize>> {
    let list = list.trim();
    if list.is_empty() {
        return Some(Vec::new());
    }
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // No machine has so many; a broken list is not to fill the memory.
        if first > last || last >= 1 << 20 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Whether more than one node has cores, by the /sys below `root`.
pub fn has_several_nodes(root: &Path) -> bool {
    read_numbers(&root.join(NODES).join("has_cpu")).is_some_and(|nodes| nodes.len() > 1)
}

/// The node that the PCI device at `address` sits at; `None` where the kernel does not know.
pub fn node_of(root: &Path, address: &str) -> Option<usize> {
    let path = root.join(PCI_DEVICES).join(address).join("numa_node");
    // It is -1 where the firmware does not say.
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl NumaAffinity {
    /// The node that all GPUs at these PCI addresses sit at, with those of its cores that are
    /// `allowed`.
    pub fn to(root: &Path, addresses: &[String], allowed: &[usize]) -> Option<Self> {
        let mut nodes = addresses.iter().map(|address| node_of(root, address));
        let node = nodes.next()??;
        if nodes.any(|other| other != Some(node)) {
            return None;
        }
        let mut cores = read_numbers(&root.join(NODES).join(format!("node{node}/cpulist")))?;
        cores.retain(|core| allowed.contains(core));
        (!cores.is_empty()).then_some(Self { node, cores })
    }

    /// Lets the calling thread, and those that it starts, run on the cores of the node alone.
    pub fn settle(&self) {
        let mut cores = CpuSet::new();
        let settled = self
            .cores
            .iter()
            .try_for_each(|&core| cores.set(core))
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
        if let Err(refusal) = settled {
            tracing::debug!(%refusal, node = self.node, "a thread runs on any core");
        }
    }
}

/// The cores that the scheduler may run this thread on.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new(); // more cores than the set has room for: then nothing is bound
    };
    (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect()
}

fn read_numbers(path: &Path) -> Option<Vec<usize>> {
    numbers_in(&fs::read_to_string(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A /sys of two nodes with four cores each, one with memory alone, and GPUs at these nodes.
    fn machine(gpus: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/devices/system/node/has_cpu", "0-1\n");
        write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
        write("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
        write("sys/devices/system/node/node2/cpulist", "\n");
        for (address, node) in gpus {
            write(&format!("sys/bus/pci/devices/{address}/numa_node"), &format!("{node}\n"));
        }
        root
    }

    fn near(root: &TempDir, addresses: &[&str], allowed: &[usize]) -> Option<NumaAffinity> {
        let addresses: Vec<String> = addresses.iter().map(|text| (*text).to_owned()).collect();
        NumaAffinity::to(root.path(), &addresses, allowed)
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(numbers_in("0"), Some(vec![0]));
        assert_eq!(numbers_in("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(numbers_in(" \n"), Some(vec![]));
        for wrong in ["3-1", "a", "0-", "1,,2", "0-99999999999"] {
            assert_eq!(numbers_in(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn engines_stay_at_the_gpus_node_on_the_cores_they_may_use() {
        let root = machine(&[("0000:1b:00.0", "1"), ("0000:9b:00.0", "1"), ("0000:03:00.0", "0")]);
        assert!(has_several_nodes(root.path()));
        let all: Vec<usize> = (0..8).collect();
        let node_1 = Some(NumaAffinity { node: 1, cores: vec![2, 3, 6, 7] });
        assert_eq!(near(&root, &["0000:1b:00.0"], &all), node_1);
        assert_eq!(near(&root, &["0000:1b:00.0", "0000:9b:00.0"], &all), node_1);
        // A taskset of ours counts.
        let some = near(&root, &["0000:1b:00.0"], &[0, 1, 3, 7]);
        assert_eq!(some, Some(NumaAffinity { node: 1, cores: vec![3, 7] }));
        // And what it leaves nothing of is not bound.
        assert_eq!(near(&root, &["0000:1b:00.0"], &[0, 1, 4]), None);
        // GPUs of two nodes prefer none.
        assert_eq!(near(&root, &["0000:1b:00.0", "0000:03:00.0"], &all), None);
    }

    #[test]
    fn what_the_kernel_does_not_say_binds_nothing() {
        let root = machine(&[("0000:1b:00.0", "-1"), ("0000:9b:00.0", "2")]);
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(node_of(root.path(), "0000:1b:00.0"), None);
        assert_eq!(near(&root, &["0000:1b:00.0"], &all), None);
        assert_eq!(near(&root, &["0000:9b:00.0"], &all), None, "a node without cores");
        assert_eq!(near(&root, &["0000:aa:00.0"], &all), None, "an unknown GPU");
        assert_eq!(near(&root, &[], &all), None);
        fs::write(root.path().join("sys/devices/system/node/has_cpu"), "0\n").unwrap();
        assert!(!has_several_nodes(root.path()));
        assert!(!has_several_nodes(&root.path().join("nowhere")));
    }

    #[test]
    fn a_thread_settles_on_its_cores_and_hands_them_on() {
        let before = allowed_cores();
        let one = NumaAffinity { node: 0, cores: vec![before[before.len() - 1]] };
        let cores = one.cores.clone();
        let settled = std::thread::spawn(move || {
            one.settle();
            (allowed_cores(), std::thread::spawn(allowed_cores).join().unwrap())
        });
        assert_eq!(settled.join().unwrap(), (cores.clone(), cores));
        assert_eq!(allowed_cores(), before);
    }
}
