"""What every retriever shares: the protocol, exact and approximate search, metrics, columns."""
