"""Read files with the features of users or items that are given at serving."""
