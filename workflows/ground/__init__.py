"""Modules that all verbs use: errors, choice of the device, vocabularies, locks, safety checks."""
