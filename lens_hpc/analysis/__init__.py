"""What is made of scores: metrics and figures."""
