"""Check that the vocabulary codes of an earlier run can be kept (`--grow-from`)."""

from __future__ import annotations

from pathlib import Path

from workflows.ground.errors import ArtifactError
from workflows.recipe import Recipe
from workflows.stages.store import Store


def checked_folder(recipe: Recipe, earlier: Store, store: Store) -> Path:
    """Check that an earlier run's vocabulary codes can be kept; return the folder of its etl stage.

    Raises:
        ArtifactError: the vocabularies of the earlier run were fitted by other rules than the
            recipe's.
    """
    if earlier.root.resolve() == store.root.resolve():
        raise ArtifactError(
            f"--grow-from {earlier.root} is the run that is being written: the result of its train "
            "stage would be lost. Write another run, such as `two-tower etl --run "
            f"{store.root.name}-2 --grow-from {earlier.root.name}`, and train it with "
            f"`--warm-start {earlier.root.name}`."
        )
    older = earlier.recipe("etl")
    earlier.read("etl", older)
    learnt_by = {step.to: step for step in older.derive if step.fitted}
    rules = [
        *((f"derive step of {s.to}", s, learnt_by.get(s.to)) for s in recipe.derive if s.fitted),
        *(
            (f"features.{name}.fill", feature.fill, older.features[name].fill)
            for name, feature in recipe.features.items()
            if name in older.features and older.features[name].meaning.has_statistics
        ),
    ]
    for what, now, then in rules:
        if then is not None and now != then:
            raise ArtifactError(
                f"{earlier.folder('etl')} was made with another {what}: {then!r}, now {now!r}. "
                "Its fitted values are kept; leave the setting unchanged, or start without "
                "--grow-from."
            )
    return earlier.folder("etl")
