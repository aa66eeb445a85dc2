//! How much memory this process may lock, and how much there is.

use crate::failure::Outcome;
use crate::format::size;
use crate::locked_memory::{REMEDIES, lockable_bytes};
use ringload::internals::{cgroup_memory, system_memory};
use ringload::{Error, ErrorKind};
use std::path::Path;

/// The limits, in bytes; `None` where there is none or the kernel does not report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    lockable: Option<u64>,
    /// What the machine and the control group leave.
    available: Option<u64>,
    /// What the control group leaves, if it has a limit.
    cgroup: Option<u64>,
}

impl Limits {
    /// The limits of this process now.
    pub fn of_this_process() -> Self {
        let root = Path::new("/");
        Self {
            lockable: lockable_bytes(),
            available: system_memory(root).map(|memory| memory.available_bytes),
            cgroup: cgroup_memory(root).map(|group| group.left_bytes),
        }
    }

    /// The limits as a sentence.
    pub fn sentence(&self) -> String {
        let text = |bytes: Option<u64>, none: &str| bytes.map_or_else(|| none.to_owned(), size);
        format!(
            "limits: locked memory {}, control group {}, memory {} available",
            text(self.lockable, "unlimited"),
            text(self.cgroup, "unlimited"),
            text(self.available, "not known to be"),
        )
    }

    /// Whether `needed` bytes can be locked.
    ///
    /// # Errors
    /// [`OutOfMemory`](ErrorKind::OutOfMemory), naming the limit and how to raise it.
    pub fn check(&self, needed: u64) -> Outcome {
        let refuse = |limit: String| {
            let sentence = format!("cannot hold {}: {limit}", size(needed));
            Err(Error::new(ErrorKind::OutOfMemory, sentence).into())
        };
        if let Some(lockable) = self.lockable.filter(|&lockable| needed > lockable) {
            let remedies = REMEDIES.join("; ");
            return refuse(format!(
                "this process may lock {}; raise that limit ({remedies}), or set --budget",
                size(lockable)
            ));
        }
        if let Some(available) = self.available.filter(|&available| needed > available) {
            let whose = match self.cgroup {
                Some(left) if left <= available => "the control group leaves",
                _ => "the machine has",
            };
            return refuse(format!("{whose} {} of memory; set --budget", size(available)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_too_low_is_named_before_anything_is_read() {
        let limits = Limits { lockable: Some(8 << 20), available: Some(1 << 30), cgroup: None };
        assert!(limits.check(8 << 20).is_ok());
        let refused = limits.check(9 << 20).unwrap_err().report();
        assert!(
            refused.contains("may lock 8.00 MiB") && refused.contains("ulimit -l"),
            "{refused}"
        );
        let limits = Limits { lockable: None, ..limits };
        assert!(limits.check(1 << 30).is_ok());
        let refused = limits.check(2 << 30).unwrap_err().report();
        assert!(refused.contains("the machine has 1.00 GiB"), "{refused}");
        let limits = Limits { cgroup: Some(1 << 30), ..limits };
        let refused = limits.check(2 << 30).unwrap_err().report();
        assert!(refused.contains("the control group leaves 1.00 GiB"), "{refused}");
        assert!(limits.sentence().contains("locked memory unlimited"), "{}", limits.sentence());
    }
}
