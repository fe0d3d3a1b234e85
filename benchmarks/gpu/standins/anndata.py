"""Stands in for anndata where it is not installed: the one name that reading .h5ad files needs to import.

Cells are read with h5py; AnnData objects in memory are not used by these benchmarks. benchmarks/gpu.sh puts this folder
on the path only where the real package is missing.
"""


class AnnData:
    """Nothing is an instance of it."""
