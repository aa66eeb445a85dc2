use super::*;
use crate::cast::Cast;
use crate::ring::Ring;
use crate::source::memory::MemorySource;
use crate::test_files::{checkpoint_of, file_at, float_file};
use std::sync::Arc;

/// A tensor of 3 elements of `dtype`, at `start` of a slot of a ring of one slot.
fn tensor(dtype: &str, bytes: usize, start: usize) -> (Tensor, Arc<Ring>) {
    let checkpoint = checkpoint_of(vec![MemorySource::new("f", float_file(&[(dtype, bytes)]))]);
    let ring = Ring::new(4096, 4096).unwrap();
    let mut windows = ring.allocate(4096).unwrap().into_windows(&[4096]);
    windows[0].unfilled_mut().fill(7);
    windows[0].set_filled(4096);
    let slot = windows.pop().unwrap().complete().unwrap();
    (Tensor::new(checkpoint, 0, Storage::from_slot(slot), start), ring)
}

/// Exports a tensor of which nobody in these tests takes a slice.
fn writable(tensor: &Tensor, how: Exporting) -> Result<Export> {
    // SAFETY: as said.
    unsafe { tensor.export_writable(how) }
}

fn delete(managed: NonNull<DlManagedTensorVersioned>) {
    // SAFETY: just made, and its deleter is called here alone.
    unsafe { managed.as_ref().deleter.unwrap()(managed.as_ptr()) };
}

#[test]
fn what_is_exported_is_the_memory_itself_until_the_deleter_runs_on_any_thread() {
    let (tensor, ring) = tensor("F32", 12, 64);
    let address = tensor.address();
    let managed = writable(&tensor, Exporting::default()).unwrap().into_versioned();
    drop(tensor);
    // SAFETY: just made.
    let view = unsafe { managed.as_ref() };
    assert_eq!((view.version, view.flags), (VERSION, 0));
    assert_eq!(view.dl_tensor.data as u64, address);
    assert_eq!(view.dl_tensor.device, DlDevice { device_type: 1, device_id: 0 });
    assert_eq!(view.dl_tensor.dtype, DlDataType { code: 2, bits: 32, lanes: 1 });
    assert_eq!((view.dl_tensor.ndim, view.dl_tensor.byte_offset), (1, 0));
    // SAFETY: one dimension.
    assert_eq!(unsafe { (*view.dl_tensor.shape, *view.dl_tensor.strides) }, (3, 1));
    assert_eq!(ring.usage().slots, 1, "the slot is held");
    let pointer = managed.as_ptr() as usize;
    let other = std::thread::spawn(move || {
        delete(NonNull::new(pointer as *mut DlManagedTensorVersioned).unwrap());
    });
    other.join().unwrap();
    assert_eq!(ring.usage().slots, 0, "and given back");
}

#[test]
fn both_structures_give_the_tensor_back() {
    let (tensor, ring) = tensor("F32", 12, 0);
    let managed = writable(&tensor, Exporting::default()).unwrap().into_legacy().unwrap();
    drop(tensor);
    assert_eq!(ring.usage().slots, 1);
    // SAFETY: just made, and called once.
    unsafe { managed.as_ref().deleter.unwrap()(managed.as_ptr()) };
    assert_eq!(ring.usage().slots, 0);
}

/// Safe code may have slices of a tensor that it exports.
#[test]
fn a_safe_export_is_read_only_unless_it_is_a_copy() {
    let (tensor, _ring) = tensor("F32", 12, 0);
    for (copy, flags) in [(None, FLAG_READ_ONLY), (Some(true), FLAG_IS_COPIED)] {
        let export = || tensor.export(Exporting { copy, ..Exporting::default() }).unwrap();
        let managed = export().into_versioned();
        // SAFETY: just made.
        assert_eq!(unsafe { managed.as_ref() }.flags, flags);
        delete(managed);
        assert_eq!(export().into_legacy().is_ok(), copy.is_some());
    }
    assert!(!tensor.exports_at_once(), "it was lent");
}

#[test]
fn what_is_not_aligned_for_its_type_is_copied_once_asked() {
    let (tensor, _ring) = tensor("F32", 12, 2);
    let managed = tensor.export(Exporting::default()).unwrap().into_versioned();
    // SAFETY: just made.
    let view = unsafe { managed.as_ref() };
    assert_eq!(view.flags, FLAG_IS_COPIED);
    assert_eq!(view.dl_tensor.data as usize % 64, 0);
    // SAFETY: 12 bytes.
    let bytes = unsafe { std::slice::from_raw_parts(view.dl_tensor.data.cast::<u8>(), 12) };
    assert_eq!(bytes, [7; 12]);
    delete(managed);
    let never = Exporting { copy: Some(false), ..Exporting::default() };
    let error = tensor.export(never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("alignment"), "{error}");
}

#[test]
fn pages_of_a_file_are_read_only_and_old_consumers_do_not_get_them() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), file_at("t", &[12], 64)).unwrap();
    let loader = crate::Loader::new().read_path(crate::ReadPath::Mapped);
    let tensor = loader.stream(file.path()).unwrap().next().unwrap().unwrap();
    let copy = Exporting { copy: Some(true), ..Exporting::default() };
    let managed = tensor.export(copy).unwrap().into_versioned();
    // SAFETY: just made.
    assert_eq!(unsafe { managed.as_ref() }.flags, FLAG_IS_COPIED, "a copy may be written to");
    delete(managed);
    let export = || writable(&tensor, Exporting::default()).unwrap();
    let managed = export().into_versioned();
    // SAFETY: just made.
    assert_eq!(unsafe { managed.as_ref() }.flags, FLAG_READ_ONLY);
    delete(managed);
    assert!(export().into_legacy().unwrap_err().to_string().contains("another read path"));
}

#[test]
fn every_type_is_also_an_integer_of_the_same_size() {
    for (name, code, integer) in [
        ("BOOL", 6, 1),
        ("U8", 1, 1),
        ("I8", 0, 1),
        ("F8_E4M3", 10, 1),
        ("F8_E5M2", 12, 1),
        ("F8_E8M0", 14, 1),
        ("F8_E4M3FNUZ", 11, 1),
        ("F8_E5M2FNUZ", 13, 1),
        ("I16", 0, 0),
        ("U16", 1, 0),
        ("F16", 2, 0),
        ("BF16", 4, 0),
        ("I32", 0, 0),
        ("U32", 1, 0),
        ("F32", 2, 0),
        ("C64", 5, 0),
        ("F64", 2, 0),
        ("I64", 0, 0),
        ("U64", 1, 0),
    ] {
        let checkpoint = checkpoint_of(vec![MemorySource::new("f", typed(name, "2,3"))]);
        let bytes = checkpoint.data_bytes() as usize;
        let room = crate::tensor::aligned::Aligned::zeroed(bytes).unwrap();
        let tensor = Tensor::new(checkpoint, 0, Storage::own(room), 0);
        let dtype =
            |as_integers| tensor.export(Exporting { as_integers, copy: None }).unwrap().dtype;
        let bits = tensor.dtype().bitsize() as u8;
        assert_eq!(dtype(false), DlDataType { code, bits, lanes: 1 }, "{name}");
        assert_eq!(dtype(true), DlDataType { code: integer, bits, lanes: 1 }, "{name}");
    }
}

#[test]
fn what_is_narrower_than_a_byte_is_packed_or_given_as_bytes() {
    for (name, shape, plain_shape, (code, lanes), packed_shape) in [
        ("F4", "3,4", &[3, 2][..], (17, 2), &[3, 2][..]),
        ("F4", "2,3", &[3], (17, 1), &[2, 3]),
        ("F6_E2M3", "2,4", &[2, 3], (15, 1), &[2, 4]),
        ("F6_E3M2", "4,3", &[9], (16, 1), &[4, 3]),
        ("F4", "0,4", &[0, 2], (17, 2), &[0, 2]),
    ] {
        let checkpoint = checkpoint_of(vec![MemorySource::new("f", typed(name, shape))]);
        let room = crate::tensor::aligned::Aligned::zeroed(9).unwrap();
        let tensor = Tensor::new(checkpoint, 0, Storage::own(room), 0);
        let packed = tensor.export(Exporting::default()).unwrap();
        assert_eq!(packed.shape(), packed_shape, "{name} {shape}");
        let bits = tensor.dtype().bitsize() as u8;
        assert_eq!(packed.dtype(), DlDataType { code, bits, lanes });
        let plain = tensor.export(Exporting { as_integers: true, copy: None }).unwrap();
        assert_eq!(plain.shape, plain_shape, "{name} {shape}");
        assert_eq!(plain.dtype, DlDataType { code: 1, bits: 8, lanes: 1 });
    }
}

/// The file of one tensor of this type.
fn typed(dtype: &str, shape: &str) -> Vec<u8> {
    let elements: usize = shape.split(',').map(|n| n.parse::<usize>().unwrap()).product();
    let bits = Dtype::from_name(dtype).unwrap().bitsize();
    let bytes = elements * bits / 8;
    let header =
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.resize(file.len() + bytes, 7);
    file
}

#[test]
fn a_cast_tensor_is_exported_as_what_it_is_now() {
    let checkpoint = checkpoint_of(vec![MemorySource::new("f", float_file(&[("F32", 12)]))]);
    let room = crate::tensor::aligned::Aligned::zeroed(6).unwrap();
    let tensor = Tensor::new(checkpoint, 0, Storage::own(room), 0);
    let tensor = tensor.cast(Cast::new(Dtype::F32, Dtype::BF16));
    let export = tensor.export(Exporting::default()).unwrap();
    assert_eq!(export.dtype, DlDataType { code: 4, bits: 16, lanes: 1 });
}
