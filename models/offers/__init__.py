"""Multi-attribute offer models: their blocks, batches and the AUC by which they are judged."""
