"""coordinate_search: it goes on where the best point lies at an edge, and says where it ended."""

from __future__ import annotations

import math

import pytest

from models.baselines import search
from models.baselines.popularity import Popularity
from models.baselines.search import Axis, Grid, Point, coordinate_search


def grid(*start: Point, axes: tuple[Axis, ...]) -> Grid:
    return Grid(start=start, fit=lambda _: Popularity(), axes=axes)


def hill(*top: float):
    """Return a function that falls in every direction from a top, on logarithmic scales."""
    asked: list[Point] = []

    def measure(point: Point) -> float:
        asked.append(point)
        return -sum(abs(math.log(x / t)) for x, t in zip(point, top, strict=True))

    return measure, asked


WIDE = Axis(name="a", low=0.001, high=1e6)


def test_a_top_inside_needs_no_more_points():
    measure, asked = hill(20.0)
    found = coordinate_search(grid((20.0,), (10.0,), (40.0,), axes=(WIDE,)), measure)
    assert found == ((20.0,), 3, ())
    assert asked == [(20.0,), (10.0,), (40.0,)]


@pytest.mark.parametrize(
    ("top", "more"),
    [(160.0, [80.0, 160.0, 320.0]), (2.5, [5.0, 2.5, 1.25])],
)
def test_a_search_goes_on_along_an_axis_until_it_gets_worse(top, more):
    measure, asked = hill(top)
    found = coordinate_search(grid((20.0,), (10.0,), (40.0,), axes=(WIDE,)), measure)
    assert found == ((top,), 6, ())
    assert asked[3:] == [(x,) for x in more]


def test_a_bound_ends_the_search_and_is_told():
    measure, asked = hill(1000.0)
    axis = Axis(name="days", low=1, high=100.0)
    found = coordinate_search(grid((20.0,), (40.0,), axes=(axis,)), measure)
    assert found == ((100.0,), 4, ("days",))
    assert asked[2:] == [(80.0,), (100.0,)]  # the last step is cut short at the bound


def test_whole_numbers_are_rounded_down_and_end_at_the_bound():
    measure, asked = hill(0.1)
    axis = Axis(name="n", low=1, high=9, whole=True)
    assert coordinate_search(grid((5.0,), axes=(axis,)), measure) == ((1.0,), 3, ("n",))
    assert asked == [(5.0,), (2.0,), (1.0,)]


def test_every_axis_is_climbed_from_the_best_point():
    measure, asked = hill(8.0, 100.0)
    axes = (WIDE, Axis(name="b", low=0.01, high=1e4, ratio=10.0))
    found = coordinate_search(grid((1.0, 1.0), (2.0, 1000.0), axes=axes), measure)
    assert found.best == (8.0, 100.0)
    assert found.edge == ()
    assert len(asked) == len(set(asked)) == found.tried  # no point is asked for twice
    for side in ((4.0, 100.0), (16.0, 100.0), (8.0, 10.0), (8.0, 1000.0)):
        assert side in asked


def test_where_all_are_equal_the_first_stays_and_has_neighbours_on_all_sides():
    found = coordinate_search(grid((4.0,), (64.0,), axes=(WIDE,)), lambda _: 0.5)
    assert found == ((4.0,), 3, ())


def test_a_search_that_never_gets_worse_ends_and_says_that_it_did(monkeypatch):
    monkeypatch.setattr(search, "MOST", 7)
    found = coordinate_search(grid((1.0,), axes=(WIDE,)), lambda point: point[0])
    assert found.tried == 7
    assert found.edge == ("a",)


def test_a_model_without_parameters_is_one_point():
    assert coordinate_search(grid((), axes=()), lambda _: 0.1) == ((), 1, ())


def test_a_point_is_named_by_its_axes():
    axes = (WIDE, Axis(name="alpha", low=1, high=2))
    assert grid((1.0, 2.0), axes=axes).named((30.0, 0.5)) == "a=30 alpha=0.5"
