"""The baselines that a two-tower model has to beat, one file each."""
