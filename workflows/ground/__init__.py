"""Modules that all verbs use: errors, choice of CPU or GPU, vocabularies, locks, safety checks."""
