"""History encoders make one vector of a user's earlier items. Each kind has a file."""
