"""Code that all retrievers share: the protocol, exact and approximate search, metrics, columns."""
