//! Agreement with the `safetensors` crate: files that it writes, and files made from them.
//!
//! Either both accept a file and read the same tensors and metadata from it, or both refuse it,
//! except for the [`EXCEPTIONS`]. And what the quick parser accepts, the one of any form accepts and reads
//! alike.

use super::super::Checkpoint;
use super::super::scan::tests::scanned_in_pieces;
use super::super::tests::{entry, file_of, open_bytes};
use crate::dtype::Dtype;
use proptest::prelude::*;
use safetensors::tensor::{Metadata, SafeTensors, TensorView};
use std::collections::HashMap;

/// A file written by the `safetensors` crate.
fn written_file() -> impl Strategy<Value = Vec<u8>> {
    let shape = prop::collection::vec(0..5usize, 0..4);
    let tensor = (0..Dtype::ALL.len(), shape);
    let tensors = prop::collection::hash_map("\\PC{0,12}", tensor, 0..8);
    // For no tensors and empty metadata the crate (0.8.0) writes a header that it cannot read.
    let metadata = prop::option::of(prop::collection::hash_map(".{0,5}", ".{0,5}", 1..3));
    (tensors, metadata).prop_map(|(tensors, metadata)| serialize(tensors, metadata))
}

fn serialize(
    tensors: HashMap<String, (usize, Vec<usize>)>,
    metadata: Option<HashMap<String, String>>,
) -> Vec<u8> {
    let zeros = vec![0; 1024];
    let mut views = HashMap::new();
    for (name, (dtype, mut shape)) in tensors {
        let dtype = Dtype::ALL[dtype];
        if dtype.bitsize() < 8 {
            shape.push(4);
        }
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let view = TensorView::new(dtype.into(), shape, &zeros[..bytes.min(1024)]);
        // 4 * 4 * 4 elements of 8 bytes, or 4 times as many of 6 bits, are within the zeros.
        views.insert(name, view.unwrap());
    }
    safetensors::serialize(views, metadata).unwrap()
}

/// Checks that `ours` is what the `safetensors` crate reads in `bytes`.
fn assert_same(ours: &Checkpoint, bytes: &[u8]) {
    let theirs = SafeTensors::deserialize(bytes).unwrap();
    assert_eq!(ours.tensors().len(), theirs.len());
    let (header_bytes, header) = SafeTensors::read_metadata(bytes).unwrap();
    assert_same_header(ours, header_bytes, &header);
}

fn assert_same_header(ours: &Checkpoint, header_bytes: usize, header: &Metadata) {
    assert_eq!(ours.tensors().len(), header.tensors().len());
    assert_eq!(ours.shards()[0].data_offset_bytes(), 8 + header_bytes as u64);
    for tensor in ours.tensors() {
        let info = header.info(tensor.name()).unwrap();
        let (begin, end) = info.data_offsets;
        assert_eq!((tensor.dtype().into(), tensor.shape()), (info.dtype, info.shape.as_slice()));
        assert_eq!(tensor.offset_bytes(), (8 + header_bytes + begin) as u64);
        assert_eq!(tensor.len_bytes(), (end - begin) as u64);
        assert_eq!(ours.tensor(tensor.name()), Some(tensor));
    }
    let metadata: HashMap<_, _> = ours.metadata().clone().into_iter().collect();
    assert_eq!(metadata, header.metadata().clone().unwrap_or_default());
}

/// Parts of the messages of those refusals where the crate is laxer, each with the reason why ringload
/// is stricter.
const EXCEPTIONS: [(&str, &str); 4] = [
    (" occurs twice", "of two tensors of one name the crate keeps either, and loses the other"),
    ("the header begins with ", "the format demands that the header begins with a brace"),
    (
        "invalid type: sequence, expected an object with dtype",
        "the format knows no arrays as entries of tensors; serde reads them as structures",
    ),
    (
        "dtype: invalid type: map, expected a string",
        "the format knows no objects as types; serde reads {\"F32\":null} as the type F32",
    ),
];

/// What both say about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    Accepted,
    Refused,
    /// By ringload alone, for a reason of [`EXCEPTIONS`].
    Exception,
}

/// Whether the quick parser accepts the header of the file `bytes`. If it does, the one of any form has to
/// read the header alike.
pub(super) fn is_scanned(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    let len = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some((text, data)) = rest.split_at_checked(len) else { return false };
    scanned_in_pieces(text, data.len() as u64).is_some()
}

/// Checks that `bytes` is accepted by both, and read alike, or by neither.
pub(super) fn assert_agreement(bytes: &[u8]) -> Agreement {
    is_scanned(bytes);
    match (open_bytes(bytes.to_vec()), SafeTensors::read_metadata(bytes)) {
        (Ok(ours), Ok((header_bytes, header))) => {
            assert_same_header(&ours, header_bytes, &header);
            Agreement::Accepted
        }
        (Err(ours), theirs) => {
            let refusal = ours.to_string();
            assert!(refusal.len() < 4096, "a message of {} bytes", refusal.len());
            assert!(!refusal.contains(|c: char| c.is_control()), "{refusal:?}");
            if theirs.is_err() {
                return Agreement::Refused;
            }
            let is_exception = EXCEPTIONS.iter().any(|(part, _)| refusal.contains(part));
            assert!(is_exception, "only we refuse it: {refusal}");
            Agreement::Exception
        }
        (Ok(_), Err(theirs)) => panic!("only we accept it: {theirs}"),
    }
}

/// A byte to write into a header: mostly characters that have a meaning in JSON.
fn mutated_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => prop::sample::select(b"{}[]\",:\\ 0123456789-.eEabFU_\n".to_vec()),
        1 => any::<u8>(),
    ]
}

proptest! {
    #[test]
    fn what_the_crate_writes_is_read_alike(bytes in written_file()) {
        assert_same(&open_bytes(bytes.clone()).unwrap(), &bytes);
        // Of what the crate writes, only escapes are left to the slow parser.
        let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let has_escapes = bytes[8..8 + header_bytes].contains(&b'\\');
        assert!(is_scanned(&bytes) || has_escapes);
    }

    #[test]
    fn mutations_never_panic_and_are_judged_alike(
        bytes in written_file(),
        mutations in prop::collection::vec(
            (any::<prop::sample::Index>(), mutated_byte(), 0..3u8),
            1..4,
        ),
    ) {
        let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = bytes[8..8 + header_bytes].to_vec();
        for (at, byte, how) in mutations {
            let at = at.index(header.len());
            match how {
                0 => header[at] = byte,
                1 => header.insert(at, byte),
                _ => drop(header.remove(at)),
            }
        }
        assert_agreement(&file_of(&header, bytes.len() - 8 - header_bytes));
    }

    #[test]
    fn mutations_of_the_length_and_the_end_are_judged_alike(
        mut bytes in written_file(),
        at in 0..8usize,
        byte in any::<u8>(),
        cut in 0..20usize,
    ) {
        let kept = bytes.len().saturating_sub(cut);
        assert_agreement(&bytes[..kept]);
        bytes[at] = byte;
        assert_agreement(&bytes);
    }

    #[test]
    fn rearranged_entries_are_judged_alike(
        entries in prop::collection::vec(
            ("[ab]", 0..Dtype::ALL.len(), prop::collection::vec(0..3usize, 0..3), 0..9u64, 0..9u64),
            0..4,
        ),
        data_bytes in 0..9usize,
    ) {
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, dtype, shape, begin, end)| {
                entry(name, &Dtype::ALL[*dtype].to_string(), &format!("{shape:?}"), *begin, *end)
            })
            .collect();
        assert_agreement(&file_of(format!("{{{}}}", entries.join(",")).as_bytes(), data_bytes));
    }
}
