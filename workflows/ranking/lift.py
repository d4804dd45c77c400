"""A minimum ratio of the model's recall to a baseline's, such as `popularity:1.5`.

With `--min-lift`, evaluate fails below this ratio, for example in continuous integration.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.baselines.registry import BASELINES
from workflows.ground.errors import RecipeError
from workflows.stages.evaluate import Report


@dataclass(frozen=True)
class Lift:
    """The minimum ratio of the model's recall to that of a baseline.

    Attributes:
        baseline: the name of the baseline to compare with.
        factor: the minimum ratio of the two recalls.
    """

    baseline: str
    factor: float

    @classmethod
    def parse(cls, text: str) -> Lift:
        """Parse a required lift over a baseline, such as `popularity:1.5`.

        Raises:
            RecipeError: the text is not the name of a baseline, a colon and a number.
        """
        name, _, number = text.partition(":")
        try:
            factor = float(number)
        except ValueError:
            factor = 0.0
        if name not in BASELINES or not 0 < factor < float("inf"):
            raise RecipeError(
                f"--min-lift {text!r}: expected a baseline and a factor above 0, such as "
                f"popularity:1.5. Baselines: {', '.join(BASELINES)}."
            )
        return cls(name, factor)

    def missed(self, report: Report, *, metric: str) -> str | None:
        """Return a sentence that says how the report misses the lift; None if the lift is reached.

        A lift counts as missed if the model has no hit, or if the baseline did not run.
        """
        figures, ours = report.headline.metrics, report.ours
        wanted = f"{ours} must have at least {self.factor:g} times the {metric} of {self.baseline}"
        if self.baseline not in figures:
            why = report.left_out.get(self.baseline, "it is not among evaluate.baselines")
            return f"{wanted}, which did not run: {why}"
        mine, theirs = (figures[name][metric].mean for name in (ours, self.baseline))
        if mine > 0 and mine >= self.factor * theirs:
            return None
        times = f", {mine / theirs:.2f} times" if theirs else ""
        return f"{wanted}; it has {mine:.4f} against {theirs:.4f}{times}"
