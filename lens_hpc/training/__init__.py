"""Training: the loop, its parts, checkpoints, and how all processes of a job act as one.

The room may import scoring, loading, model, dataset, metrics and the shared modules below them. It
knows nothing of reports or of the command line.
"""
