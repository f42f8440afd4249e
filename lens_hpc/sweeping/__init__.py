"""Sweeps: settings drawn from ranges, each trained, and the best of them by validation.

Its state is Optuna's journal and the runs. It needs the extra sweep of the package.
"""
