"""The layers of the towers, and the towers themselves."""
