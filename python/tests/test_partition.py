"""Spans of tensors are complete, in order, and as even as whole tensors allow; so are readers."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from ringload import IoError, UnreachableError
from ringload.distributed import failure, spans
from ringload.distributed.readers import Readable, readers


def best(sizes: list[int], ranks: int) -> int:
    """Returns the smallest possible size of the largest span, by trying all cuts."""
    cuts = combinations(range(len(sizes) + 1), ranks - 1)
    every = ([0, *sorted(cut), len(sizes)] for cut in cuts)
    return min(max(sum(sizes[a:b]) for a, b in zip(cut, cut[1:])) for cut in every)


def test_cuts_are_complete_and_no_others_are_more_even() -> None:
    choose = random.Random(1)
    for _ in range(300):
        sizes = [choose.choice([0, 1, 2, 5, 40]) for _ in range(choose.randrange(1, 9))]
        for ranks in (1, 2, 3):
            cut = spans(sizes, ranks)
            assert [n for span in cut for n in span] == list(range(len(sizes)))
            assert len(cut) == ranks
            if len(sizes) + 1 >= ranks:
                largest = max(sum(sizes[n] for n in span) for span in cut)
                assert largest <= best(sizes, ranks), (sizes, ranks)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0], [7]])
def test_few_tensors_are_cut_too(sizes: list[int]) -> None:
    for ranks in (1, 2, 5):
        assert [n for span in spans(sizes, ranks) for n in span] == list(range(len(sizes)))


def test_a_hundred_thousand_tensors_are_cut() -> None:
    choose = random.Random(2)
    sizes = [choose.randrange(1 << 30) for _ in range(100_000)]
    cut = spans(sizes, 64)
    largest = max(sum(sizes[span.start : span.stop]) for span in cut)
    assert largest < sum(sizes) / 64 + (1 << 30)


def test_readers_read_equally_much_and_what_they_keep_alone() -> None:
    choose = random.Random(3)
    for _ in range(300):
        ranks, count = choose.randrange(1, 6), choose.randrange(50)
        owner_max = choose.randrange(ranks)
        pieces = [
            Readable(
                choose.choice([1, 100, 4000]),
                tuple({choose.randint(0, owner_max) for _ in range(choose.randrange(3))}),
            )
            for _ in range(count)
        ]
        found = readers(pieces, ranks, choose.choice([1, 5000]))
        assert len(found) == count
        total = sum(piece.nbytes for piece in pieces)
        read = [sum(p.nbytes for p, r in zip(pieces, found) if r == rank) for rank in range(ranks)]
        assert max(read) <= total / ranks + 4000
        for rank in range(ranks):
            # Other ranks read what it keeps alone only if it would exceed its share.
            may_own = sum(piece.nbytes for piece in pieces if rank in piece.owners)
            if may_own <= total // ranks:
                is_own = [r == rank for p, r in zip(pieces, found) if p.owners == (rank,)]
                assert all(is_own)


def test_adjacent_short_pieces_are_read_by_one_reader() -> None:
    found = readers([Readable(1, ())] * 4000, 4, 100)
    changes = sum(one != other for one, other in zip(found, found[1:]))
    assert changes <= 4000 // 100 + 4
    # All ranks proceed together.
    assert sorted(found[:400:100]) == [0, 1, 2, 3]


def test_decoded_errors_have_the_same_class() -> None:
    for error in (IoError("the disk"), ValueError("é\ud800" * 5000), KeyError("k")):
        text = failure.encode(error, 4096)
        assert len(text) <= 4096
        decoded = failure.decode(text, 7)
        assert type(decoded) is type(error)
        assert "rank 7 failed: " in str(decoded)
    assert isinstance(failure.decode(failure.encode(UnreachableError("x"), 99), 0), OSError)

    class OwnError(Exception):
        pass

    for strange in (OwnError("x"), KeyboardInterrupt(), UnicodeDecodeError("a", b"", 0, 1, "b")):
        assert type(failure.decode(failure.encode(strange, 4096), 1)).__name__ == "Error"
