"""Eager PyTorch: embeddings with sparse gradients and SparseAdam, Adam for the other weights.

`--option blockwise` computes the loss and both gradients block by block, as this package does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import workload
from peers.pace import Pace, arguments

BLOCK_SCORES = 1 << 21


class Tower(torch.nn.Module):
    """Concatenated embeddings of users or items, and an MLP."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.tables = torch.nn.ModuleDict(
            {n: torch.nn.Embedding(s, workload.width(s), sparse=True) for n, s in sizes.items()}
        )
        width = sum(table.embedding_dim for table in self.tables.values())
        self.dense = torch.nn.Sequential(
            torch.nn.Linear(width, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return float32 [B, 64]."""
        return self.dense(torch.cat([table(batch[n]) for n, table in self.tables.items()], 1))


def plain(query: torch.Tensor, item: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the mean loss; equal items are masked."""
    scores = query @ item.T
    own = torch.arange(len(ids))
    hits = ids[:, None] == ids[None, :]
    hits[own, own] = False
    return torch.nn.functional.cross_entropy(scores.masked_fill_(hits, -1e9), own)


class Blockwise(torch.autograd.Function):
    """The same loss in blocks; the forward pass also computes both gradients."""

    @staticmethod
    def forward(ctx, query, item, ids):
        n, total = len(ids), 0.0
        d_query, d_item = torch.empty_like(query), torch.zeros_like(item)
        step = max(1, BLOCK_SCORES // n)
        for start in range(0, n, step):
            block = query[start : start + step]
            own = torch.arange(start, start + len(block))
            scores = block @ item.T
            hits = ids[start : start + step, None] == ids[None, :]
            hits[torch.arange(len(block)), own] = False
            shares = torch.softmax(scores.masked_fill_(hits, -1e9), 1)
            rows = torch.arange(len(block))
            total -= torch.log(shares[rows, own]).sum()
            shares[rows, own] -= 1.0
            shares /= n
            d_query[start : start + step] = shares @ item
            d_item.addmm_(shares.T, block)
        ctx.save_for_backward(d_query, d_item)
        return total / n

    @staticmethod
    def backward(ctx, grad):
        d_query, d_item = ctx.saved_tensors
        return grad * d_query, grad * d_item, None


def main() -> None:
    """Train until the time is over."""
    options = arguments(__doc__)
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    columns, sizes = workload.columns(options.data)
    order = np.random.default_rng(0).permutation(len(columns["item_id"]))
    data = {n: torch.from_numpy(v[order].astype(np.int64)) for n, v in columns.items()}
    user = Tower({n: s for n, s in sizes.items() if n.startswith("user")})
    item = Tower({n: s for n, s in sizes.items() if n.startswith("item")})
    tables = [p for t in (user, item) for p in t.tables.parameters()]
    dense = [p for t in (user, item) for p in t.dense.parameters()]
    optimisers = [torch.optim.SparseAdam(tables, lr=0.001), torch.optim.Adam(dense, lr=0.001)]
    loss_of = Blockwise.apply if options.option == "blockwise" else plain
    pace = Pace(options.warmup, options.seconds)
    finished, start, n = False, 0, len(order)
    while not finished:
        batch = {name: values[start : start + options.batch] for name, values in data.items()}
        start = start + options.batch if start + 2 * options.batch <= n else 0
        loss = loss_of(user(batch), item(batch), batch["item_id"])
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        finished = pace.step(options.batch)
    pace.print_result()


if __name__ == "__main__":
    main()
