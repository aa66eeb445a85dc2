//! The plan of a load, made from its checkpoint and its options.

use super::extent::{Extent, Span};
use super::needs::Needs;
use super::parts::{PartRange, TensorPart};
use super::select::Selection;
use super::sizes::LoadSizes;
use super::wanted::{Wanted, cast_of};
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Device, DeviceMap, MemoryLimit};
use std::sync::Arc;

/// The plan of a load: its tensors, their devices, and the extents to read.
#[derive(Debug)]
pub struct Plan {
    pub(super) checkpoint: Arc<Checkpoint>,
    /// Indices into the checkpoint's tensors. Extents refer to ranges of this list.
    pub(super) tensors: Vec<u32>,
    /// The parts of the tensors, by position; empty if all of them are whole.
    pub(super) parts: Vec<Option<TensorPart>>,
    /// The devices that tensors go to. Extents refer to them by index.
    pub(super) devices: Vec<Device>,
    pub(super) extents: Arc<[Extent]>,
    pub(super) sizes: LoadSizes,
    pub(super) total_bytes: u64,
    pub(super) dtype: Option<Dtype>,
    pub(super) delivered_bytes: u64,
    /// The positions in `tensors` in the order in which they are to be yielded.
    pub(super) yielded: Option<Arc<[u32]>>,
}

impl Plan {
    /// Plans a load of the tensors in `selection` to the devices that `map` assigns to them. Floats
    /// are cast to `dtype`, if it is set.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] when the limit is below the largest tensor of the host,
    /// [`ErrorKind::InvalidInput`] for a glob that does not parse or a slice that does not fit its tensor,
    /// [`ErrorKind::NotFound`] when no tensor matches a glob or a slice or has a name of the
    /// selection or of its order.
    pub fn new(
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        selection: &Selection,
        map: &DeviceMap,
        dtype: Option<Dtype>,
    ) -> Result<Self> {
        let tensors = selection.indices(&checkpoint)?;
        let parts = selection.slices.parts(&checkpoint, &tensors)?;
        let (devices, destinations) = assign(&checkpoint, &tensors, map)?;
        let wanted = Wanted {
            checkpoint: &checkpoint,
            tensors: &tensors,
            parts: &parts,
            destinations: &destinations,
            dtype,
        };
        let needs = Needs { wanted, devices: &devices };
        let needed = needs.bytes_of_all();
        let (extents, sizes) = needs.extents(LoadSizes::new(limit, needed.sizes)?);
        let plan = Self {
            tensors,
            parts,
            devices,
            extents: extents.into(),
            sizes,
            total_bytes: needed.total,
            dtype,
            delivered_bytes: needed.delivered,
            yielded: None,
            checkpoint,
        };
        match &selection.order {
            Some(order) => plan.in_order(order),
            None => Ok(plan),
        }
    }

    /// The checkpoint that the plan was made for.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The extents, in the order in which they are read: that of the checkpoint, unless the selection
    /// has an order.
    pub fn extents(&self) -> &Arc<[Extent]> {
        &self.extents
    }

    /// The devices that tensors go to. Extents refer to them by index.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Whether any tensor goes to a GPU.
    pub fn has_gpus(&self) -> bool {
        self.devices.iter().any(|device| !device.is_host())
    }

    /// The tensors that are loaded, as indices into [`Checkpoint::tensors`], in the order of the
    /// checkpoint unless the selection has an order.
    pub fn tensors(&self) -> &[u32] {
        &self.tensors
    }

    /// The tensors of one extent, as indices into [`Checkpoint::tensors`].
    pub fn tensors_of(&self, extent: &Extent) -> &[u32] {
        &self.tensors[extent.positions()]
    }

    /// How many tensors are loaded.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The part of the tensor at `position` that is loaded; `None` if it is loaded whole.
    pub(crate) fn part(&self, position: usize) -> Option<&TensorPart> {
        self.parts.get(position)?.as_ref()
    }

    /// The bytes that are loaded of the tensor at `position`; if they are gathered, the span begins with
    /// the first of them and has as many as they are.
    pub(crate) fn span(&self, position: usize) -> Span {
        let span = Span::from(&self.checkpoint.tensors()[self.tensors[position] as usize]);
        match self.part(position) {
            None => span,
            Some(part) => {
                Span { offset_bytes: part.offset_bytes(), len_bytes: part.len_bytes(), ..span }
            }
        }
    }

    /// The offset in the shard of the end of the last byte that is loaded of the tensor at `position`.
    pub(crate) fn end_bytes(&self, position: usize) -> u64 {
        let Span { offset_bytes, len_bytes, .. } = self.span(position);
        offset_bytes + self.part(position).map_or(len_bytes, TensorPart::range_bytes)
    }

    /// The ranges of the shard that are loaded of the tensor at `position` and lie in `extent`.
    pub(crate) fn ranges(
        &self,
        position: usize,
        extent: &Extent,
    ) -> impl Iterator<Item = PartRange> {
        let part = self.part(position);
        let runs = part.map(|part| part.within(extent.offset_bytes(), extent.len_bytes()));
        let whole = part.is_none().then(|| {
            let Span { offset_bytes: start, len_bytes, .. } = self.span(position);
            let from = start.max(extent.offset_bytes());
            let to = (start + len_bytes).min(extent.end_bytes());
            let len_bytes = to.saturating_sub(from);
            PartRange { offset_bytes: from, len_bytes, target_bytes: from - start }
        });
        runs.into_iter().flatten().chain(whole.filter(|range| range.len_bytes > 0))
    }

    /// The dimensions of the tensor at `position` if it is a part; `None` if it is loaded whole.
    pub(crate) fn part_shape(&self, position: usize) -> Option<Arc<[usize]>> {
        self.part(position).map(|part| Arc::clone(part.shape()))
    }

    /// The first tensor of which a part is loaded.
    pub(crate) fn first_part(&self) -> Option<&TensorInfo> {
        let position = self.parts.iter().position(Option::is_some)?;
        Some(&self.checkpoint.tensors()[self.tensors[position] as usize])
    }

    /// Whether parts of several runs are loaded, which are copied out of what is read.
    pub(crate) fn has_gaps(&self) -> bool {
        self.parts.iter().flatten().any(TensorPart::has_gaps)
    }

    /// Whether all bytes of all tensors of the checkpoint are loaded.
    pub(crate) fn is_whole(&self) -> bool {
        self.tensor_count() == self.checkpoint.tensors().len() && self.first_part().is_none()
    }

    /// The sum of the loaded tensors' bytes, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The sum of the loaded tensors' bytes, after casting.
    pub fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// The cast of the tensor at `position`, or `None` if it is not cast.
    pub(crate) fn cast_at(&self, position: usize) -> Option<Cast> {
        self.cast_of(&self.checkpoint.tensors()[self.tensors[position] as usize])
    }

    /// The cast of `tensor`, or `None` if it is not cast.
    pub(crate) fn cast_of(&self, tensor: &TensorInfo) -> Option<Cast> {
        cast_of(tensor, self.dtype)
    }

    /// The type that floats are cast to, or `None`.
    pub(crate) fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// The sizes of the load's memory and extents.
    pub(crate) fn sizes(&self) -> &LoadSizes {
        &self.sizes
    }
}

/// The devices that `map` assigns the tensors to, and the index of each tensor's device.
fn assign(
    checkpoint: &Checkpoint,
    tensors: &[u32],
    map: &DeviceMap,
) -> Result<(Vec<Device>, Vec<u8>)> {
    if let Some(device) = map.device_of_all().filter(|_| !tensors.is_empty()) {
        return Ok((vec![device], vec![0; tensors.len()]));
    }
    let mut devices = Vec::new();
    let device_of = |&index: &u32| map.device_of(checkpoint.tensors()[index as usize].name());
    let indices = tensors.iter().map(|index| destination_among(&mut devices, device_of(index)));
    let indices = indices.collect::<Result<_>>()?;
    Ok((devices, indices))
}

/// The index of `device` among `devices`, to which it is added if it is missing.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for more than 256 devices.
pub(crate) fn destination_among(devices: &mut Vec<Device>, device: Device) -> Result<u8> {
    let index = devices.iter().position(|&known| known == device).unwrap_or(devices.len());
    if index == devices.len() {
        devices.push(device);
    }
    u8::try_from(index)
        .map_err(|_| Error::new(ErrorKind::Unsupported, "a load may have at most 256 devices"))
}
