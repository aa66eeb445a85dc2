#![allow(
    clippy::single_range_in_vec_init,
    clippy::reversed_empty_ranges,
    reason = "a slice takes an array of ranges, and refuses reversed ones"
)]

use super::*;

fn of(slice: &Slice, shape: &[usize]) -> Result<(Vec<usize>, Vec<u64>), String> {
    let found = slice.of(shape, 8)?;
    let run = found.runs.run_bytes();
    Ok((found.shape, found.runs.offsets().flat_map(|start| start..start + run).collect()))
}

/// The parts are those of `torch.chunk`: with 10 of 4, three each and the last one has one.
#[test]
fn shares_have_the_sizes_of_torch_chunk() {
    for (size, world, expected) in [
        (10, 4, vec![3, 3, 3, 1]),
        (8, 4, vec![2; 4]),
        (7, 2, vec![4, 3]),
        (5, 1, vec![5]),
        (6, 4, vec![2, 2, 2, 0]),
        (3, 5, vec![1, 1, 1, 0, 0]),
    ] {
        let mut next = 0;
        for (rank, &expected) in expected.iter().enumerate() {
            match of(&Slice::share(0, rank, world), &[size]) {
                Ok((shape, bytes)) => {
                    assert_eq!(shape, [expected], "{rank} of {world} of {size}");
                    assert_eq!(bytes, (next..next + expected as u64).collect::<Vec<_>>());
                    next += expected as u64;
                }
                Err(why) => {
                    assert_eq!(expected, 0, "{why}");
                    assert!(why.contains(&format!("rank {rank} of {world} gets nothing")), "{why}");
                }
            }
        }
        assert_eq!(next, size as u64);
    }
}

#[test]
fn a_packed_dimension_is_divided_piece_by_piece() {
    let second = Slice::share(0, 1, 2).packed(2);
    assert_eq!(of(&second, &[8, 1]).unwrap(), (vec![4, 1], vec![2, 3, 6, 7]));
    let inner = Slice::share(-1, 0, 2).packed(2);
    assert_eq!(of(&inner, &[2, 4]).unwrap(), (vec![2, 2], vec![0, 2, 4, 6]));
    let uneven = of(&second, &[7]).unwrap_err();
    assert!(
        uneven.contains("dimension 0 of size 7 does not consist of 2 equal pieces"),
        "{uneven}"
    );
}

#[test]
fn ranges_are_those_of_python_but_never_clipped() {
    let range = |start, end, step| Slice::new([SliceRange { start, end, step }]);
    let (shape, bytes) = of(&range(Some(-3), None, 2), &[6]).unwrap();
    assert_eq!((shape, bytes), (vec![2], vec![3, 5]));
    assert_eq!(of(&Slice::new([1..3]), &[4, 2]).unwrap(), (vec![2, 2], vec![2, 3, 4, 5]));
    assert_eq!(of(&Slice::new([..=1]), &[4]).unwrap().1, [0, 1]);
    assert_eq!(of(&Slice::whole(), &[]).unwrap(), (vec![], vec![0]));
    for (slice, shape, expected) in [
        (Slice::new([2..7]), &[6][..], "2:7 is not within dimension 0 of size 6"),
        (range(Some(-7), None, 1), &[6], "-7: is not within dimension 0"),
        (Slice::new([4..4]), &[6], "takes nothing of dimension 0"),
        (Slice::new([4..2]), &[6], "4:2 is not within dimension 0"),
        (range(None, None, 0), &[6], "the step of dimension 0 is 0"),
        (range(None, None, -1), &[6], "the step of dimension 0 is -1"),
        (Slice::new([0..1, 0..1]), &[6], "2 dimensions are sliced of 1"),
        (Slice::new([0..1]), &[], "a scalar has no dimension"),
        (Slice::share(0, 0, 2), &[], "a scalar has no dimension"),
        (Slice::share(0, 0, 0), &[6], "the number of ranks is 0"),
        (Slice::share(0, 2, 2), &[6], "rank 2 is not below the number of ranks, 2"),
        (Slice::share(1, 0, 2), &[6], "no dimension 1: the tensor has 1 dimension"),
        (Slice::share(-3, 0, 2), &[6, 6], "no dimension -3: the tensor has 2 dimensions"),
        (Slice::share(isize::MIN, 0, 2), &[6], "there is no dimension"),
        (Slice::new([usize::MAX..usize::MAX]), &[6], "not within dimension 0"),
    ] {
        let why = of(&slice, shape).expect_err(expected);
        assert!(why.contains(expected), "{slice}: {why}");
    }
    // A dimension without indices has only empty slices.
    assert_eq!(of(&Slice::share(0, 1, 2), &[0, 3]).unwrap().0, [0, 3]);
}

/// A block-quantized tensor has one scale for each 128 elements. A slice that ends within a block
/// would belong to two ranks' scales.
#[test]
fn a_slice_that_cuts_a_block_is_refused() {
    let share = |rank, world| Slice::share(0, rank, world).blocks_of(128);
    assert_eq!(of(&share(1, 2), &[512]).unwrap().0, [256]);
    // The last block of a tensor may be shorter.
    assert_eq!(
        of(&share(1, 2), &[500]).map(|found| found.0),
        Err("250..500 of dimension 0 of size 500 would cut a block of 128 elements".to_owned())
    );
    assert_eq!(of(&Slice::new([384..500]).blocks_of(128), &[500]).unwrap().0, [116]);
    assert_eq!(of(&share(0, 1), &[100]).unwrap().0, [100], "all of it cuts nothing");
    let none = of(&share(0, 1).blocks_of(0), &[100]).unwrap_err();
    assert!(none.contains("at least one element"), "{none}");
    // Elements of 4 bits: a byte has two of them.
    let odd = Slice::new([0..3]).of(&[8], 4).unwrap_err();
    assert!(odd.contains("would cut a byte"), "{odd}");
    assert_eq!(Slice::new([2..4]).of(&[8], 4).unwrap().runs.len_bytes(), 1);
}

#[test]
fn slices_are_written_as_the_command_line_has_them() {
    let texts = [
        (Slice::share(-1, 2, 4), "-1:2/4"),
        (
            Slice::share(0, 0, 2).packed(2).blocks_of(64),
            "0:0/2 of each of 2 pieces in blocks of 64",
        ),
        (Slice::new([SliceRange::from(1..3), (..).into()]), "[1:3, :]"),
    ];
    for (slice, text) in texts {
        assert_eq!(slice.to_string(), text);
    }
}
