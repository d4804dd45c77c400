"""user_sample: which users are drawn, and their rows, beside set operations by hand."""

from __future__ import annotations

import numpy as np

from models.core.user_sample import ALL_USERS, UserSample

USERS = np.array([7, -3, 7, 0, 5, -1, 5, 5])  # five users, two of them unknown


def test_all_rows_of_the_drawn_users_are_returned_and_no_others() -> None:
    for seed in range(20):
        rows, sampled_from = UserSample(2, seed).rows_of(USERS)
        drawn = {int(user) for user in USERS[rows]}
        assert len(drawn) == 2
        assert sampled_from == 5
        assert rows.tolist() == [n for n, user in enumerate(USERS) if int(user) in drawn]


def test_a_sample_that_is_as_large_as_the_users_is_all_of_them() -> None:
    for sample in (UserSample(5, 3), UserSample(6, 3), ALL_USERS):
        rows, sampled_from = sample.rows_of(USERS)
        assert rows.tolist() == list(range(len(USERS)))
        assert sampled_from is None


def test_every_user_is_drawn_equally_often() -> None:
    drawn = np.concatenate([USERS[UserSample(2, seed).rows_of(USERS).rows] for seed in range(2000)])
    times = {user: np.count_nonzero(drawn == user) for user in (7, -3, 0, 5, -1)}
    per_user = {user: n / np.count_nonzero(user == USERS) for user, n in times.items()}
    # 2 of 5: 800 of 2000 draws, with a standard deviation of 22
    assert all(abs(n - 800) < 100 for n in per_user.values())


def test_a_seed_gives_the_same_draw_again_and_another_seed_another_one() -> None:
    one, other = UserSample(50, 1), UserSample(50, 2)
    assert one.draw(1000).tolist() == UserSample(50, 1).draw(1000).tolist()
    assert one.draw(1000).tolist() != other.draw(1000).tolist()
    assert len(set(one.draw(1000).tolist())) == 50
