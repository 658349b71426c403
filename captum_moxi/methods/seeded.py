"""Random numbers from generators of their own, for methods that draw from the global generators.

PyTorch's draws are redirected in this thread only, so the random numbers of other threads do not change. NumPy has no
such mechanism, see :func:`seeded_draws`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearModel, SkLearnLinearRegression
from captum.attr import GradientShap, LayerGradientShap, NeuronGradientShap
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Functions that draw samples and accept a generator.
DRAWS = frozenset(
    {
        torch.bernoulli,
        torch.binomial,
        torch.multinomial,
        torch.normal,
        torch.poisson,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        # Distributions draw from these two.
        torch._sample_dirichlet,
        torch._standard_gamma,
        Tensor.bernoulli,
        Tensor.bernoulli_,
        Tensor.cauchy_,
        Tensor.exponential_,
        Tensor.geometric_,
        Tensor.log_normal_,
        Tensor.multinomial,
        Tensor.normal_,
        Tensor.random_,  # with which data loaders draw their seed
        Tensor.uniform_,
    }
)
# Functions that accept no generator in all supported versions of PyTorch, and the methods that draw the same values.
DRAWS_LIKE = {
    torch.rand_like: Tensor.uniform_,
    torch.randint_like: Tensor.random_,
    torch.randn_like: Tensor.normal_,
}
# Classes of Captum that draw from NumPy's global generator.
NUMPY_CLASSES = (GradientShap, LayerGradientShap, NeuronGradientShap)

_numpy_lock = threading.RLock()


class SeededRandom(TorchFunctionMode):
    """Draw PyTorch's random numbers from seeded generators, one for each device, while the mode is active.

    The global generators, and with them the random numbers of other threads, are not affected. The mode does not cover
    dropout, which accepts no generator.

    Args:
        seed (int): Seed of each generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in DRAWS_LIKE:
            requires_grad = kwargs.pop("requires_grad", False)
            values, limits = _empty_like(*args, **kwargs)
            return self.__torch_function__(DRAWS_LIKE[func], types, (values, *limits)).requires_grad_(requires_grad)
        # Functions of torch.nn.init pass on a generator, which is None by default.
        if (func in DRAWS or "generator" in kwargs) and kwargs.get("generator") is None:
            device = _device_of_draw(args, kwargs)
            # Tensors on the meta device have no values.
            if device.type != "meta":
                kwargs["generator"] = self._generator(device)
        return func(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            generator = torch.Generator(device).manual_seed(self._seed)
            # "cuda" and "cuda:0" may be the same device.
            self._generators[device] = self._generators.setdefault(generator.device, generator)
        return self._generators[device]


@contextmanager
def seeded_draws(attribution: object, seed: int) -> Iterator[None]:
    """Seed the random numbers that an attribution object draws from PyTorch and NumPy, until exit.

    NumPy's global generator belongs to all threads, and its draws cannot be redirected in one thread. Around classes
    that draw from it (GradientShap, and Lime with a model of scikit-learn), it is therefore seeded and restored, by one
    thread at a time. Other threads that draw from it at the same time get numbers of the seeded sequence.

    Args:
        attribution (object): Object with Captum's ``attribute``.
        seed (int): Seed.
    """
    with _seeded_numpy(seed) if _draws_from_numpy(attribution) else nullcontext(), SeededRandom(seed):
        yield


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    with _numpy_lock:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)


def _draws_from_numpy(attribution: object) -> bool:
    # NoiseTunnel contains another object, and Lime contains a model.
    inner = getattr(attribution, "attribution_method", None)
    return (
        isinstance(attribution, NUMPY_CLASSES)
        or _fits_with_numpy(getattr(attribution, "interpretable_model", None))
        or (inner is not None and _draws_from_numpy(inner))
    )


def _fits_with_numpy(model: object) -> bool:
    """Return whether a model of scikit-learn draws from NumPy's global generator when it is fitted."""
    if not isinstance(model, SkLearnLinearModel) or isinstance(model, SkLearnLinearRegression):
        return False
    return model.construct_kwargs.get("random_state") is None


def _empty_like(input: Tensor, *limits: int, **options: Any) -> tuple[Tensor, list[int]]:
    """Return a tensor to draw into, and the limits of the draw, given the arguments of a function in ``DRAWS_LIKE``.

    The tensor has the memory format of the input, which determines the order in which its values are drawn.
    """
    named_limits = [options.pop(name) for name in ("low", "high") if name in options]
    return torch.empty_like(input, **options), [*limits, *named_limits]


def _device_of_draw(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Return the device that a function draws on: its argument ``device``, that of its tensors, or the default."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    return next((tensor.device for tensor in tensors), torch.get_default_device())
