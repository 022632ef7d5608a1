"""Ways to hold the numbers of a matrix, each with its products."""
