"""From rows of a split to batches on a device: their order, their augmentation, the loader.

This room reads datasets through `lens_hpc.dataset` and knows nothing of models, training or runs.
"""
