"""Device memory that goes from process to process as a descriptor: CUDA's virtual memory management.

A descriptor is inherited like any other, so it crosses user, process and network namespaces, which the older handles
(`cuIpcGetMemHandle`) don't. Only what is needed here is bound, since CUDA's own Python bindings are as large as
torch's whole wheel for a CPU. Names and numbers are those of cuda.h (CUDA 11.3 and later).
"""

import ctypes
import os
from ctypes import byref, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_ushort, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

_PINNED, _DESCRIPTOR, _DEVICE = 1, 1, 1
_READ, _READ_WRITE = 1, 3


class DriverError(Exception):
    """The driver refused."""


class _Location(ctypes.Structure):
    _fields_ = [("type", c_int), ("id", c_int)]


class _Flags(ctypes.Structure):
    _fields_ = [("compression", c_ubyte), ("rdma", c_ubyte), ("usage", c_ushort), ("reserved", c_ubyte * 4)]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("type", c_int), ("handle_types", c_int), ("location", _Location), ("win32", c_void_p), ("flags", _Flags),
    ]  # fmt: skip


class _AccessRight(ctypes.Structure):
    _fields_ = [("location", _Location), ("flags", c_int)]


@dataclass(frozen=True)
class Mapping:
    """A piece of device memory in this process's address space."""

    address: int
    size: int
    handle: int
    device: int

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        """The bytes, for `torch.as_tensor`."""
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.address, False), "version": 2}

    def close(self) -> None:
        """Unmap. The memory itself goes with the last process that has it."""
        _call("cuMemUnmap", c_uint64(self.address), c_size_t(self.size))
        _call("cuMemAddressFree", c_uint64(self.address), c_size_t(self.size))
        _call("cuMemRelease", c_uint64(self.handle))


def allocate(size: int, device: int) -> tuple[Mapping, int]:
    """Memory of at least `size` bytes, and a descriptor that stands for it. Raises `DriverError`."""
    size = rounded(size, device)
    properties = _properties(device)
    handle, descriptor = c_uint64(), c_int()
    _call("cuMemCreate", byref(handle), c_size_t(size), byref(properties), c_uint64(0))
    _call("cuMemExportToShareableHandle", byref(descriptor), handle, c_int(_DESCRIPTOR), c_uint64(0))
    return _map(handle.value, size, device, _READ_WRITE), descriptor.value


def rounded(size: int, device: int) -> int:
    """Bytes that an allocation of `size` really has: the device hands out memory in large units."""
    unit = c_size_t()
    _call("cuMemGetAllocationGranularity", byref(unit), byref(_properties(device)), c_uint(0))
    return -(-max(size, 1) // unit.value) * unit.value


def _properties(device: int) -> _Properties:
    return _Properties(type=_PINNED, handle_types=_DESCRIPTOR, location=_Location(_DEVICE, device))


def attach(descriptor: int, size: int, device: int, *, writable: bool) -> Mapping:
    """The memory that a descriptor stands for, in this process; `size` as `rounded` gives it. Raises `DriverError`."""
    handle = c_uint64()
    _call("cuMemImportFromShareableHandle", byref(handle), c_void_p(descriptor), c_int(_DESCRIPTOR))
    return _map(handle.value, size, device, _READ_WRITE if writable else _READ)


@cache
def probe(device: int) -> None:
    """Allocate a little, and map it once more from its descriptor. Raises `DriverError` where that doesn't work."""
    mapping, descriptor = allocate(1, device)
    try:
        attach(descriptor, mapping.size, device, writable=True).close()
    finally:
        os.close(descriptor)
        mapping.close()


def forget_persisting_lines() -> None:
    """Let the level-2 cache give up what a candidate asked it to keep (access-policy windows). Raises `DriverError`."""
    _call("cuCtxResetPersistingL2Cache")


def _map(handle: int, size: int, device: int, rights: int) -> Mapping:
    address = c_uint64()
    _call("cuMemAddressReserve", byref(address), c_size_t(size), c_size_t(0), c_uint64(0), c_uint64(0))
    _call("cuMemMap", address, c_size_t(size), c_size_t(0), c_uint64(handle), c_uint64(0))
    wanted = _AccessRight(_Location(_DEVICE, device), rights)
    try:
        _call("cuMemSetAccess", address, c_size_t(size), byref(wanted), c_size_t(1))
    except DriverError:
        if rights == _READ_WRITE:
            raise
        # Not every driver maps read-only; whether inputs stayed as they were is compared as well.
        wanted.flags = _READ_WRITE
        _call("cuMemSetAccess", address, c_size_t(size), byref(wanted), c_size_t(1))
    return Mapping(address.value, size, handle, device)


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_library(), name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(c_int(code), byref(text))
        raise DriverError(f"{name}: {(text.value or b'').decode() or code}")


@cache
def _library() -> ctypes.CDLL:
    """The driver. A context must be current in this thread: torch makes one on first use of the device."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        library.cuMemExportToShareableHandle  # noqa: B018 - older drivers lack it
    except (OSError, AttributeError) as error:
        raise DriverError(f"no usable CUDA driver: {error}") from error
    return library
