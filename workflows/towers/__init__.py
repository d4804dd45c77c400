"""Towers as SavedModels that need no code of ours, and the check that they give the embeddings."""
