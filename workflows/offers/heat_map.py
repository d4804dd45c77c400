"""Heat maps of cosines between offer embeddings, one panel per model, drawn with matplotlib."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from models.core.retriever import Floats

log = logging.getLogger(__name__)

#: Width of a panel in inches: a fixed part, and a part for each offer.
_MARGIN, _CELL = 2.0, 0.14


def draw(maps: Mapping[str, tuple[Floats, list[str]]], path: Path, *, title: str) -> None:
    """Draw one heat map of cosines per offer model, each in its own order of offers.

    Args:
        maps: name of a model → cosines between offer embeddings [n, n], and the names of the offers
            in the same order.
        path: the path of the PNG file.
        title: the title of the heat map.
    """
    if importlib.util.find_spec("matplotlib") is None:
        log.info("%s: left out, matplotlib is not installed", path.name)
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = _MARGIN + _CELL * max(len(names) for _, names in maps.values())
    # the colours' bar needs an inch, or the maps shrink and leave a gap below the title
    figure = Figure(figsize=(side * len(maps) + 1.0, side + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}: cosine of offers")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for panel, (model, (matrix, names)) in zip(panels, maps.items(), strict=True):
        image = panel.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        panel.set_title(model)
        places, labels = range(len(names)), [_short(name) for name in names]
        panel.set_xticks(places, labels, rotation=90, fontsize=6)
        panel.set_yticks(places, labels, fontsize=6)
    figure.colorbar(image, ax=list(panels), shrink=0.8)
    figure.savefig(path, dpi=110)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
