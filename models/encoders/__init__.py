"""History encoders: a user's earlier items in order, as one vector. One file a kind."""
