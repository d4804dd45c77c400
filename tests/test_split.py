"""The split: every rule is compared with a naive loop, and empty parts are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.etl.shape import split as splits
from workflows.etl.shape.split import (
    PARTS,
    TEST,
    TRAIN,
    VALID,
    Labels,
    SplitFacts,
    refuse_empty,
    warn_of_few,
)
from workflows.ground.errors import DataError
from workflows.recipe import ByUser, GivenFiles, GlobalTime, LeaveLast, RandomRows, Split

TIMES = np.arange(10)
ONE_USER = np.zeros(10, np.int64)


def assign(
    rule: Split, *, users: np.ndarray, times: np.ndarray | None, dropped: str = ""
) -> Labels:
    """Split interactions that are all in one partition."""
    if isinstance(rule, LeaveLast):
        labels, facts = splits.leave_last(rule, users, times)
        splits.check_last(rule, [facts], len(users), dropped)
        return labels
    plan = splits.plan(rule, [SplitFacts.of(rule, users=users, times=times)])
    labels = plan.labels(0, users=users, times=times)
    if not isinstance(rule, GlobalTime):
        rows = {part: int((labels == PARTS.index(part)).sum()) for part in plan.wanted}
        refuse_empty(rows, plan.why, dropped)
    return labels


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
    """Try every pair of cuts between different times; of equally near ones the latest is taken."""
    n, best, labels = len(times), float("inf"), [TRAIN] * len(times)
    cuts = [row for row in range(1, n) if times[row] > times[row - 1]]
    for first in cuts if valid else [None]:
        for second in cuts if test else [n]:
            start = second if first is None else first
            if start > second or (valid and start == second):
                continue
            miss = abs(second - n * (1 - test)) + abs(start - n * (1 - valid - test))
            if miss <= best:
                best = miss
                labels = [TRAIN if r < start else VALID if r < second else TEST for r in range(n)]
    return labels


@pytest.mark.parametrize(("valid", "test"), [(0.1, 0.1), (0.25, 0.125), (0.0, 0.5), (0.3, 0.0)])
@pytest.mark.parametrize("moments", [1000, 12, 4])
def test_global_time_is_the_naive_loop(valid: float, test: float, moments: int) -> None:
    times = sorted(np.random.default_rng(3).integers(0, moments, 120).tolist())
    labels = assign(
        GlobalTime(valid=valid, test=test),
        users=np.zeros(120, np.int64),
        times=np.array(times),
    )
    assert labels.tolist() == naive_global_time(times, valid, test)
    if moments == 1000:
        assert abs((labels == TEST).mean() - test) < 0.02
        assert abs((labels == VALID).mean() - valid) < 0.02


def test_e12_global_time_never_divides_a_moment() -> None:
    times = np.repeat([10, 20, 30, 40], 5)
    rule = GlobalTime(valid=0.25, test=0.25)
    labels = assign(rule, users=np.zeros(20, np.int64), times=times)
    assert labels.tolist() == [TRAIN] * 10 + [VALID] * 5 + [TEST] * 5


def test_a_day_that_holds_both_cuts_is_test_and_the_day_before_valid(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seven days, 30 of 100 rows on the last: both cuts fall on it, and neither part is empty."""
    times = np.repeat(np.arange(7), [10, 12, 12, 12, 12, 12, 30]) * 86_400
    labels = assign(GlobalTime(), users=np.zeros(100, np.int64), times=times)
    assert labels.tolist() == [TRAIN] * 58 + [VALID] * 12 + [TEST] * 30
    assert caplog.messages == [
        "split time: test holds 30.0 % of the rows, although the recipe asks for 10 %, because "
        "many rows share a time, and rows of one time stay together"
    ]


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([3] * 10, r"^All 10 rows have the same time, 1970-01-01 00:00:03 UTC, so that a split"),
        ([3] * 9 + [4], r"^The 10 rows have only 2 times, 1970-01-01 00:00:03 UTC and 1970-"),
    ],
)
def test_too_few_times_for_the_parts_are_refused(times: list[int], told: str) -> None:
    with pytest.raises(DataError, match=told + r".* into train, valid, test\. Use .*by_user"):
        assign(GlobalTime(), users=ONE_USER, times=np.array(times))


def test_two_times_are_enough_for_two_parts() -> None:
    times = np.array([3] * 9 + [4])
    labels = assign(GlobalTime(valid=0, test=0.5), users=ONE_USER, times=times)
    assert labels.tolist() == [TRAIN] * 9 + [TEST]


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
    ("rule", "n", "part", "counts", "why"),
    [
        (
            LeaveLast(valid=1, test=1),
            2,
            "valid",
            "train 2, valid 0, test 0",
            "Split leave_last holds 1 + 1 rows out of each user who has more, and none of 1 users "
            "has more than 2; a row is one event of one user. Splits of kind random and by_user "
            "take fewer.",
        ),
        (
            RandomRows(valid=0.1, test=0.1),
            3,
            "valid",
            "train 3, valid 0, test 0",
            "The split asks for valid 0.1 and test 0.1 of 3 rows.",
        ),
        (
            ByUser(valid=0.0, test=0.4),
            10,
            "test",
            "train 10, test 0",
            "The split asks for test 0.4 of 1 users.",
        ),
        (
            RandomRows(valid=0.0, test=0.9),
            4,
            "train",
            "train 0, test 4",
            "The split asks for test 0.9 of 4 rows.",
        ),
    ],
)
@pytest.mark.parametrize("dropped", ["", "7 rows were dropped before: no user_id (7)."])
def test_an_empty_part_is_refused_with_counts_and_the_cause(
    rule: LeaveLast | RandomRows | ByUser, n: int, part: str, counts: str, why: str, dropped: str
) -> None:
    with pytest.raises(DataError) as error:
        assign(rule, users=np.zeros(n, np.int64), times=np.arange(n), dropped=dropped)
    assert str(error.value) == (
        f"The {part} split is empty ({counts} rows). {why} {dropped}{' ' if dropped else ''}"
        "Use more data, or another `split:`."
    )


def test_few_held_out_rows_are_told(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_few({"train": 3, "valid": 0, "test": 20})
    assert not caplog.messages
    warn_of_few({"train": 3, "valid": 1, "test": 19})
    assert caplog.messages == [
        "valid has 1 row and test has 19 rows: with fewer than 20 the figures of a part are mostly "
        "chance. Hold out more rows."
    ]


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
    with pytest.raises(TypeError, match="files of kind given are split already"):
        assign(GivenFiles(test="x"), users=ONE_USER, times=TIMES)


def test_last_rows_that_only_the_file_orders_are_told(caplog: pytest.LogCaptureFixture) -> None:
    users = np.repeat(np.arange(4), 3)
    some = np.tile([1, 2, 3], 4)
    assign(LeaveLast(), users=users, times=some)
    some[:3] = 7
    assign(LeaveLast(), users=users, times=some)  # two of eight cuts lie between rows of one time
    assert not caplog.messages
    assign(LeaveLast(), users=users, times=np.zeros(12, np.int64))
    (told,) = caplog.messages
    assert told.startswith("split leave_last: 100 % of the rows that are held out first")


def test_rows_that_were_dropped_are_the_cause() -> None:
    with pytest.raises(DataError, match=r"not x == 1 \(5\)\. Correct the `filter"):
        refuse_empty({"train": 0}, "5 rows were dropped before: not x == 1 (5).")
