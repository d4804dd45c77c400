"""Derive columns; join, filter and split interactions; build histories, user and item tables."""
