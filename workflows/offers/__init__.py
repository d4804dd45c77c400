"""Models of offers: their evaluation, their export, and the audience of an offer."""
