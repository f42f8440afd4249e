"""The fusion model, its parts and its weights on disk.

It may touch a dataset's manifest, which says how many bands and features a model sees, and knows
nothing of loading, training or scoring.
"""
