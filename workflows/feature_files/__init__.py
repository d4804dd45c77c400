"""Read files with the features of users or items, which people give beside the training data."""
