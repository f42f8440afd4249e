"""What lies on disk: shards and the manifest that describes them, how they are read and staged.

A split is read as columns by row numbers, and as samples by users of Python. The room imports h5py
and NumPy, the files and the logs; pandas and torch only in the functions that are named after them.
"""
