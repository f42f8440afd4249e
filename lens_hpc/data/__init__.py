"""The way of the data: catalogue and cutouts, shards, order, augmentation, batches."""
