"""Modules that all verbs use: errors, the choice of a device, vocabularies, locks, safe reading."""
