"""Training: the model, its batches, the optimiser, callbacks, checkpoints and tracking."""
