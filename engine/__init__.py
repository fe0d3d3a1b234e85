"""Online: cells in, text, labels and vectors out; no torch."""
