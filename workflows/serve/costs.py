"""Costs of requests in list entries (one item of one list), and bounds on users x list length."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.serve.limits import Limits
from workflows.serve.loaded_export import LoadedExport
from workflows.serve.wire import Features, Refusal, fault
from workflows.stages.recommender import ListOptions


def cost_of_lists(served: LoadedExport, n_users: int, options: ListOptions) -> int:
    """Return the cost of a request for users' lists, in list entries (one item of one list)."""
    # in a catalogue of a million items, the scores of a user take 2 ms and a rule takes 20 ms:
    # as much as 200 and 2,000 list entries
    n_items = served.health.items
    return n_users * options.k + n_users * n_items // 5000 + len(options.only) * n_items // 500


def cost_of_rows(n_rows: int) -> int:
    """Return the cost of embedding users or items from raw values, in list entries."""
    return n_rows * 10  # measured: 0.1 ms a row, most of it in TensorFlow


def check_lists(served: LoadedExport, n_users: int, options: ListOptions, limits: Limits) -> None:
    """Refuse a request whose lists would take too long.

    Raises:
        Refusal: 413, the lists have too many entries or scores.
    """
    if n_users * options.k > limits.entries:
        got = f"{n_users} users x k {options.k}"
        expected = f"users x k of at most {limits.entries}; ask for fewer users or shorter lists"
        raise Refusal(413, fault("body.users", got, expected))
    max_users = max(1, limits.scores // max(1, served.health.items))
    if n_users > max_users:
        expected = f"at most {max_users} users, as the catalogue has {served.health.items} items"
        raise Refusal(413, fault("body.users", f"{n_users} users", expected))


def check_rows(
    users: Sequence[Features], items: Sequence[Features], dim: int, limits: Limits
) -> None:
    """Refuse a request for so many embeddings that the answer would be too long.

    Args:
        users, items: raw values of users and of items, one row each.
        dim: number of dimensions of an embedding.
        limits: the bounds on one request.

    Raises:
        Refusal: 413, the answer would have too many numbers.
    """
    n_rows = len(users) + len(items)
    if n_rows * dim > limits.numbers:
        expected = f"at most {max(1, limits.numbers // dim)} rows, as embeddings have {dim} numbers"
        raise Refusal(413, fault("body", f"{n_rows} rows", expected))
