"""Offer models: their evaluation, their export, and the audience of an offer."""
