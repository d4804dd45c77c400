"""The training losses: sampled softmax over in-batch negatives, and its masks."""
