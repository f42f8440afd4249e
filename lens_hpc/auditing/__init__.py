"""The audit of a dataset: what could let a classifier look good without finding lenses.

It may use the dataset and the metrics, and nothing of models or training. Its verdict is a file of
the dataset (`lens_hpc.dataset.verdict`), where training and reports read it.
"""
