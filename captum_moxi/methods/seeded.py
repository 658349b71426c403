"""Random numbers from a generator of their own, for classes that draw from PyTorch's global generator."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Functions with which Captum's classes draw samples.
DRAWS = frozenset(
    {
        torch.bernoulli,
        torch.multinomial,
        torch.normal,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        torch.Tensor.bernoulli,
        torch.Tensor.bernoulli_,
        torch.Tensor.multinomial,
        torch.Tensor.normal_,
        torch.Tensor.random_,  # with which data loaders draw their seed
        torch.Tensor.uniform_,
    }
)


class SeededRandom(TorchFunctionMode):
    """Draw random numbers on the CPU from a seeded generator while the mode is active.

    The global generator, and with it the random numbers of other threads, is not affected.

    Args:
        seed (int): Seed of the generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        # functions of torch.nn.init pass on a generator, which is None by default
        draws = func in DRAWS or "generator" in kwargs
        if draws and kwargs.get("generator") is None and self._is_on_cpu(args, kwargs):
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)

    def _is_on_cpu(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        devices = {value.device.type for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)}
        if kwargs.get("device") is not None:
            devices.add(torch.device(kwargs["device"]).type)
        return devices <= {"cpu"}
