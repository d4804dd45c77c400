"""The evaluation of models that rank the catalogue, and of their baselines."""
