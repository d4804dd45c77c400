"""Pictures hold the numbers that they are drawn from: read back from matplotlib's axes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from models.training.epoch import Epoch
from workflows.report import charts, dataset, learning, towers
from workflows.stages.evaluate import Cloud, Figure


@pytest.fixture
def axes() -> Axes:
    return Canvas().subplots()


def ticks(axis) -> list[str]:
    axis.figure.draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    marks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [label.get_text() for place, label in marks if low <= place <= high]


def test_the_tail_falls_and_leaves_out_what_training_never_met(axes):
    dataset.draw_popularity(axes, np.array([2, 0, 300, 5]))
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[1, 300], [2, 5], [3, 2]]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert ticks(axes.yaxis) == ["10", "100"]


def test_histories_are_counted_in_bins_that_double(axes):
    dataset.draw_histories(axes, np.array([0, 2, 3, 3, 5, 15, 8, 16, 16]))
    bars = [(b.get_x(), b.get_x() + b.get_width(), b.get_height()) for b in axes.patches]
    assert bars == [(2, 4, 3), (4, 8, 1), (8, 16, 2), (16, 32, 2)]


def test_a_curve_marks_the_epoch_that_was_kept(axes):
    epochs = [Epoch(n, {"loss": value}) for n, value in enumerate((3.0, 1.0, 2.0))]
    learning.draw_curve(axes, epochs, epochs[1], "loss")
    curve, rule, best = axes.lines
    assert curve.get_xydata().tolist() == [[1, 3.0], [2, 1.0], [3, 2.0]]
    assert set(rule.get_xdata()) == {2}
    assert best.get_xydata().tolist() == [[2, 1.0]]
    assert axes.get_title() == "epoch 2: 1.0000"
    assert ticks(axes.xaxis) == ["1", "2", "3"]


def test_decays_begin_with_the_latest_position(axes):
    towers.draw_decays(axes, {"a": [0.7, 0.3], "b": [0.5, 0.25, 0.25]})
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.7, 0.3], [0.5, 0.25, 0.25]]
    assert axes.lines[1].get_xdata().tolist() == [1, 2, 3]
    assert [label.get_text() for label in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.get_ylim()[0] == 0


def test_a_cloud_has_a_point_for_each_item(axes):
    towers.draw_cloud(axes, Cloud([1, 10, 1000], [0.5, -1.0, 2.0], None), "bias")
    (line,) = axes.lines
    points = line.get_xydata()
    points = points[~np.isnan(points).any(axis=1)]
    assert points[::2].tolist() == points[1::2].tolist() == [[1, 0.5], [10, -1.0], [1000, 2.0]]
    drawn = charts.picture("t", "a", lambda axes: charts.points(axes, [1, 2, 3], [1, 2, 3]))
    assert drawn.svg.count("h0") == 3


def test_rows_have_their_means_and_intervals_and_one_without_a_figure_stays_empty(axes):
    rows = {"a": [Figure(0.5), None], "b": [Figure(0.1, 0.0, 0.2), Figure(0.3, 0.2, 0.4)]}
    charts.draw_ranges(axes, rows, metric="recall", legend=["x", "y"])
    first, second = axes.containers
    assert first[0].get_xdata().tolist() == [0.5, 0.1]
    assert second[0].get_xdata().tolist() == [0.3]
    whiskers = first[2][0].get_segments()
    assert [ends[:, 0].tolist() for ends in whiskers] == [[0.5, 0.5], [0.0, 0.2]]
    assert first[0].get_ydata()[1] < 1 < second[0].get_ydata()[0], "one below the other"
    assert ticks(axes.yaxis) == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is on top"
    assert axes.get_xlim()[0] == 0


def test_the_same_numbers_give_the_same_bytes_and_other_pictures_other_ids():
    def draw(axes: Axes) -> None:
        axes.plot([1, 2], [3, 4], color=charts.COLOURS[0])

    one, again, other = (charts.picture(title, "alt", draw) for title in ("one", "one", "other"))
    assert one.svg == again.svg
    assert "var(--first)" in one.svg
    assert "#" not in one.svg.replace("url(#", ""), "a colour is not the page's"

    def ids(picture: charts.Picture) -> set[str]:
        return {part.partition('"')[0] for part in picture.svg.split(' id="')[1:]}

    assert ids(one)
    assert not ids(one) & ids(other)


def test_a_text_is_no_formula_no_markup_and_may_have_any_letters():
    def draw(axes: Axes) -> None:
        axes.set_xlabel("$x_1$ <b>映画</b>")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = charts.picture("t", "alt", draw).svg
    assert "$x_1$ &lt;b&gt;映画&lt;/b&gt;" in svg


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.25, "0.25"), (20, "20"), (5000, "5,000"), (2_000_000, "2M"), (1e-12, "0"), (-0.5, "-0.5")],
)
def test_numbers_beside_ticks_are_short(value, said):
    assert charts._short(value) == said
