//! Devices, and the map from tensor names to devices.

use super::glob::Glob;
use super::parse::{invalid, one_of};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The device whose memory holds a tensor.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{Device, Loader};
///
/// let model = Loader::new().device(Device::cuda(1)).load("/models/llama-8b")?;
/// assert_eq!("cuda:1".parse::<Device>()?, Device::cuda(1));
/// # drop(model);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Device {
    /// Host memory.
    #[default]
    Host,
    /// The memory of the NVIDIA GPU with this CUDA ordinal, which depends on
    /// `CUDA_VISIBLE_DEVICES`.
    Cuda(u32),
}

impl Device {
    /// Returns the GPU with this CUDA ordinal.
    pub const fn cuda(ordinal: u32) -> Self {
        Self::Cuda(ordinal)
    }

    /// Returns the CUDA ordinal of a GPU, or `None` for the host.
    pub const fn ordinal(self) -> Option<u32> {
        match self {
            Self::Host => None,
            Self::Cuda(ordinal) => Some(ordinal),
        }
    }

    /// Whether this is host memory.
    pub const fn is_host(self) -> bool {
        matches!(self, Self::Host)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl serde::Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Parses `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self> {
        let device = match text.split_once(':') {
            None if text == "cpu" => Some(Self::Host),
            None if text == "cuda" => Some(Self::Cuda(0)),
            // `parse` alone would accept "+1".
            Some(("cuda", n)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
                let Ok(ordinal) = n.parse() else {
                    return invalid(format!(
                        "{text:?}: the number is out of range; use at most {}",
                        u32::MAX
                    ));
                };
                Some(Self::Cuda(ordinal))
            }
            _ => None,
        };
        match device {
            Some(device) => Ok(device),
            None => invalid(format!("{text:?} is not a device; use cpu, cuda or cuda:N")),
        }
    }
}

/// How GPU memory is allocated for tensors.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{Allocation, Device, Loader};
///
/// // Each tensor can be freed by itself.
/// let loader = Loader::new().device(Device::cuda(0)).allocation(Allocation::PerTensor);
/// let model = loader.load("/models/llama-8b")?;
/// # drop(model);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Allocation {
    /// One allocation for all tensors of a shard, freed with the last of them. This needs few
    /// driver calls and makes large copies.
    #[default]
    PerShard,
    /// One allocation for each tensor, so that dropping a tensor frees its memory.
    PerTensor,
}

impl FromStr for Allocation {
    type Err = Error;

    /// Parses `shard` or `tensor`.
    fn from_str(text: &str) -> Result<Self> {
        one_of(text, "an allocation", &[("shard", Self::PerShard), ("tensor", Self::PerTensor)])
    }
}

/// A map from tensor names to devices: a list of globs, of which the first that matches a name
/// counts, and a device for the tensors that no glob matches.
///
/// ```
/// use ringload::{Device, DeviceMap};
///
/// # fn main() -> ringload::Result<()> {
/// let map = DeviceMap::from(Device::cuda(0))
///     .with("model.layers.[4-7].*", Device::cuda(1))?
///     .with("lm_head.*", Device::Host)?;
/// assert_eq!(map.device_of("model.layers.5.mlp.up_proj.weight"), Device::cuda(1));
/// assert_eq!(map.device_of("model.norm.weight"), Device::cuda(0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct DeviceMap {
    rules: Vec<(Glob, Device)>,
    rest: Device,
}

impl DeviceMap {
    /// Adds a rule after the present ones: tensors whose name matches `glob` go to `device`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `glob` is not a valid glob.
    pub fn with(mut self, glob: &str, device: Device) -> Result<Self> {
        self.rules.push((Glob::new(glob)?, device));
        Ok(self)
    }

    /// Replaces the device of the tensors that no glob matches.
    pub(crate) fn set_rest(&mut self, rest: Device) {
        self.rest = rest;
    }

    /// Replaces the rules by `rules`, each written as `GLOB=DEVICE`. The glob may contain a `=`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the glob or device that is not valid.
    pub(crate) fn set_rules(&mut self, rules: &[&str]) -> Result<()> {
        *self = rules.iter().try_fold(Self::from(self.rest), |map, rule| {
            match rule.rsplit_once('=') {
                Some((glob, device)) => map.with(glob, device.parse()?),
                None => invalid(format!(
                    "{rule:?} has no device; use GLOB=DEVICE, e.g. 'lm_head.*=cuda:1'"
                )),
            }
        })?;
        Ok(())
    }

    /// Whether the map assigns every tensor to a GPU, whatever its name.
    pub(crate) fn has_only_gpus(&self) -> bool {
        let mut devices = self.rules.iter().map(|&(_, device)| device);
        !self.rest.is_host() && devices.all(|device| !device.is_host())
    }

    /// The device of every tensor, if no name matters.
    pub(crate) fn device_of_all(&self) -> Option<Device> {
        self.rules.is_empty().then_some(self.rest)
    }

    /// Returns the device of the tensor called `name`.
    pub fn device_of(&self, name: &str) -> Device {
        let rule = self.rules.iter().find(|(glob, _)| glob.is_match(name));
        rule.map_or(self.rest, |&(_, device)| device)
    }
}

impl From<Device> for DeviceMap {
    fn from(device: Device) -> Self {
        Self { rules: Vec::new(), rest: device }
    }
}

impl fmt::Display for DeviceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (glob, device) in &self.rules {
            write!(f, "{glob}={device}, ")?;
        }
        write!(f, "{}", self.rest)
    }
}

impl fmt::Debug for DeviceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMap({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_pytorch_writes_them() {
        let parse = |text: &str| text.parse::<Device>().ok();
        for device in [Device::Host, Device::cuda(0), Device::cuda(17)] {
            assert_eq!(parse(&device.to_string()), Some(device));
        }
        assert_eq!(parse("cuda"), Some(Device::cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cpu:0", "CUDA"] {
            let error = wrong.parse::<Device>().map_err(|e| e.to_string());
            assert!(error.is_err_and(|e| e.contains("use cpu, cuda or cuda:N")), "{wrong}");
        }
        // Of a number that is too large it was said that it is not a device.
        for wrong in ["cuda:4294967296", "cuda:99999999999"] {
            let error = wrong.parse::<Device>().map_err(|e| e.to_string());
            assert!(
                error.is_err_and(|e| e.contains("out of range; use at most 4294967295")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn rules_of_a_device_map_end_in_a_device() {
        let rules = |rules: &[&str]| {
            let mut map = DeviceMap::from(Device::cuda(3));
            map.set_rules(rules).map(|()| map.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(rules(&["a=b*=cuda:1", "c=cpu"]).unwrap(), "a=b*=cuda:1, c=cpu, cuda:3");
        assert!(rules(&["lm_head"]).is_err_and(|e| e.contains("GLOB=DEVICE")));
        assert!(rules(&["lm_head=gpu"]).is_err_and(|e| e.contains("\"gpu\"")));
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let map = DeviceMap::from(Device::Host)
            .with("a.*", Device::cuda(1))
            .and_then(|map| map.with("*", Device::cuda(0)))
            .unwrap();
        assert_eq!(map.device_of("a.w"), Device::cuda(1));
        assert_eq!(map.device_of("b"), Device::cuda(0));
        assert_eq!(map.to_string(), "a.*=cuda:1, *=cuda:0, cpu");
        let error = DeviceMap::default().with("[", Device::Host).unwrap_err();
        assert_eq!(error.to_string(), "\"[\" is not a valid glob");
    }
}
