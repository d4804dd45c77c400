"""Multi-attribute offer models: their blocks, their batches, and the AUC that compares them."""
