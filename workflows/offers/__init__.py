"""Offer models, which rank users for an offer: evaluation, export, and audiences (best users)."""
