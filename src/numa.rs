//! NUMA affinity: finds the node that a GPU is attached to and binds threads to its cores.
//!
//! On a machine with several nodes, a copy to a GPU crosses the link between nodes unless the slot's
//! pages are on the GPU's node, and an engine on another node writes to these pages across the same
//! link. Therefore engines are bound to the cores of that node and the ring's pages prefer it.
//!
//! ```text
//! GPU -> PCI address -> /sys/bus/pci/devices/ADDRESS/numa_node -> /sys/.../nodeN/cpulist
//! ```
//!
//! A load to GPUs of different nodes has no affinity, because every engine fills slots for every
//! GPU. If only one node has cores or /sys has no information, nothing is bound, and the driver's
//! PCI addresses are not queried.

use crate::sys::read_small_text;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::path::Path;

const NODES: &str = "sys/devices/system/node";
const PCI_DEVICES: &str = "sys/bus/pci/devices";

/// The node that the threads and memory of a load prefer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumaAffinity {
    pub node: usize,
    /// The cores of the node that this process may use; at least one.
    pub cores: Vec<usize>,
}

/// Parses a list of the kernel such as `0-3,8`. An empty list has no numbers; a malformed one gives
/// `None`.
pub fn numbers_in(list: &str) -> Option<Vec<usize>> {
    let list = list.trim();
    if list.is_empty() {
        return Some(Vec::new());
    }
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // The bound keeps a malformed list from filling the memory.
        if first > last || last >= 1 << 20 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Whether more than one node has cores, according to the /sys below `root`.
pub fn has_several_nodes(root: &Path) -> bool {
    read_numbers(&root.join(NODES).join("has_cpu")).is_some_and(|nodes| nodes.len() > 1)
}

/// Returns the node that the PCI device at `address` is attached to; `None` if it is unknown.
pub fn node_of(root: &Path, address: &str) -> Option<usize> {
    let path = root.join(PCI_DEVICES).join(address).join("numa_node");
    // The file holds -1 if the firmware does not report the node.
    read_small_text(&path, "node").ok()?.trim().parse().ok()
}

impl NumaAffinity {
    /// Returns the node that all GPUs at these PCI addresses are attached to, with those of its
    /// cores that are `allowed`. `None` if the node is unknown, the GPUs are on different nodes, or
    /// no core is left.
    pub fn of_gpus(root: &Path, addresses: &[String], allowed: &[usize]) -> Option<Self> {
        let mut nodes = addresses.iter().map(|address| node_of(root, address));
        let node = nodes.next()??;
        if nodes.any(|other| other != Some(node)) {
            return None;
        }
        let mut cores = read_numbers(&root.join(NODES).join(format!("node{node}/cpulist")))?;
        cores.retain(|core| allowed.contains(core));
        (!cores.is_empty()).then_some(Self { node, cores })
    }

    /// Binds the calling thread, and the threads that it starts later, to the cores of the node.
    pub fn bind_thread(&self) {
        let mut cores = CpuSet::new();
        let bound = self
            .cores
            .iter()
            .try_for_each(|&core| cores.set(core))
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
        if let Err(error) = bound {
            tracing::debug!(%error, node = self.node, "cannot bind a thread to the cores of a node");
        }
    }
}

/// Returns the cores that the scheduler may run this thread on; none if that is unknown.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new(); // the machine has more cores than the set holds: nothing is bound
    };
    (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect()
}

fn read_numbers(path: &Path) -> Option<Vec<usize>> {
    numbers_in(&read_small_text(path, "list").ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// A /sys with two nodes of four cores each, a node with memory only, and GPUs on these nodes.
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

    fn affinity(root: &TempDir, addresses: &[&str], allowed: &[usize]) -> Option<NumaAffinity> {
        let addresses: Vec<String> = addresses.iter().map(|text| (*text).to_owned()).collect();
        NumaAffinity::of_gpus(root.path(), &addresses, allowed)
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
    fn engines_use_the_allowed_cores_of_the_gpus_node() {
        let root = machine(&[("0000:1b:00.0", "1"), ("0000:9b:00.0", "1"), ("0000:03:00.0", "0")]);
        assert!(has_several_nodes(root.path()));
        let all: Vec<usize> = (0..8).collect();
        let node_1 = Some(NumaAffinity { node: 1, cores: vec![2, 3, 6, 7] });
        assert_eq!(affinity(&root, &["0000:1b:00.0"], &all), node_1);
        assert_eq!(affinity(&root, &["0000:1b:00.0", "0000:9b:00.0"], &all), node_1);
        // The process's own CPU affinity is honoured.
        let some = affinity(&root, &["0000:1b:00.0"], &[0, 1, 3, 7]);
        assert_eq!(some, Some(NumaAffinity { node: 1, cores: vec![3, 7] }));
        // Nothing is bound if no core is left.
        assert_eq!(affinity(&root, &["0000:1b:00.0"], &[0, 1, 4]), None);
        // GPUs of two nodes have no common node.
        assert_eq!(affinity(&root, &["0000:1b:00.0", "0000:03:00.0"], &all), None);
    }

    #[test]
    fn nothing_is_bound_if_the_node_is_unknown() {
        let root = machine(&[("0000:1b:00.0", "-1"), ("0000:9b:00.0", "2")]);
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(node_of(root.path(), "0000:1b:00.0"), None);
        assert_eq!(affinity(&root, &["0000:1b:00.0"], &all), None);
        assert_eq!(affinity(&root, &["0000:9b:00.0"], &all), None, "a node without cores");
        assert_eq!(affinity(&root, &["0000:aa:00.0"], &all), None, "an unknown GPU");
        assert_eq!(affinity(&root, &[], &all), None);
        fs::write(root.path().join("sys/devices/system/node/has_cpu"), "0\n").unwrap();
        assert!(!has_several_nodes(root.path()));
        assert!(!has_several_nodes(&root.path().join("nowhere")));
    }

    #[test]
    fn a_bound_thread_passes_its_cores_on_to_its_threads() {
        let before = allowed_cores();
        let one = NumaAffinity { node: 0, cores: vec![before[before.len() - 1]] };
        let cores = one.cores.clone();
        let bound = std::thread::spawn(move || {
            one.bind_thread();
            (allowed_cores(), std::thread::spawn(allowed_cores).join().unwrap())
        });
        assert_eq!(bound.join().unwrap(), (cores.clone(), cores));
        assert_eq!(allowed_cores(), before);
    }
}
