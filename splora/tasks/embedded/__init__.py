"""Data and a model that the project makes itself, so that everything runs without a network."""
