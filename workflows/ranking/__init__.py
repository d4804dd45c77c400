"""How models that rank the catalogue are evaluated, beside their baselines."""
