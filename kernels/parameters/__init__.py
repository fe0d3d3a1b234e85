"""The parameter structs of the kernels as ctypes: same names, same order as in include/cellscribe/*.h."""
