"""Token removal: an absent patch's token is taken out of the sequence, as the paper does."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import multi_head_attention_forward, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from captum_moxi import models
from captum_moxi.players import Players
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal, free_memory, new_gates


class SequenceRemoval(Removal):
    """Absent patches' tokens are taken out of the sequence at one module; a subclass says which in ``site``."""

    def __init__(self, patch_size: int | tuple[int, int] | None, n_prefix: int | None) -> None:
        self._given_patch_size = patch_size
        self._given_prefix = n_prefix

    @abstractmethod
    def site(self, forward_func: Callable[..., Any]) -> tuple[nn.Module, bool]:
        """The module where tokens are taken out, and whether of its input (True) or its output."""

    def bind(self, call: ForwardCall) -> MaskedModel:
        name = type(self).__name__
        if call.baselines is not None:
            raise ValueError(
                f"baselines were given, and {name} uses none; pass removal=BaselineRemoval() or no baselines"
            )
        if len(call.inputs) != 1 or call.inputs[0].dim() != 4:
            shapes = [tuple(x.shape) for x in call.inputs]
            raise ValueError(
                f"{name} takes one input of images (B, C, H, W), not {shapes}; pass removal=BaselineRemoval()"
            )
        site, before = self.site(call.forward_func)
        owners = _patch_owners(call.players, call.inputs[0], self.patch_size(call.forward_func), name)
        return _SequenceModel(call, site, before, owners, self._n_prefix(call.forward_func))

    def patch_size(self, forward_func: Callable[..., Any]) -> tuple[int, int]:
        self.site(forward_func)  # a model without patch tokens is told so, not that it lacks a patch size
        size = self._given_patch_size
        if size is not None:
            return (size, size) if isinstance(size, int) else (size[0], size[1])
        found = models.find_patch_size(forward_func)
        if found is not None:
            return found
        raise ValueError(f"{type(self).__name__}: no patch projection was found in the model; pass patch_size")

    def _n_prefix(self, forward_func: Callable[..., Any]) -> int | None:
        model = models.transformer(forward_func)
        if self._given_prefix is None and model is not None and models.has_patch_tokens(model):
            return models.prefix_tokens(model)
        return self._given_prefix

    def __repr__(self) -> str:
        given = {name: value for name, value in self._arguments().items() if value is not None}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def _arguments(self) -> dict[str, Any]:
        return {"patch_size": self._given_patch_size, "n_prefix": self._given_prefix}


class TokenRemoval(SequenceRemoval):
    r"""
    Take the tokens of absent patches out of the sequence, after the embedding and its positions.

    The model sees a shorter sequence: a coalition of k patches costs k tokens and the prefix tokens (class,
    distillation, registers). This is the removal of the paper for vision transformers. A forward hook on the
    embedding module does it; the images of a pass are embedded once.

    With no patch left, the model sees its prefix tokens alone; a classifier that averages patch tokens then gets
    zeros for their mean.

    Args:
        embeddings (nn.Module or str, optional): The module, or its dotted name in the model, whose output is the
            sequence ``(B, tokens, width)``: prefix tokens first, then one token a patch in reading order, positions
            added. For timm's VisionTransformer that is ``norm_pre``, for torchvision's ``encoder.dropout``. Not needed
            for the transformers models ViT, DeiT, ViT-MSN and DINOv2, with or without registers.
            Default: None
        patch_size (int or tuple[int, int], optional): Height and width of a patch in pixels. Not needed for
            those models, nor where the model has a patch projection, a convolution whose stride is its kernel.
            Default: None
        n_prefix (int, optional): How many tokens stand before the patches'. Not needed for those models; of
            others, by default what the patches leave, if that is at most 16 and less than the patches.
            Default: None

    Raises:
        ValueError: at attribution: inputs that are not one batch of images, a model without patch tokens or whose
            layers need the whole grid, a feature mask that cuts a patch, ``baselines``, which this removal does
            not use, or a sequence that is not of the inputs' patches, as in a model that resizes its inputs.
    """

    def __init__(
        self,
        embeddings: nn.Module | str | None = None,
        patch_size: int | tuple[int, int] | None = None,
        n_prefix: int | None = None,
    ) -> None:
        super().__init__(patch_size, n_prefix)
        self.embeddings = embeddings

    def site(self, forward_func: Callable[..., Any]) -> tuple[nn.Module, bool]:
        if self.embeddings is not None:
            return named_module(forward_func, self.embeddings, "embeddings"), False
        return models.embedding_module(known_model(forward_func, "TokenRemoval", "embeddings")), False

    def _arguments(self) -> dict[str, Any]:
        named = self.embeddings if isinstance(self.embeddings, str | None) else type(self.embeddings).__name__
        return {"embeddings": named, **super()._arguments()}


def known_model(forward_func: Callable[..., Any], removal: str, argument: str) -> models.PreTrainedModel:
    """The transformers model with patch tokens in a forward function, or the error that says what to pass."""
    model = models.transformer(forward_func)
    if model is not None and models.has_patch_tokens(model):
        return model
    if model is not None:
        raise ValueError(
            f"{removal} cannot take tokens out of {type(model).__name__}, whose layers need the whole grid; "
            "pass removal=BaselineRemoval()"
        )
    raise ValueError(
        f"{removal} does not know where {getattr(forward_func, '__name__', type(forward_func).__name__)} has its patch "
        f"tokens; name the module ({removal}({argument}=...)) or pass removal=BaselineRemoval()"
    )


def named_module(forward_func: Callable[..., Any], module: nn.Module | str, argument: str) -> nn.Module:
    """The module itself, or the one of that dotted name, as in ``nn.Module.get_submodule``."""
    if isinstance(module, nn.Module):
        return module
    if not isinstance(module, str):
        raise TypeError(f"{argument} is {module!r}; pass a module or its dotted name in the model")
    model = models.module_of(forward_func)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{argument} is {module!r}, a name, and forward_func is no module; pass the module itself")
    try:
        return model.get_submodule(module)
    except AttributeError as error:
        raise ValueError(f"{argument} is {module!r}, and the model has no such module: {error}") from error


class _SequenceModel(MaskedModel):
    """A model whose sequence is gathered at one module."""

    def __init__(
        self, call: ForwardCall, site: nn.Module, before: bool, patch_owner: Tensor, n_prefix: int | None
    ) -> None:
        self.call = call
        self.forward = models.on_one_device(call.forward_func)
        self.site = site
        self.before = before
        self.patch_owner = patch_owner
        self.n_prefix = n_prefix
        # arguments that follow the batch must match the rows, so each row then brings an image of its own
        self.one_image_a_row = any(call.has_batch(arg) for arg in call.additional_forward_args)

    def _present_tokens(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        """``(rows, tokens)``: of every token, what its player has."""
        owners = self.patch_owner.to(coalitions.device)
        if len(owners) == 1:
            return coalitions[:, owners[0]]
        return coalitions.gather(1, owners[examples.to(owners.device)])

    def sizes(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        return self._present_tokens(coalitions, examples).sum(1)

    def rows_at_once(self, size: int) -> int:
        device = self.call.inputs[0].device
        # measured: a CPU is fastest with passes of 1,600 to 6,400 tokens; 64 KiB a token covers a base-size encoder
        tokens = min(free_memory(device) // 2**16, 4096 if device.type == "cpu" else 2**16)
        return max(1, tokens // (size + 1))

    def __call__(self, coalitions: Tensor, examples: Tensor) -> Any:
        patches = self._present_tokens(coalitions, examples).nonzero()[:, 1].reshape(len(coalitions), -1)

        def gather(tokens: Tensor, prefix: int, image_of_row: Tensor) -> Tensor:
            kept = torch.cat([torch.arange(prefix).expand(len(patches), -1), patches + prefix], 1)
            return tokens[image_of_row[:, None], kept.to(tokens.device)]

        with nullcontext() if patches.shape[1] else _EmptyMeanIsZero():
            return self._run(examples, gather)

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[Any, list[Tensor]]:
        """A stage for every attention: all tokens stay, and a gate weighs what the token's keys get of the attention.

        What a classifier averages itself, as DINOv2's does, is averaged over all tokens.
        """
        stages: list[Tensor] = []
        prefix_of: list[int] = []

        def gates(query: Tensor) -> Tensor | None:
            if not prefix_of:
                return None  # an attention before the tokens are taken out
            stages.append(new_gates(coalitions, query))
            of_tokens = self._present_tokens(stages[-1], examples)
            return torch.cat([of_tokens.new_ones(len(of_tokens), prefix_of[0]), of_tokens], 1)

        def keep_all(tokens: Tensor, prefix: int, image_of_row: Tensor) -> Tensor:
            prefix_of.append(prefix)
            return tokens[image_of_row]

        with models.sdpa_attention(self.call.forward_func), _GatedAttention(gates):
            output = self._run(examples, keep_all)
        if not stages:
            raise ValueError(
                "forward_func runs no attention that can be weighed, neither scaled_dot_product_attention nor "
                "torch.nn.MultiheadAttention; pass a screen that needs no gradient, such as LastGainsScreen"
            )
        return output, stages

    def _run(self, examples: Tensor, change: Callable[[Tensor, int, Tensor], Tensor]) -> Any:
        """Run the model once, its sequence being what ``change`` makes of the tokens of each image.

        ``change`` takes the tokens, how many of them stand before the patches', and the image of each row.
        """
        device = self.call.inputs[0].device
        images, image_of_row = examples, torch.arange(len(examples))
        if not self.one_image_a_row:
            images, image_of_row = examples.unique(return_inverse=True)
        pixels = self.call.inputs[0][images.to(device)]
        calls = 0

        def changed(tokens: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return change(tokens, self._prefix(tokens, len(pixels)), image_of_row.to(tokens.device))

        last = models.first_token_module(self.call.forward_func)
        handles = [_hook_input(self.site, changed) if self.before else _hook_output(self.site, changed)]
        if last is not None:
            # after the last attention tokens meet no more, and the classifier reads the first one alone; what is left
            # out comes back when the residual is added, broadcast
            handles.append(last.register_forward_pre_hook(lambda _module, args: (args[0][:, :1],)))
        # a compiled module inside the model would not see the hooks
        eager = torch.compiler.set_stance("force_eager")
        try:
            with eager:
                output = models.call_model(self.forward, pixels, *self.call.arguments(examples))
        finally:
            for handle in handles:
                handle.remove()
        if calls != 1:
            raise ValueError(
                f"{type(self.site).__name__}, where tokens are taken out, ran {calls} times in one forward pass; "
                "name a module that runs once, or pass removal=BaselineRemoval()"
            )
        return output

    def _prefix(self, tokens: Any, images: int) -> int:
        """How many tokens stand before the patches', if the sequence is one of these images' patches."""
        patches = self.patch_owner.shape[1]
        if isinstance(tokens, Tensor) and tokens.dim() == 3 and len(tokens) == images:
            prefix = tokens.shape[1] - patches
            if models.fits_prefix(tokens.shape[1], patches) if self.n_prefix is None else prefix == self.n_prefix:
                return prefix
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(
            f"the sequence at {type(self.site).__name__} is {shape} for {images} images of {patches} patches and "
            f"{'a few' if self.n_prefix is None else self.n_prefix} prefix tokens. Name the module whose output is "
            "(B, tokens, width); give a model that resizes its inputs the size that it resizes them to; or pass "
            "removal=BaselineRemoval()"
        )


def _hook_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    return module.register_forward_hook(lambda _module, _args, output: change(output))


def _hook_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    def hook(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


class _GatedAttention(TorchFunctionMode):
    """Weigh what each key gets of every attention by a gate: 1 all, 0 nothing.

    A gate is added to the attention's scores as its logarithm, so that any implementation that takes a mask does it.

    Args:
        gates (Callable): The gates ``(rows, keys)`` of the next attention, given its query; None leaves it as it is.
    """

    # the logarithm of a closed gate, and its derivative there, are those of one that is this far open
    AJAR = 1e-6

    def __init__(self, gates: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self.gates = gates

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        gated = {
            scaled_dot_product_attention: self._scaled_dot_product,
            multi_head_attention_forward: self._multi_head,
        }
        return gated.get(func, func)(*args, **(kwargs or {}))

    def _scaled_dot_product(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        bias = self._bias(query)
        if bias is None:
            return scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)
        # half precision would lose what passes through a closed gate
        wide = [part.to(bias.dtype) for part in (query, key, value)]
        mask = _masked(bias, attn_mask)
        return scaled_dot_product_attention(wide[0], wide[1], wide[2], mask, *args, **kwargs).to(query.dtype)

    def _multi_head(self, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        bias = self._bias(query)
        if bias is not None:
            # one mask for every row and head; sequences are (length, rows, width), and the heads' number comes fifth
            bias = bias.expand(-1, args[3], len(query), -1).flatten(0, 1).to(query.dtype)
            kwargs["attn_mask"] = _masked(bias, kwargs.get("attn_mask"))
        return multi_head_attention_forward(query, *args, **kwargs)

    def _bias(self, query: Tensor) -> Tensor | None:
        """What is added to the scores, ``(rows, 1, 1, keys)``."""
        gates = self.gates(query)
        return None if gates is None else (gates + self.AJAR).log()[:, None, None, :]


def _masked(bias: Tensor, mask: Tensor | None) -> Tensor:
    """The bias, and a mask as attention takes one, bool or added."""
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else bias + mask


class _EmptyMeanIsZero(TorchFunctionMode):
    """What is NaN for being the mean of no token is zero."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if isinstance(result, Tensor) and result.is_floating_point() and any(value.numel() == 0 for value in given):
            return result.nan_to_num(nan=0.0)
        return result


def _patch_owners(players: Players, images: Tensor, patch_size: tuple[int, int], removal: str) -> Tensor:
    """The player of every patch token: ``(1 or B, tokens)`` int64 on the CPU, positions in ``players.ids``."""
    height, width = patch_size
    rows, columns = images.shape[2] // height, images.shape[3] // width
    if not rows or not columns:
        raise ValueError(f"inputs of {tuple(images.shape)} are smaller than a patch of {height} x {width} pixels")
    owner = players.columns[0].expand(-1, -1, *images.shape[2:]).cpu()
    # pixels beyond the last whole patch reach no token
    owner = owner[:, :, : rows * height, : columns * width]
    patches = owner.reshape(*owner.shape[:2], rows, height, columns, width).permute(0, 2, 4, 1, 3, 5).flatten(3)
    cut = (patches != patches[..., :1]).any(-1).nonzero()
    if len(cut):
        _, row, column = cut[0].tolist()
        ids = players.ids[patches[tuple(cut[0])].unique()].tolist()
        raise ValueError(
            f"feature_mask cuts {len(cut)} patches: the {height} x {width} patch at row {row}, column {column} "
            f"holds players {', '.join(map(str, ids[:4]))}. {removal} takes whole patches away: pass a mask whose "
            f"borders are those of patches, such as patch_mask({tuple(images.shape[2:])}, {patch_size}), or "
            "removal=BaselineRemoval()"
        )
    return patches[..., 0].flatten(1)
