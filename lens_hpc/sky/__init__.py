"""The sky of mock surveys: lenses, what people mistake for them, and the camera that records both.

Everything but `mock_survey` and `mock_mosaics` paints arrays and neither reads nor writes files. It
needs torch, caustics and astropy, and nothing of datasets, models or training.
"""
