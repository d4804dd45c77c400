"""What all verbs use: errors, the choice of a device, vocabularies, locks and safe reading."""
