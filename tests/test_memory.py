import errno
import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_moxi.memory import is_out_of_memory, too_large

# More than any machine has, so that allocations fail at once.
BYTES = 2**60
ADVICE = "pass less"


def error_of(fail: Callable[[], object]) -> BaseException:
    try:
        fail()
    except Exception as error:
        return error
    raise AssertionError("no error")


REAL = [
    lambda: torch.empty(BYTES, dtype=torch.uint8),
    lambda: np.empty(BYTES, dtype=np.uint8),
    lambda: bytearray(BYTES),
]


@pytest.mark.parametrize("allocate", REAL, ids=["torch", "numpy", "python"])
def test_an_allocation_that_fails_is_out_of_memory(allocate: Callable[[], object]) -> None:
    assert is_out_of_memory(error_of(allocate))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_messages_of_other_allocators_are_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        ValueError("out of memory"),
        OSError(errno.ENOENT, "No such file"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (error_of(REAL[0]), "an allocation of 1,099,511,627,776 MiB failed"),
        (error_of(REAL[1]), "an allocation of 1,099,511,627,776 MiB failed"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"), "an allocation of 2,560 MiB"),
        (MemoryError("Unable to allocate 128. GiB for an array with shape (17179869184,)"), "of 131,072 MiB failed"),
        (MemoryError("Unable to allocate 1.50 MiB for an array"), "an allocation of 2 MiB failed"),
        (MemoryError(), "MemoryError: no details"),
        (RuntimeError("std::bad_alloc"), "RuntimeError: std::bad_alloc"),
    ],
)
def test_the_message_says_how_much_memory_was_needed(error: BaseException, needed: str) -> None:
    message = str(too_large("a row", error, advice=ADVICE))
    assert message.startswith("a row does not fit into memory (")
    assert needed in message
    assert message.endswith(f"); {ADVICE}")
    # On a GPU, the main memory of the process says nothing.
    assert ("the process already used up to" in message) != isinstance(error, torch.OutOfMemoryError)


def test_the_error_does_not_keep_the_tensors_of_the_failed_pass() -> None:
    kept: list[weakref.ref[Tensor]] = []

    def forward() -> None:
        activations = torch.ones(3)
        kept.append(weakref.ref(activations))
        torch.empty(BYTES, dtype=torch.uint8)

    def fail() -> None:
        try:
            forward()
        except RuntimeError as error:
            raise too_large("a row", error, advice=ADVICE) from error

    error = error_of(fail)
    gc.collect()
    assert kept[0]() is None
    assert error.__cause__ is not None
