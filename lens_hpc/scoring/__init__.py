"""From a trained model to scores: the Finder of Python users, scores of whole splits that carry
their sample's row, predictions on disk, and probabilities.

It may touch models, the loader and datasets, and takes the accelerator that it works on from above.
"""
