//! Device memory: allocations, their limits, and the checks of ranges in them.

use crate::call::{Call, answer, put};
use crate::mapping::Mapping;
use crate::result::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OUT_OF_MEMORY, CUresult};
use crate::state::{Owned, State};
use crate::stream;
use std::collections::VecDeque;

/// Allocations take whole blocks of a device's memory.
const BLOCK_BYTES: usize = 512;
/// How many bytes of freed memory stay readable, so that their poison is found.
const KEPT_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) owned: Owned,
    pub(crate) bytes: usize,
    mapping: Mapping,
}

/// Freed allocations; their addresses are not reused while any context lives.
#[derive(Debug)]
pub(crate) struct Freed {
    kept: VecDeque<Allocation>,
    kept_bytes: usize,
    given_back: Vec<Allocation>,
}

impl Freed {
    pub(crate) const fn new() -> Self {
        Freed { kept: VecDeque::new(), kept_bytes: 0, given_back: Vec::new() }
    }

    fn add(&mut self, allocation: Allocation) {
        allocation.mapping.poison();
        self.kept_bytes += allocation.bytes;
        self.kept.push_back(allocation);
        while self.kept_bytes > KEPT_BYTES
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.bytes;
            oldest.mapping.give_back();
            self.given_back.push(oldest);
        }
    }

    fn contains(&self, address: u64) -> bool {
        let mut all = self.kept.iter().chain(&self.given_back);
        all.any(|allocation| {
            let base = allocation.mapping.base() as u64;
            (base..base + allocation.bytes as u64).contains(&address)
        })
    }

    pub(crate) fn drop_all(&mut self) {
        *self = Self::new();
    }
}

impl State {
    /// The live allocation that the address is in, with its first address.
    pub(crate) fn allocation_at(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (base, allocation) = self.allocations.range(..=address).next_back()?;
        (address < base + allocation.bytes as u64).then_some((*base, allocation))
    }

    /// The first address of the allocation that contains the range; raises the alarm unless the
    /// range is inside an allocation of this context.
    pub(crate) fn device_range(
        &self,
        function: &str,
        context: usize,
        start: u64,
        bytes: u64,
    ) -> u64 {
        let Some((base, allocation)) = self.allocation_at(start) else {
            let what = if self.freed.contains(start) { "freed" } else { "not device" };
            alarm!("{function}: {start:#x} is {what} memory, outside all live allocations");
        };
        if allocation.owned.context != context {
            alarm!("{function}: the memory belongs to another context than the current one");
        }
        let left = base + allocation.bytes as u64 - start;
        if bytes > left {
            alarm!("{function}: {bytes} bytes go past the end of an allocation, {left} are left");
        }
        base
    }

    fn used_bytes(&self, context: usize) -> usize {
        let allocations = self.allocations.values();
        let own = allocations.filter(|allocation| allocation.owned.context == context);
        own.map(|allocation| allocation.bytes.next_multiple_of(BLOCK_BYTES)).sum()
    }

    fn free_bytes(&mut self, context: usize) -> usize {
        self.orders().memory_bytes.saturating_sub(self.used_bytes(context))
    }
}

/// Allocates device memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuMemAlloc_v2", &[bytes as u64])?;
        if bytes == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let rounded = bytes.checked_next_multiple_of(BLOCK_BYTES);
        if rounded.is_none_or(|bytes| bytes > call.state.free_bytes(call.context)) {
            return Err(CUDA_ERROR_OUT_OF_MEMORY);
        }
        let mapping = Mapping::new(bytes).map_err(|_| CUDA_ERROR_OUT_OF_MEMORY)?;
        let base = mapping.base() as u64;
        let allocation = Allocation { owned: Owned::by(call.context), bytes, mapping };
        call.state.allocations.insert(base, allocation);
        // SAFETY: the driver's contract.
        unsafe { put(pointer, base) }
    })
}

/// Frees device memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(pointer: u64) -> CUresult {
    answer(|| {
        let mut call = Call::of_context("cuMemFree_v2", &[]);
        if pointer == 0 {
            return call.unless_failing().map(drop);
        }
        check_base(&call, pointer);
        give_up(&mut call, pointer, true);
        // Calls without a stream complete before memory is freed.
        let mut call = stream::after_default_stream(call.unless_failing()?)?;
        check_base(&call, pointer); // the lock was released meanwhile
        stream::check_unused(&call.state, call.function, pointer);
        call.state.files.check_unused(call.function, pointer);
        if let Some(allocation) = call.state.allocations.remove(&pointer) {
            check_guards(call.function, &allocation);
            call.state.freed.add(allocation);
        }
        Ok(())
    })
}

fn check_base(call: &Call, pointer: u64) {
    let function = call.function;
    match call.state.allocations.get(&pointer) {
        Some(allocation) => call.same_context("memory", allocation.owned.context),
        None if call.state.freed.contains(pointer) => {
            alarm!("{function}: {pointer:#x} was freed before");
        }
        None => alarm!("{function}: {pointer:#x} is not the start of an allocation"),
    }
}

fn give_up(call: &mut Call, pointer: u64, given_up: bool) {
    if let Some(allocation) = call.state.allocations.get_mut(&pointer) {
        allocation.owned.given_up = given_up;
    }
}

fn check_guards(function: &str, allocation: &Allocation) {
    if !allocation.mapping.is_intact() {
        let bytes = allocation.bytes;
        alarm!("{function}: something wrote just outside the allocation of {bytes} bytes");
    }
}

/// Returns the free and the total bytes of the device's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuMemGetInfo_v2", &[])?;
        // An allocation drops page cache; until then the driver counts it as used.
        let page_cache_bytes = call.state.orders().page_cache_bytes.unwrap_or(0);
        let free_bytes = call.state.free_bytes(call.context).saturating_sub(page_cache_bytes);
        // SAFETY: the driver's contract, here and below.
        unsafe { put(free, free_bytes)? };
        // SAFETY: as above.
        unsafe { put(total, call.state.orders().memory_bytes) }
    })
}
