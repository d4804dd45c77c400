"""Exports towers as SavedModels that need only TensorFlow, and checks their embeddings."""
