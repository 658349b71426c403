"""The choice of kernels: it is measured once, and can be switched off for each thread."""

import asyncio
import itertools
from threading import Thread

import pytest

from captum_moxi.kernels import KERNEL_SETS, kernel_set, measured_choices, use_kernels
from captum_moxi.kernels.choices import is_faster

new_shape = itertools.count().__next__


@pytest.fixture
def kernel(monkeypatch):
    """Create kernels that take a given time on a clock of their own."""
    now = [0.0]
    monkeypatch.setattr("captum_moxi.kernels.choices.perf_counter", lambda: now[0])

    def create(*seconds):
        durations = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def run():
            now[0] += next(durations)

        return run

    return create


@pytest.mark.parametrize(
    ("alternative", "original", "expected"),
    [
        ([1.0], [2.0], True),
        ([2.0], [1.0], False),
        ([1.0], [1.0], False),
        # Too small a difference may be noise.
        ([1.0], [1.01], False),
        # The first call prepares a kernel, and a single slow call is not its fault.
        ([90, 1.0], [2.0], True),
        ([1.0, 1.0, 90.0, 1.0], [2.0], True),
    ],
)
def test_the_faster_kernel_is_chosen(kernel, alternative, original, expected):
    assert is_faster(("test", new_shape()), kernel(*alternative), kernel(*original)) is expected


def test_each_shape_is_measured_once():
    shape = ("test", new_shape())
    is_faster(shape, int, int)
    assert shape in measured_choices()
    is_faster(shape, pytest.fail, pytest.fail)


@pytest.mark.parametrize(("name", "expected"), [("torch", False), ("alternative", True)])
def test_a_selected_set_of_kernels_is_used_without_measuring(name, expected):
    shape = ("test", new_shape())
    with use_kernels(name):
        assert is_faster(shape, pytest.fail, pytest.fail) is expected
    assert shape not in measured_choices()


def test_the_selection_ends_with_the_context_even_after_an_error():
    with pytest.raises(KeyError), use_kernels("torch"):
        raise KeyError
    assert kernel_set() == "fastest"


def test_the_selection_is_private_to_a_thread_and_inherited_by_tasks():
    seen = {}

    def look(name):
        seen[name] = kernel_set()

    async def tasks():
        await asyncio.to_thread(look, "to_thread")

    with use_kernels("torch"):
        thread = Thread(target=look, args=("thread",))
        thread.start()
        thread.join()
        asyncio.run(tasks())
    assert seen == {"thread": "fastest", "to_thread": "torch"}


def test_an_unknown_name_is_refused_with_the_known_names():
    with (
        pytest.raises(ValueError, match="name is 'mkl'; pass one of 'fastest', 'torch', 'alternative'"),
        use_kernels("mkl"),
    ):
        pass
    assert KERNEL_SETS == ("fastest", "torch", "alternative")
