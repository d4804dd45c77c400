"""Store the command line of this process, so that messages can name the whole next command."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from models.core import atomic

#: Keys in a manifest's options: the recipe file relative to the run's folder, and its SHA-256.
FILE, DIGEST = "recipe_file", "recipe_sha256"


@dataclass(frozen=True)
class Invocation:
    """The options that all verbs share, as the command line gave them; omitted options are empty.

    Attributes:
        verb: name of the verb that was called.
        recipe: the name or file of the recipe, with the variant if one was given.
        run: the name or path of the run.
        settings: the values of `--set`, which change fields of the recipe.
        file: path of the recipe's file; None if the recipe was not read from a file.
    """

    verb: str = ""
    recipe: str = ""
    run: str = ""
    settings: tuple[str, ...] = ()
    file: Path | None = None

    def command(self, verb: str) -> str:
        """Return the command line that calls a verb for the same run and recipe.

        The command of `etl` always names a recipe, because a run has none before etl.
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
        """This process's command line without recipe options, so that it uses the run's recipe.

        The text is empty if the command line of this process has no recipe options.
        """
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
        """Return a command as a call of make; empty if make cannot pass one of the values."""
        values = {"RECIPE": recipe, "RUN": self.run, "SET": " ".join(self.settings)}
        given = {name: value for name, value in values.items() if value}
        if any(sign in value for value in (recipe, self.run, *self.settings) for sign in " '\"$#"):
            return ""
        quoted = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
        return " ".join(["make", verb, *quoted])

    def options(self, root: Path) -> dict[str, str]:
        """Return entries for the manifest of a stage: path and SHA-256 of the recipe's file.

        Args:
            root: folder of the run, to which the path is relative, so that both can be moved
                together.
        """
        if self.file is None or not self.file.is_file():
            return {}
        relative = os.path.relpath(self.file.resolve(), root.resolve())
        return {FILE: relative, DIGEST: atomic.sha256(self.file)}
