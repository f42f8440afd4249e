"""The selection function of a run: which lenses it would have found.

Lenses are painted on galaxies of the survey over a grid of Einstein radius and source magnitude,
and scored. It uses predicting's models and reporting's figures.
"""
