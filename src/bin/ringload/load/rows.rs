//! Rows of the trace viewer: spans that overlap in time get different rows.

use ringload::timeline::Period;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Returns the row of each period, the lowest that is free when it begins. A period may begin in the
/// row of another that ends at that moment.
pub fn rows(periods: &[Period]) -> Vec<usize> {
    let mut order: Vec<_> = (0..periods.len()).collect();
    order.sort_by_key(|&index| periods[index].start);
    let mut rows = vec![0; periods.len()];
    let mut free = BinaryHeap::<Reverse<usize>>::new();
    let mut taken = BinaryHeap::<Reverse<(Duration, usize)>>::new();
    for index in order {
        let Period { start, end } = periods[index];
        while let Some(&Reverse((until, row))) = taken.peek()
            && until <= start
        {
            taken.pop();
            free.push(Reverse(row));
        }
        // Every existing row is either free or taken.
        let row = free.pop().map_or(taken.len(), |Reverse(row)| row);
        taken.push(Reverse((end, row)));
        rows[index] = row;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(periods: &[(u64, u64)]) -> Vec<usize> {
        let period = |&(start, end): &(u64, u64)| Period {
            start: Duration::from_nanos(start),
            end: Duration::from_nanos(end),
        };
        rows(&periods.iter().map(period).collect::<Vec<_>>())
    }

    #[test]
    fn each_takes_the_lowest_row_that_is_free() {
        assert!(rows_of(&[]).is_empty());
        assert_eq!(rows_of(&[(0, 5), (1, 2), (2, 3), (3, 4), (4, 9), (4, 6)]), [0, 1, 1, 1, 1, 2]);
        assert_eq!(rows_of(&[(0, 10), (0, 4), (0, 6), (5, 7), (6, 8)]), [0, 1, 2, 1, 2]);
        // In any order, and of no length.
        assert_eq!(rows_of(&[(5, 7), (0, 6), (5, 5), (7, 7)]), [1, 0, 2, 0]);
    }

    #[test]
    fn none_overlap_within_a_row() {
        let periods: Vec<_> = (0..500_u64)
            .map(|i| {
                let start = i * 7919 % 1000;
                (start, start + i * 104_729 % 60)
            })
            .collect();
        let rows = rows_of(&periods);
        for (a, b) in (0..periods.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let apart = periods[a].1 <= periods[b].0 || periods[b].1 <= periods[a].0;
            assert!(rows[a] != rows[b] || apart, "{:?} {:?}", periods[a], periods[b]);
        }
    }
}
