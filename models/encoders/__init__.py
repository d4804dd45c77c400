"""History encoders make one vector of a user's earlier items. Each kind of encoder has a file."""
