"""What is said of a trained model: its evaluation, the comparison with other runs, figures, report.

It may touch every room but auditing, whose verdict it reads as a file of the dataset.
"""
