"""Read files with the raw features of users or items that a caller gives at serving."""
