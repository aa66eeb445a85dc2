use super::*;
use crate::source::memory::{Fault, MemorySource};
use crate::test_files::checkpoint_of;
use crate::{Dtype, ErrorKind};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// A checkpoint of one tensor `t` of U16 whose elements count up, in blocks of `block_bytes`; and how
/// many bytes engines read of it.
fn counting(shape: &[usize], block_bytes: usize) -> (Arc<Checkpoint>, Arc<AtomicU64>) {
    let elements: usize = shape.iter().product();
    let header = format!(
        r#"{{"t":{{"dtype":"U16","shape":{shape:?},"data_offsets":[0,{}]}}}}"#,
        2 * elements
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend((0..elements).flat_map(|i| (i as u16).to_le_bytes()));
    let read_bytes = Arc::<AtomicU64>::default();
    let count = Arc::clone(&read_bytes);
    let source = MemorySource::faulty("t.safetensors", file, block_bytes, move |_, _, asked| {
        count.fetch_add(asked as u64, Ordering::Relaxed);
        Fault::None
    });
    (checkpoint_of(vec![source]), read_bytes)
}

fn elements(tensor: &Tensor) -> Vec<u16> {
    tensor.bytes().chunks(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
}

/// What numpy would give: the elements picked, one by one.
fn picked(shape: &[usize], picks: &[Pick]) -> Vec<u16> {
    let mut indices = vec![0];
    for (pick, &size) in picks.iter().zip(shape) {
        let along =
            |outer: usize| (0..pick.count).map(move |i| outer * size + pick.start + i * pick.step);
        indices = indices.into_iter().flat_map(along).collect();
    }
    indices.into_iter().map(|index| index as u16).collect()
}

fn dimension() -> impl Strategy<Value = (usize, Pick)> {
    (0_usize..40, 0_usize..40, 0_usize..40, 1_usize..5).prop_map(|(size, start, count, step)| {
        let start = start.min(size);
        (size, Pick { start, count: count.min((size - start).div_ceil(step)), step })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_are_what_was_picked(
        dimensions in prop::collection::vec(dimension(), 0..4),
        block_bytes in prop::sample::select(vec![1_usize, 4096]),
    ) {
        let (shape, picks): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
        let (checkpoint, _) = counting(&shape, block_bytes);
        let part = Loader::new().read_tensor(&checkpoint, "t", Some(&picks)).unwrap();
        prop_assert_eq!(elements(&part), picked(&shape, &picks));
        let counts: Vec<_> = picks.iter().map(|pick| pick.count).collect();
        prop_assert_eq!(part.shape(), &counts[..]);
        let whole = Loader::new().read_tensor(&checkpoint, "t", None).unwrap();
        prop_assert_eq!(whole.len_bytes(), 2 * shape.iter().product::<usize>());
    }
}

#[test]
fn only_what_is_needed_is_read() {
    // 2000 rows of 1 KiB; 2 MB in all.
    let shape = [2000, 512];
    let (checkpoint, read_bytes) = counting(&shape, 4096);
    let read = |picks: [Pick; 2]| {
        read_bytes.store(0, Ordering::Relaxed);
        let part = Loader::new().read_tensor(&checkpoint, "t", Some(&picks)).unwrap();
        assert_eq!(elements(&part), picked(&shape, &picks));
        read_bytes.load(Ordering::Relaxed)
    };
    let all = Pick::all(512);
    // Rows: one run.
    assert_eq!(read([Pick { start: 100, count: 1500, step: 1 }, all]), 1500 * 1024);
    // Rows far apart: each by itself.
    assert_eq!(read([Pick { start: 0, count: 20, step: 100 }, all]), 20 * 1024);
    // A column: near runs are read together, and nothing before the first or behind the last.
    let column =
        read([Pick { start: 10, count: 1000, step: 1 }, Pick { start: 3, count: 1, step: 1 }]);
    assert_eq!(column, 999 * 1024 + 2);
}

#[test]
fn what_is_much_is_right_too() {
    // 9 MB in rows of 600 KB: long runs; columns of it: 15 short ones, far apart.
    let shape = [15, 300_000];
    let (checkpoint, _) = counting(&shape, 4096);
    for picks in [
        [Pick::all(15), Pick { start: 1, count: 299_000, step: 1 }],
        [Pick { start: 2, count: 6, step: 2 }, Pick { start: 7, count: 100, step: 3 }],
        [Pick { start: 1, count: 14, step: 1 }, Pick::all(300_000)],
    ] {
        let part = Loader::new().read_tensor(&checkpoint, "t", Some(&picks)).unwrap();
        assert!(elements(&part) == picked(&shape, &picks), "{picks:?}");
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let (checkpoint, _) = counting(&[4, 4], 1);
    let read = |name, picks: &[Pick]| {
        let error = Loader::new().read_tensor(&checkpoint, name, Some(picks)).unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, sentence) = read("u", &[]);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(sentence.contains("\"u\""), "{sentence}");
    let beyond = Pick { start: 3, count: 2, step: 1 };
    let (kind, sentence) = read("t", &[Pick::all(4), beyond]);
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert!(sentence.contains("dimension 1 of size 4"), "{sentence}");
}

/// Users could load a tensor of F4 with all others, but not read it alone: any part of it was
/// refused, also one that is all of it. Every part of whole bytes can be read, and no other.
#[test]
fn elements_narrower_than_a_byte_are_read_in_whole_bytes() {
    for (dtype, bits, row) in [("F4", 4, 6), ("F6_E2M3", 6, 8), ("F6_E3M2", 6, 8)] {
        let bytes: usize = 5 * row * bits / 8;
        let header = format!(
            r#"{{"t":{{"dtype":"{dtype}","shape":[5,{row}],"data_offsets":[0,{bytes}]}}}}"#
        );
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.into_bytes());
        let data: Vec<u8> = (0..bytes as u8).collect();
        file.extend(&data);
        let checkpoint = checkpoint_of(vec![MemorySource::new("t", file)]);
        let read = |picks: Option<&[Pick]>| Loader::new().read_tensor(&checkpoint, "t", picks);
        let all = [Pick::all(5), Pick::all(row)];
        for picks in [None, Some(&all[..])] {
            let whole = read(picks).unwrap();
            assert_eq!((whole.bytes(), whole.shape()), (&data[..], &[5, row][..]), "{dtype}");
        }
        let row_bytes = row * bits / 8;
        let rows = read(Some(&[Pick { start: 1, count: 2, step: 3 }, Pick::all(row)])).unwrap();
        assert_eq!(rows.shape(), [2, row]);
        assert_eq!(rows.len_bytes(), 2 * row_bytes);
        let expected = [&data[row_bytes..2 * row_bytes], &data[4 * row_bytes..]].concat();
        assert_eq!(rows.bytes(), expected);
        let half = Pick { start: 0, count: row / 2, step: 1 };
        let half = read(Some(&[Pick::all(5), half]));
        match row / 2 * bits % 8 {
            0 => assert_eq!(half.unwrap().len_bytes(), 5 * row_bytes / 2),
            _ => assert!(half.is_err()),
        }
        let error = read(Some(&[Pick::all(5), Pick { start: 1, count: 2, step: 1 }])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let sentence = error.to_string();
        assert!(sentence.contains(dtype) && sentence.contains("would cut a byte"), "{sentence}");
    }
}

#[test]
fn parts_are_cast_as_loads_are() {
    let (checkpoint, _) = counting(&[4, 4], 1);
    // U16 is not cast, by any load.
    let loader = Loader::new().dtype(Dtype::F32);
    let part = loader.read_tensor(&checkpoint, "t", Some(&[Pick::all(4); 2])).unwrap();
    assert_eq!((part.dtype(), part.len_bytes()), (Dtype::U16, 32));
    let header = r#"{"f":{"dtype":"F16","shape":[3],"data_offsets":[0,6]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend([0x00, 0x3c, 0x00, 0x40, 0x00, 0xc0]); // 1, 2, -2
    let checkpoint = checkpoint_of(vec![MemorySource::new("f", file)]);
    let two = [Pick { start: 1, count: 2, step: 1 }];
    let part = loader.read_tensor(&checkpoint, "f", Some(&two)).unwrap();
    assert_eq!((part.dtype(), part.len_bytes()), (Dtype::F32, 8));
    assert_eq!(part.bytes(), [2.0_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
}

/// A part has its own shape and length, and is handed on as numbers and as `Bytes` without a copy;
/// `Bytes` keep the memory when the tensor is gone.
#[test]
fn a_part_is_a_view_of_its_own_shape() {
    let (checkpoint, _) = counting(&[4, 6], 1);
    let picks = [(1..3).into(), Pick::from(2..6)];
    let part = Loader::new().read_tensor(&checkpoint, "t", Some(&picks)).unwrap();
    assert_eq!((part.shape(), part.info().shape()), (&[2, 4][..], &[4, 6][..]));
    assert_eq!(part.as_slice::<u16>().unwrap(), [8, 9, 10, 11, 14, 15, 16, 17]);
    let why = part.as_slice::<i16>().unwrap_err();
    assert_eq!((why.kind(), why.to_string().contains("\"t\"")), (ErrorKind::InvalidInput, true));
    assert_eq!(part.as_ref(), part.bytes());
    let (address, expected) = (part.address(), part.bytes().to_vec());
    let bytes = bytes::Bytes::from(part);
    assert_eq!((bytes.as_ptr() as u64, &bytes[..]), (address, &expected[..]));
    let backwards = std::ops::Range { start: 3, end: 1 };
    assert_eq!(Pick::from(backwards).count, 0);
}
