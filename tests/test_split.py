"""The split: every rule against a naive loop, and refused where it would leave a part empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.errors import DataError
from workflows.etl.split import PARTS, TEST, TRAIN, VALID, assign, refuse_empty
from workflows.recipe import ByUser, GivenFiles, GlobalTime, LeaveLast, RandomRows

TIMES = np.arange(10)
ONE_USER = np.zeros(10, np.int64)


def naive_leave_last(users: list[int], valid: int, test: int) -> list[int]:
    rows: dict[int, list[int]] = {}
    for row, user in enumerate(users):
        rows.setdefault(user, []).append(row)
    labels = [TRAIN] * len(users)
    for mine in rows.values():
        if len(mine) <= valid + test:
            continue  # nothing would be left to train on
        for row in mine[-test:]:
            labels[row] = TEST
        for row in mine[-test - valid : -test]:
            labels[row] = VALID
    return labels


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=60),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_leave_last_is_the_naive_loop(users: list[int], valid: int, test: int) -> None:
    expected = naive_leave_last(users, valid, test)
    rule = LeaveLast(valid=valid, test=test)
    if len(set(expected)) < 3:
        with pytest.raises(DataError, match="split is empty"):
            assign(rule, users=np.array(users), times=np.arange(len(users)))
    else:
        labels = assign(rule, users=np.array(users), times=np.arange(len(users)))
        assert labels.tolist() == expected
        assert labels.dtype == np.int8


def test_leave_last_by_hand() -> None:
    users = np.array([7, 7, 9, 7, 9, 9, 9, 4, 4])
    labels = assign(LeaveLast(valid=1, test=2), users=users, times=np.arange(9))
    # 7 and 4 have three rows and two: too few to leave one to train on
    assert labels.tolist() == [0, 0, 0, 0, 1, 2, 2, 0, 0]


def test_leave_last_breaks_ties_of_time_by_the_order_of_the_file() -> None:
    users = np.array([1, 1, 1, 1])
    tied = assign(LeaveLast(), users=users, times=np.array([5, 5, 5, 5]))
    assert tied.tolist() == [TRAIN, TRAIN, VALID, TEST]


def naive_global_time(times: list[int], valid: float, test: float) -> list[int]:
    """Linear quantiles by hand (Hyndman and Fan 1996, type 7)."""
    ordered = sorted(times)

    def quantile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    first, second = quantile(1 - valid - test), quantile(1 - test)
    return [TRAIN if t <= first else VALID if t <= second else TEST for t in times]


@pytest.mark.parametrize(("valid", "test"), [(0.1, 0.1), (0.25, 0.125), (0.0, 0.5), (0.3, 0.0)])
def test_global_time_is_the_naive_loop(valid: float, test: float) -> None:
    times = sorted(np.random.default_rng(3).integers(0, 1000, 200).tolist())
    labels = assign(
        GlobalTime(valid=valid, test=test),
        users=np.zeros(200, np.int64),
        times=np.array(times),
    )
    assert labels.tolist() == naive_global_time(times, valid, test)
    assert abs((labels == TEST).mean() - test) < 0.02
    assert abs((labels == VALID).mean() - valid) < 0.02


def test_e12_global_time_never_divides_a_moment() -> None:
    times = np.repeat([10, 20, 30, 40], 5)
    labels = assign(GlobalTime(valid=0.25, test=0.25), users=np.zeros(20, np.int64), times=times)
    assert labels.tolist() == [TRAIN] * 10 + [VALID] * 5 + [TEST] * 5
    with pytest.raises(DataError, match=r"The test split is empty \(train 15, valid 5, test 0"):
        # the last fifth lies within the last moment
        assign(GlobalTime(valid=0.2, test=0.2), users=np.zeros(20, np.int64), times=times)


def test_global_time_where_all_is_one_moment_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"The valid split is empty \(train 10, valid 0, test 0 rows"
    ):
        assign(GlobalTime(), users=ONE_USER, times=np.full(10, 3))


@pytest.mark.parametrize("valid", [0.0, 0.2])
def test_random_rows_have_the_shares_and_repeat_with_their_seed(valid: float) -> None:
    users = np.arange(1000) % 7

    def drawn(seed: int) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
        return assign(RandomRows(valid=valid, test=0.1, seed=seed), users=users, times=None)

    labels = drawn(1)
    assert [(labels == part).sum() for part in (TRAIN, VALID, TEST)] == [
        900 - 1000 * valid,
        1000 * valid,
        100,
    ]
    assert (drawn(1) == labels).all()
    assert (drawn(2) != labels).any()
    # it is drawn from everywhere, not cut off one end
    assert 300 < np.flatnonzero(labels == TEST).mean() < 700


def test_e12_by_user_keeps_every_user_whole() -> None:
    users = np.random.default_rng(5).integers(0, 50, 2000) * 11
    labels = assign(ByUser(valid=0.2, test=0.1, seed=3), users=users, times=None)
    found = {user: set(labels[users == user]) for user in np.unique(users)}
    assert all(len(parts) == 1 for parts in found.values())
    by_part = [sum(parts == {part} for parts in found.values()) for part in (TRAIN, VALID, TEST)]
    assert by_part == [35, 10, 5]
    other = assign(ByUser(valid=0.2, test=0.1, seed=4), users=users, times=None)
    assert (other != labels).any()


def test_by_user_does_not_care_how_users_are_numbered() -> None:
    users = np.random.default_rng(5).integers(0, 50, 500)
    rule = ByUser(seed=3)
    same_order = assign(rule, users=users * 3 + 2, times=None)
    assert (same_order == assign(rule, users=users, times=None)).all()


@pytest.mark.parametrize(
    ("rule", "n", "part", "counts"),
    [
        (LeaveLast(valid=1, test=1), 2, "valid", "train 2, valid 0, test 0"),
        (RandomRows(valid=0.1, test=0.1), 3, "valid", "train 3, valid 0, test 0"),
        (ByUser(valid=0.0, test=0.4), 10, "test", "train 10, test 0"),
        (RandomRows(valid=0.0, test=0.9), 4, "train", "train 0, test 4"),
    ],
)
def test_an_empty_part_is_refused_with_counts_and_remedy(
    rule: LeaveLast | RandomRows | ByUser, n: int, part: str, counts: str
) -> None:
    with pytest.raises(
        DataError,
        match=rf"^The {part} split is empty \({counts} rows after filtering\)\. Use more data, "
        r"another `split:`, or a weaker `filter:`\.$",
    ):
        assign(rule, users=np.zeros(n, np.int64), times=np.arange(n))


def test_e12_rows_and_users_may_be_counted_instead_of_shared() -> None:
    users = np.arange(60) % 12
    by_user = assign(ByUser(valid=3, test=2), users=users, times=None)
    for part, n in ((TRAIN, 7), (VALID, 3), (TEST, 2)):
        assert len(set(users[by_user == part])) == n
        assert (by_user == part).sum() == 5 * n
    rows = assign(RandomRows(valid=1, test=0.5), users=users, times=None)
    assert [(rows == part).sum() for part in (TRAIN, VALID, TEST)] == [29, 1, 30]
    with pytest.raises(
        DataError, match=r"The train split is empty \(train 0, valid 4, test 8 rows"
    ):
        assign(ByUser(valid=4, test=8), users=np.arange(12), times=None)


def test_a_part_that_is_not_asked_for_may_be_empty() -> None:
    labels = assign(GlobalTime(valid=0, test=0), users=ONE_USER, times=TIMES)
    assert labels.tolist() == [TRAIN] * 10
    labels = assign(RandomRows(valid=0, test=0.5), users=ONE_USER, times=None)
    assert sorted(labels.tolist()) == [TRAIN] * 5 + [TEST] * 5


def test_refuse_empty_takes_any_parts() -> None:
    assert PARTS == ("train", "valid", "test")
    refuse_empty({"train": 1, "test": 1})
    with pytest.raises(DataError, match=r"The test split is empty \(train 1, test 0 rows"):
        refuse_empty({"train": 1, "test": 0})


def test_given_files_are_not_assigned() -> None:
    with pytest.raises(TypeError, match="given files are split already"):
        assign(GivenFiles(test="x"), users=ONE_USER, times=TIMES)
