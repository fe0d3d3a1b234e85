"""Cells as InstructCell reads them: values of a fixed list of genes, in its order."""
