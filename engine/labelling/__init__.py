"""What is made of cells once they have labels: votes of clusters, expression by label, comparison with known labels."""
