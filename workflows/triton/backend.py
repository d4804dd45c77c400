"""Triton's Python backend: exact search for the best items of user embeddings, with numpy only.

`two-tower triton` copies this file as model.py beside items.npz. The item lists equal those of the
evaluation: a float32 product selects the items that can be among the best, and their scores are
computed again in float64, so that equal items tie (the lower row comes first).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Array = np.ndarray[Any, np.dtype[Any]]
#: Greatest number of scores that are computed for a block of users at a time, about 64 MB.
BLOCK_SCORES = 16_000_000


class TritonPythonModel:
    """Answers requests for lists of items; Triton creates one object per model instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read item ids and embeddings from items.npz beside this file."""
        folder = Path(args["model_repository"]) / args["model_version"]
        with np.load(folder / "items.npz") as items:
            text, ends = items["text"].tobytes(), items["ends"].tolist()
            self.vectors: Array = np.ascontiguousarray(items["vectors"], np.float32)
        starts = [0, *ends[:-1]]
        self.ids = [text[a:b] for a, b in zip(starts, ends, strict=True)]
        self.rows = {item: row for row, item in enumerate(self.ids)}
        # the last name is that of padding, row -1
        self.names: Array = np.array([*self.ids, b""], object)
        self.longest = float(np.sqrt((self.vectors.astype(np.float64) ** 2).sum(1).max(initial=0)))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with the best items of its users; a wrong request gets an error."""
        responses = []
        for request in requests:
            try:
                responses.append(self._answer(request))
            except ValueError as error:
                wrong = pb_utils.TritonError(str(error))
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=wrong))
        return responses

    def _answer(self, request: Any) -> Any:
        queries, exclude, k = (_input(request, name) for name in ("embedding", "exclude", "k"))
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            expected = f"[users, {self.vectors.shape[1]}]"
            raise ValueError(f"embedding: expected {expected}, got {list(queries.shape)}.")
        if not np.isfinite(queries).all():
            raise ValueError("embedding: expected numbers, got NaN or infinity.")
        if exclude.ndim != 2 or len(exclude) != len(queries):
            expected = f"[{len(queries)}, any]"
            raise ValueError(f"exclude: expected {expected}, got {list(exclude.shape)}.")
        if k.size != 1 or not 1 <= k.item() <= 10_000:
            raise ValueError(f"k: expected one number from 1 to 10000, got {k.tolist()}.")
        items, scores = self.search(queries, exclude, int(k.item()))
        tensors = [pb_utils.Tensor("item_id", self.names[items]), pb_utils.Tensor("score", scores)]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def search(self, queries: Array, exclude: Array, k: int) -> tuple[Array, Array]:
        """Return row numbers and scores of the best items, [n_users, k].

        A short list ends with row number -1 and score -inf.

        Args:
            queries: user embeddings, float32 [n_users, dim].
            exclude: ids of items to leave out, as bytes, [n_users, any]; unknown ids are ignored.
            k: length of a list of items.
        """
        lists = np.full((len(queries), k), -1, np.int64)
        bests = np.full((len(queries), k), -np.inf, np.float32)
        step = max(1, BLOCK_SCORES // max(1, len(self.ids)))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            scores = block @ self.vectors.T
            for row, query in enumerate(block):
                hidden = [self.rows[i] for i in exclude[start + row] if i in self.rows]
                scores[row, hidden] = -np.inf
                best, exact = self._best(query, scores[row], k)
                lists[start + row, : len(best)], bests[start + row, : len(best)] = best, exact
        return lists, bests

    def _best(self, query: Array, scores: Array, k: int) -> tuple[Array, Array]:
        width = min(k, len(scores))
        if not width:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        # rounding of a dot product (Higham 2002, section 3.1), for each of the two compared
        length = float(np.sqrt((query.astype(np.float64) ** 2).sum()))
        slack = 2 * (len(query) + 2) * 2.0**-24 * length * self.longest
        floor = np.partition(scores, len(scores) - width)[len(scores) - width] - slack
        rows = np.flatnonzero((scores >= floor) & np.isfinite(scores))
        exact = (self.vectors[rows].astype(np.float64) @ query.astype(np.float64)).astype(
            np.float32
        )
        order = np.lexsort((rows, -exact))[:width]
        return rows[order], exact[order]


def _input(request: Any, name: str) -> Array:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise ValueError(f"{name}: there is no such input in the request.")
    array: Array = tensor.as_numpy()
    return array
