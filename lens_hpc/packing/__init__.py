"""From a survey to a dataset: recipe, catalogue, images, splits, plan, shards and manifest.

This room imports dataset/ and the shared modules, and nothing of loading, models or audits.
"""
