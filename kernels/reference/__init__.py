"""NumPy references: what a kernel must compute, in float64 and without cleverness."""
