"""The shared library of CUDA kernels, called through its C functions."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from cellscribe.kernels.parameters import PARAMETERS

NAME = "libcellscribe_kernels.so"
_CODES = {
    10001: "it is not built for these sizes",
    10002: "its workspace is too small",
}


class KernelError(RuntimeError):
    """A kernel refused to run; `code` is a cudaError_t, or one of include/cellscribe/status.h."""

    def __init__(self, kernel: str, code: int, text: str = "") -> None:
        self.kernel, self.code = kernel, code
        super().__init__(f"the kernel {kernel} failed: {_CODES.get(code, text or f'CUDA error {code}')}")


class KernelLibrary:
    """Functions by name; every one takes a pointer to its parameter struct and a stream.

    Raises
    ------
    KernelError
        When its parameter structs have other sizes than these: it was built from another release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._functions: dict[str, ctypes._NamedFuncPointer] = {}
        found = getattr(self._library, "cellscribe_fingerprint", None)
        if found is None or self._sized(found)() != fingerprint():
            raise KernelError("library", 0, f"{path} was built from another release; install cellscribe anew")

    def __call__(self, kernel: str, parameters: ctypes.Structure, stream: int = 0) -> None:
        """Launch a kernel on a stream.

        Raises
        ------
        KernelError
            When it refuses, or the launch fails.
        """
        code = self._function(f"cellscribe_{kernel}")(ctypes.byref(parameters), ctypes.c_void_p(stream))
        if code:
            raise KernelError(kernel, code, self._error_text(code))

    def workspace(self, kernel: str, parameters: ctypes.Structure) -> int:
        """Return the bytes of workspace that a kernel wants for these sizes."""
        return int(self._sized(self._function(f"cellscribe_{kernel}_workspace"))(ctypes.byref(parameters)))

    def _function(self, name: str) -> ctypes._NamedFuncPointer:
        if name not in self._functions:
            self._functions[name] = self._library[name]
        return self._functions[name]

    def _sized(self, function: ctypes._NamedFuncPointer) -> ctypes._NamedFuncPointer:
        function.restype = ctypes.c_int64
        return function

    def _error_text(self, code: int) -> str:
        explain = self._function("cellscribe_error_text")
        explain.restype = ctypes.c_char_p
        return str(explain(code).decode())


def fingerprint() -> int:
    """Return the number that a library with these parameter structs gives; see library.cu."""
    value = 0
    for struct in PARAMETERS:
        value = value * 1009 + ctypes.sizeof(struct)
    return ctypes.c_int64(value).value


def library_path() -> Path | None:
    """Return where the library was built, or None: a package built without a CUDA compiler has none."""
    import cellscribe.kernels as package

    found = (Path(folder) / NAME for folder in package.__path__)
    return next((path for path in found if path.is_file()), None)


@cache
def load_library(path: Path) -> KernelLibrary:
    """Load the library once."""
    return KernelLibrary(path)
