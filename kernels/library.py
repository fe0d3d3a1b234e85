"""The shared library of CUDA kernels, called through its C functions."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

NAME = "libcellscribe_kernels.so"
_CODES = {
    10001: "it is not built for these sizes",
    10002: "its workspace is too small",
}


class KernelError(RuntimeError):
    """A kernel refused to run; `code` is a cudaError_t, or one of include/cellscribe/status.h."""

    def __init__(self, kernel: str, code: int) -> None:
        self.kernel, self.code = kernel, code
        super().__init__(f"the kernel {kernel} failed: {_CODES.get(code, f'CUDA error {code}')}")


class KernelLibrary:
    """Functions by name; every one takes a pointer to its parameter struct and a stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def __call__(self, kernel: str, parameters: ctypes.Structure, stream: int = 0) -> None:
        """Launch a kernel on a stream.

        Raises
        ------
        KernelError
            When it refuses, or the launch fails.
        """
        code = self._library[f"cellscribe_{kernel}"](ctypes.byref(parameters), ctypes.c_void_p(stream))
        if code:
            raise KernelError(kernel, code)

    def workspace(self, kernel: str, parameters: ctypes.Structure) -> int:
        """Return the bytes of workspace that a kernel wants for these sizes."""
        function = self._library[f"cellscribe_{kernel}_workspace"]
        function.restype = ctypes.c_int64
        return int(function(ctypes.byref(parameters)))


def library_path() -> Path | None:
    """Return where the library was built, or None: a package built without a CUDA compiler has none."""
    import cellscribe.kernels as package

    found = (Path(folder) / NAME for folder in package.__path__)
    return next((path for path in found if path.is_file()), None)


@cache
def load_library(path: Path) -> KernelLibrary:
    """Load the library once."""
    return KernelLibrary(path)
