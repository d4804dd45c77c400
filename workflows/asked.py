"""What the user typed, kept so that a message can name the whole command to type next."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

#: Names in a manifest's options: the recipe file relative to the run's folder, and its SHA-256.
FILE, DIGEST = "recipe_file", "recipe_sha256"


@dataclass(frozen=True)
class Asked:
    """The options that every verb has, as they were given; empty where they were not.

    Attributes:
        verb: that was called.
        recipe: the name or file of the recipe, with its variant.
        run: the name or path of the run.
        settings: of `--set`.
        file: the recipe's file; None where the recipe comes from no file.
    """

    verb: str = ""
    recipe: str = ""
    run: str = ""
    settings: tuple[str, ...] = ()
    file: Path | None = None

    def command(self, verb: str) -> str:
        """Return how to call a verb for the same run and recipe, as one types it.

        `etl` takes a recipe from nowhere else, so that it always names one.
        """
        recipe = self.recipe or (self._shown_file() if verb == "etl" and self.run else "")
        words = ["two-tower", verb]
        for option, value in (("--recipe", recipe), ("--run", self.run)):
            words += [option, value] if value else []
        for setting in self.settings:
            words += ["--set", setting]
        with_make = self._with_make(verb, recipe)
        return f"`{shlex.join(words)}`" + (f" (or `{with_make}`)" if with_make else "")

    @property
    def own(self) -> str:
        """How to call this verb by the recipe that the run remembers; empty where it already is."""
        if not self.verb or not (self.recipe or self.settings):
            return ""
        return (
            f"`{shlex.join(['two-tower', self.verb, *(['--run', self.run] if self.run else [])])}`"
        )

    def _shown_file(self) -> str:
        if self.file is None:
            return "RECIPE"
        shown = os.path.relpath(self.file)
        return str(self.file) if shown.startswith("..") else shown

    def _with_make(self, verb: str, recipe: str) -> str:
        """Return the same for make, whose variables cannot hold a setting with blanks or quotes."""
        values = {"RECIPE": recipe, "RUN": self.run, "SET": " ".join(self.settings)}
        given = {name: value for name, value in values.items() if value}
        if any(sign in value for value in (recipe, self.run, *self.settings) for sign in " '\"$#"):
            return ""
        quoted = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
        return " ".join(["make", verb, *quoted])

    def options(self, root: Path) -> dict[str, str]:
        """Return what the manifest of a stage remembers of the recipe's file.

        Args:
            root: folder of the run; the file is told relative to it, so that both may move.
        """
        if self.file is None or not self.file.is_file():
            return {}
        relative = os.path.relpath(self.file.resolve(), root.resolve())
        return {FILE: relative, DIGEST: sha256(self.file.read_bytes()).hexdigest()}
