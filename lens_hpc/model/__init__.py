"""The fusion model."""
