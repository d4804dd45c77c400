"""What every verb stands on: errors, the device, vocabularies, locks, and safe reading."""
