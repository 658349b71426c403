"""Context managers that leave the model and the random state as they were."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_moxi.arguments import Model
from captum_moxi.models.unwrap import module_of, transformer

# Attributes in which layers of transformers models keep the rates of functional dropout and stochastic depth.
DROPOUT_RATES = ("attention_dropout", "dropout_prob", "drop_prob")


def find_random_layer(forward_func: Model) -> str | None:
    """Find a layer in training mode that makes forward passes of the same input differ.

    Returns:
        str or None: Name of the layer's class. None if there is no such layer.
    """
    module = module_of(forward_func)
    for part in module.modules() if module is not None else ():
        rates = [getattr(part, name, 0) for name in DROPOUT_RATES]
        if isinstance(part, _DropoutNd):
            rates.append(part.p)
        drops = any(isinstance(rate, float) and rate > 0 for rate in rates)
        if part.training and (drops or isinstance(part, _BatchNorm)):
            return type(part).__name__
    return None


@contextmanager
def preserved_state(forward_func: Model, devices: Iterable[torch.device]) -> Iterator[None]:
    """Restore the random state of the devices, and the statistics of batch norms in training mode, on exit.

    Both change only if the model is in training mode. Otherwise nothing is restored, because restoring the random state
    would also rewind the random numbers of other threads.
    """
    if find_random_layer(forward_func) is None:
        yield
        return
    module = module_of(forward_func)
    parts = module.modules() if module is not None else ()
    norms = [part for part in parts if part.training and isinstance(part, _BatchNorm)]
    saved = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    with torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"]):
        try:
            yield
        finally:
            for buffer, value in saved:
                buffer.copy_(value)


@contextmanager
def sdpa_attention(forward_func: Model) -> Iterator[None]:
    """Make a transformers model compute attention with ``scaled_dot_product_attention`` until exit.

    Pass a :func:`private_view`, so that other callers of the model are not affected.
    """
    model = transformer(forward_func)
    if model is None:
        yield
        return
    implementation = model.config._attn_implementation
    model.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = implementation
