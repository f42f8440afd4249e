"""Scoring a whole survey: its mosaics, image files or shards become Parquet files of scores.

It may touch the accelerator of training, and everything below.
"""
