"""Read files with raw features of users or items, which a trained model is asked about."""
