"""Serves the BruteForce layer of TFRS with FastAPI and uvicorn, from the embeddings of an export.

As in its documentation, a StringLookup and an Embedding make the query, and `index` gets the
candidates. Seen items stay in the lists: `query_with_exclusions` cannot be compiled for lists of
varying length.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import uvicorn
from fastapi import FastAPI


def build(arrays: Any) -> FastAPI:
    """Return the app.

    Args:
        arrays: `user_ids`, `users` (its last row is for unknown users), `item_ids`, `items`.
    """
    lookup = tf.keras.layers.StringLookup(vocabulary=arrays["user_ids"].tolist(), mask_token=None)
    embedding = tf.keras.layers.Embedding(*arrays["users"].shape)
    embedding.build(None)
    embedding.set_weights(
        [np.roll(arrays["users"], 1, axis=0)]
    )  # in the lookup, unknown users come first
    index = tfrs.layers.factorized_top_k.BruteForce(tf.keras.Sequential([lookup, embedding]), k=10)
    index.index(tf.constant(arrays["items"]), tf.constant(arrays["item_ids"]))
    best = tf.function(index, input_signature=[tf.TensorSpec([1], tf.string)])

    app = FastAPI()

    @app.get("/recommend/{user}")
    def recommend(user: str) -> dict[str, Any]:
        scores, ids = best(tf.constant([user]))
        items = zip(ids.numpy()[0], scores.numpy()[0].tolist(), strict=True)
        return {"user": user, "items": [{"item": i.decode(), "score": s} for i, s in items]}

    return app


def main() -> None:
    """Serve on a port until a signal stops it."""
    path, port = sys.argv[1:]
    with np.load(path) as arrays:
        app = build(dict(arrays))
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
