"""The verbs of a recipe with `offers`: train, evaluate, export, and who is an offer's audience."""
