"""Readers of the stage folders of a run (etl, train, evaluate, export, index), and their store."""
