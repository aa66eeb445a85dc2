//! The sizes of memory under a limit.

use super::*;
use crate::ErrorKind;
use crate::error::Size;
use crate::plan::tensor_sizes::{
    FILE_PIECE_BYTES, GATHER_RING_BYTES, GPU_FILE_RING_BYTES, GPU_RING_BYTES,
};

fn host(largest: u64, total: u64) -> TensorSizes {
    TensorSizes {
        host_largest_bytes: largest,
        host_bytes: total,
        block_bytes: 4096,
        ..TensorSizes::default()
    }
}

/// The host's ring for slots of these sizes.
fn ring(sizes: &LoadSizes, total_bytes: u64, largest_bytes: u64) -> u64 {
    let slots = SlotSizes { total_bytes, largest_bytes };
    sizes.with_slots(slots, SlotSizes::default()).host_ring_bytes
}

fn gpu(total: u64) -> TensorSizes {
    TensorSizes { device_bytes: total, ..host(0, 0) }
}

#[test]
fn a_limit_below_the_largest_tensor_names_both_sizes() {
    let error = LoadSizes::new(MemoryLimit::Bytes(99), host(100, 1000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    let text = error.to_string();
    assert!(text.contains("99 bytes") && text.contains("100 bytes"), "{text}");
}

#[test]
fn a_limit_below_the_largest_tensor_and_its_cast_names_all_sizes() {
    let tensors = TensorSizes { host_largest_cast_bytes: 50, ..host(150, 1000) };
    let text = LoadSizes::new(MemoryLimit::Bytes(149), tensors).unwrap_err().to_string();
    for size in ["149 bytes", "100 bytes as stored", "50 bytes as it is cast", "least 150"] {
        assert!(text.contains(size), "{text}");
    }
}

#[test]
fn the_ring_never_exceeds_load_or_limit_by_more_than_one_slot_s_blocks() {
    let sizes = LoadSizes::new(MemoryLimit::Min, host(1 << 20, 1 << 30)).unwrap();
    let slot = (1 << 20) + 2 * 4096;
    assert_eq!(ring(&sizes, 1 << 30, slot), slot);
    assert_eq!(ring(&sizes, slot, slot), slot);
    let roomy = LoadSizes::new(MemoryLimit::Bytes(1 << 30), host(10, 1000)).unwrap();
    assert_eq!(ring(&roomy, 8192, 8192), 8192);
}

#[test]
fn for_a_gpu_two_slots_are_enough_and_less_is_an_error() {
    let least = 2 * ((64 << 10) + 2 * 4096);
    for limit in [least, least + 1, 1 << 20, 7 << 20, 64 << 20, 1 << 30, 1 << 40] {
        let sizes = LoadSizes::new(MemoryLimit::Bytes(limit), gpu(1 << 40)).unwrap();
        assert_eq!(sizes.gpu_ring_bytes_max, limit);
        assert_eq!(sizes.piece_bytes % 4096, 0);
        assert!((64 << 10..=FILE_PIECE_BYTES).contains(&sizes.piece_bytes), "{sizes:?}");
        assert!(2 * (sizes.piece_bytes + 2 * 4096) <= limit, "{sizes:?}");
    }
    let error = LoadSizes::new(MemoryLimit::Bytes(least - 1), gpu(1)).unwrap_err().to_string();
    assert!(error.contains(&format!("{} bytes", least - 1)), "{error}");
    assert!(error.contains(&format!("at least {}", Size(least))), "{error}");
    let unlimited = LoadSizes::new(MemoryLimit::Unlimited, gpu(1 << 40)).unwrap();
    assert_eq!((unlimited.gpu_ring_bytes_max, unlimited.limit_bytes), (GPU_FILE_RING_BYTES, None));
    // A body takes its time, so more of them have to be on the way, and few requests are better than many.
    let remote = TensorSizes { is_remote: true, ..gpu(1 << 40) };
    let remote = LoadSizes::new(MemoryLimit::Unlimited, remote).unwrap();
    assert_eq!((remote.gpu_ring_bytes_max, remote.piece_bytes), (GPU_RING_BYTES, 8 << 20));
    let min = LoadSizes::new(MemoryLimit::Min, gpu(1 << 40)).unwrap();
    assert_eq!(min.limit_bytes, Some(min.gpu_ring_bytes_max));
    assert!(min.gpu_ring_bytes_max < 3 << 20);
}

#[test]
fn a_caller_that_holds_one_tensor_has_room_for_the_next_wherever_that_one_lies() {
    let tensors = host(5 << 20, 1 << 30);
    let limit = LoadSizes::new(MemoryLimit::MinHoldingOne, tensors).unwrap().limit_bytes.unwrap();
    let slot = (5 << 20) + 2 * 4096;
    // The worst place is the middle.
    assert!((limit - slot) / 2 >= slot && limit < 16 << 20, "{limit}");
    let gpus = LoadSizes::new(MemoryLimit::MinHoldingOne, gpu(1 << 40)).unwrap();
    assert_eq!(gpus, LoadSizes::new(MemoryLimit::Min, gpu(1 << 40)).unwrap());
}

#[test]
fn host_and_gpu_share_a_limit() {
    for (largest, limit) in [(1 << 20, 2 << 20), (1 << 30, (1 << 30) + (147 << 10)), (10, 1 << 34)]
    {
        let tensors = TensorSizes { device_bytes: 1 << 34, ..host(largest, 1 << 34) };
        let sizes = LoadSizes::new(MemoryLimit::Bytes(limit), tensors).unwrap();
        let host_part = sizes.host_limit_bytes.unwrap();
        assert_eq!(host_part + sizes.gpu_ring_bytes_max, limit);
        assert!(host_part >= largest && sizes.gpu_ring_bytes_max >= 2 * (72 << 10), "{sizes:?}");
    }
}

/// Pieces pass through memory that the limit counts, and the tensors get the rest.
#[test]
fn gathered_parts_leave_room_for_their_pieces() {
    let part = 100 << 20;
    let tensors = TensorSizes { gathered_bytes: 10 * part, ..host(part, 10 * part) };
    let unlimited = LoadSizes::new(MemoryLimit::Unlimited, tensors).unwrap();
    assert_eq!((unlimited.gather_ring_bytes, unlimited.gather_bytes), (GATHER_RING_BYTES, 8 << 20));
    let limit = 400 << 20;
    let limited = LoadSizes::new(MemoryLimit::Bytes(limit), tensors).unwrap();
    assert_eq!(limited.gather_ring_bytes + limited.host_limit_bytes.unwrap(), limit);
    let few = limited.with_gathered(SlotSizes { total_bytes: 4096, largest_bytes: 4096 });
    assert_eq!(few.gather_ring_bytes, 4096);
    let least = unlimited.least_bytes();
    let tight = LoadSizes::new(MemoryLimit::Bytes(least), tensors).unwrap();
    assert_eq!(tight.host_limit_bytes, Some(part));
    assert!(2 * (tight.gather_bytes + 2 * tight.block_bytes) <= tight.gather_ring_bytes);
    let error = LoadSizes::new(MemoryLimit::Bytes(least - 1), tensors).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
}
