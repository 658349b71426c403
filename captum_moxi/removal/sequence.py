"""Removal from the token sequence: the tokens of absent patches are removed at one module of the model."""

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from captum_moxi import models
from captum_moxi.arguments import ForwardFunc, ModelOutput, check_natural
from captum_moxi.players import Players, size_pair
from captum_moxi.removal.attention_gates import ChangedScores, EmptyMeanIsZero, GatedAttention
from captum_moxi.removal.base import ForwardCall, MaskedModel, Removal, memory_per_pass, new_gates

# Maps the tokens of each image (images, tokens, width), the number of prefix tokens, and the image of each row (rows,)
# to the tokens of each row (rows, tokens, width).
ChangeTokens = Callable[[Tensor, int, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """Tokens of each row that remain.

    Args:
        tokens (Tensor): Positions of the remaining tokens. The prefix tokens come first. Shape ``(rows, kept)``, int64.
        n_prefix (int): Number of prefix tokens.
        n_all (int): Number of tokens before the removal.
    """

    tokens: Tensor
    n_prefix: int
    n_all: int

    def select(self, values: Any, select: models.Select) -> Any:
        """Select the values of the remaining tokens. Values that are not a tensor, such as None, are unchanged."""
        return select(values, self.tokens, self.n_prefix) if isinstance(values, Tensor) else values

    def select_pairs(self, values: Tensor) -> Tensor:
        """Select the values of the pairs of remaining tokens. Other tensors are unchanged.

        The last two dimensions of values of pairs are all tokens. While fewer tokens run, no other tensor has them.
        """
        are_pairs = values.dim() >= 3 and values.shape[-2] == values.shape[-1] == self.n_all > self.tokens.shape[1]
        return self.select(values, models.select_pairs) if are_pairs else values


@dataclass(frozen=True)
class Site:
    """The place in a model where tokens are removed.

    Args:
        module (nn.Module): Module that receives or returns the sequence ``(B, tokens, width)``.
        at_input (bool): Whether tokens are removed from the input of the module instead of its output.
        last (nn.Module, optional): Last layer, after which no token interacts with another. Without it, a model without
            prefix tokens receives a sequence of no tokens if no patch is present, which many layers do not accept.
            Default: None
        positions (dict, optional): Modules that run later and return values of the positions of all tokens, such as
            relative position biases.
            Default: {}
        arguments (dict, optional): Modules that run later, and the keyword arguments that are values of all tokens.
            Default: {}
        adds_pairs (bool, optional): Whether attention adds values of pairs of tokens that no module returns.
            Default: False
    """

    module: nn.Module
    at_input: bool
    last: nn.Module | None = None
    positions: Mapping[nn.Module, models.Positions] = field(default_factory=dict)
    arguments: Mapping[nn.Module, Mapping[str, models.Select]] = field(default_factory=dict)
    adds_pairs: bool = False

    def seen_in(self, view: models.PrivateView) -> "Site":
        """Return the same place in a view of the model."""
        return replace(
            self,
            module=view.module(self.module),
            last=None if self.last is None else view.module(self.last),
            positions={view.module(module): values for module, values in self.positions.items()},
            arguments={view.module(module): selected for module, selected in self.arguments.items()},
        )

    def hook(self, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Apply ``change`` to the sequence in each forward pass of this thread until the returned handle is removed."""
        if not self.at_input:
            this_thread = get_ident()
            return self.module.register_forward_hook(
                lambda _module, _args, output: _change_first(change, output) if get_ident() == this_thread else None
            )

        def change_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        return _hook_arguments(self.module, change_input)

    def hook_last(self) -> Iterator[RemovableHandle]:
        """Remove all tokens after the last layer in each forward pass of this thread until the handle is removed."""
        this_thread = get_ident()

        def remove_tokens(_module: nn.Module, _args: Any, output: Any) -> Any:
            return _change_first(lambda tokens: tokens[:, :0], output) if get_ident() == this_thread else None

        if self.last is not None:
            yield self.last.register_forward_hook(remove_tokens)

    def hook_positions(self, kept: Callable[[], KeptTokens]) -> Iterator[RemovableHandle]:
        """Select the values of positions in each forward pass of this thread until the handles are removed.

        Args:
            kept (Callable): Returns the tokens that remain. It is called after the sequence was changed.
        """
        this_thread = get_ident()
        for module, positions in self.positions.items():

            def select(_module: nn.Module, _args: Any, values: Any, positions: models.Positions = positions) -> Any:
                if get_ident() != this_thread:
                    return None
                of_all = values if isinstance(values, tuple) else (values,)
                selected = tuple(kept().select(value, positions.select) for value in of_all)
                return selected if isinstance(values, tuple) else selected[0]

            def pass_size(
                args: Any, kwargs: dict[str, Any], name: str | None = positions.size_argument
            ) -> tuple[Any, dict[str, Any]]:
                return args, kwargs if name is None else kwargs | {name: kept().n_all}

            yield module.register_forward_hook(select)
            yield _hook_arguments(module, pass_size)
        for module, arguments in self.arguments.items():

            def select_arguments(
                args: Any, kwargs: dict[str, Any], arguments: Mapping[str, models.Select] = arguments
            ) -> tuple[Any, dict[str, Any]]:
                passed = {name: select for name, select in arguments.items() if name in kwargs}
                return args, kwargs | {name: kept().select(kwargs[name], select) for name, select in passed.items()}

            yield _hook_arguments(module, select_arguments)


def _hook_arguments(
    module: nn.Module, change: Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]
) -> RemovableHandle:
    """Change the arguments of a module in each forward pass of this thread until the returned handle is removed."""
    this_thread = get_ident()

    def hook(_module: nn.Module, args: Any, kwargs: dict[str, Any] | None = None) -> Any:
        # While this thread registers or removes the hook, others may call it without the keyword arguments.
        return None if kwargs is None or get_ident() != this_thread else change(args, kwargs)

    return module.register_forward_pre_hook(hook, with_kwargs=True)


class SequenceRemoval(Removal):
    """Base class of removals that remove the tokens of absent patches at one module.

    A subclass implements :meth:`site`.

    Args:
        patch_size (int, tuple[int, int] or None): Height and width of a patch in pixels. None reads it from the model.
        n_prefix (int or None): Number of tokens before the patch tokens. None reads it from the model or the sequence.

    Raises:
        TypeError: If ``patch_size`` is neither an int nor a pair of ints, or ``n_prefix`` is not an int.
        ValueError: If a size is less than 1, or ``n_prefix`` is negative.
    """

    def __init__(self, patch_size: int | tuple[int, int] | None, n_prefix: int | None) -> None:
        if n_prefix is not None:
            check_natural("n_prefix", n_prefix)
        self._patch_size = None if patch_size is None else size_pair("patch_size", patch_size)
        self._n_prefix = None if n_prefix is None else operator.index(n_prefix)

    @abstractmethod
    def site(self, forward_func: ForwardFunc) -> Site:
        """Return the place where tokens are removed."""

    def bind(self, call: ForwardCall) -> MaskedModel:
        name = type(self).__name__
        if call.baselines is not None:
            raise ValueError(
                f"baselines were passed, but {name} does not use any; pass removal=BaselineRemoval(), or no baselines"
            )
        if len(call.inputs) != 1 or call.inputs[0].dim() != 4:
            shapes = [tuple(x.shape) for x in call.inputs]
            raise ValueError(
                f"{name} needs one input of images (B, C, H, W), but inputs has shapes {shapes}; "
                "pass removal=BaselineRemoval()"
            )
        site = self.site(call.forward_func)
        owners = _patch_owners(call.players, call.inputs[0], self.patch_size(call.forward_func), name)
        # A module that the user named is outside the layout, but has the tokens of its model.
        layout = models.token_layout(call.forward_func)
        tokens_per_patch = 1 if layout is None else layout.tokens_per_patch
        return _SequenceModel(call, site, owners, self._prefix_tokens(call.forward_func), tokens_per_patch)

    def patch_size(self, forward_func: ForwardFunc) -> tuple[int, int]:
        # If the model has no patch tokens, this raises the error about them, which explains more than one about the
        # patch size.
        self.site(forward_func)
        patch_size = self._patch_size or models.find_patch_size(forward_func)
        if patch_size is None:
            raise ValueError(f"{type(self).__name__} found no patch projection in the model; pass patch_size")
        return patch_size[0], patch_size[1]

    def grid_mask(self, forward_func: ForwardFunc, inputs: Tensor, grid: int | None) -> Tensor:
        if grid is not None:
            patches = models.PatchGrid.of(inputs, self.patch_size(forward_func))
            sides = (patches.rows, patches.columns)
            if any(side % grid for side in sides):
                valid_grids = [str(n) for n in range(1, min(sides) + 1) if not any(side % n for side in sides)]
                raise ValueError(
                    f"grid is {grid}, which cuts through patches, because the model has {patches.rows} x "
                    f"{patches.columns} of them; pass one of {', '.join(valid_grids)}, or the removal zero"
                )
        return super().grid_mask(forward_func, inputs, grid)

    def _prefix_tokens(self, forward_func: ForwardFunc) -> int | None:
        layout = models.token_layout(forward_func)
        return layout.n_prefix if self._n_prefix is None and layout is not None else self._n_prefix

    def _arguments(self) -> dict[str, object]:
        height, width = self._patch_size or (None, None)
        patch_size = height if height == width else self._patch_size
        return {"patch_size": patch_size, "n_prefix": self._n_prefix}

    def __repr__(self) -> str:
        arguments = {name: value for name, value in self._arguments().items() if value is not None}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def known_layout(forward_func: ForwardFunc, removal: str, argument: str) -> models.TokenLayout:
    """Return where the patch tokens of the model in a forward function are.

    Args:
        forward_func (Callable): Model.
        removal (str): Name of the removal, for the message.
        argument (str): Name of the argument that names the module in other models, for the message.

    Raises:
        ValueError: If there is no such model. The message says what to pass instead.
    """
    layout = models.token_layout(forward_func)
    if layout is not None:
        return layout
    model = models.transformer(forward_func)
    if model is not None:
        raise ValueError(
            f"{removal} cannot remove tokens from {type(model).__name__}, whose layers need the whole grid of patches; "
            "pass removal=BaselineRemoval()"
        )
    name = getattr(forward_func, "__name__", type(forward_func).__name__)
    raise ValueError(
        f"{removal} does not know where the patch tokens of {name} are; pass the module or its name as "
        f"{removal}({argument}=...), or pass removal=BaselineRemoval()"
    )


def check_module(argument: str, module: object) -> None:
    """Check that an argument is a module or the name of one.

    Raises:
        TypeError: If it is neither.
    """
    if not isinstance(module, nn.Module | str):
        raise TypeError(f"{argument} is {module!r}; pass a module, or its dotted name in the model")


def find_module(forward_func: ForwardFunc, module: nn.Module | str, argument: str) -> nn.Module:
    """Find a submodule by its dotted name. A module is returned unchanged.

    Args:
        forward_func (Callable): Model.
        module (nn.Module or str): Module, or its dotted name in the model.
        argument (str): Name of the argument, for the message.

    Raises:
        ValueError: If the model has no such submodule, or the module is not part of the model.
    """
    model = models.module_of(forward_func)
    if isinstance(module, nn.Module):
        if model is not None and not any(part is module for part in model.modules()):
            raise ValueError(
                f"{argument} is a {type(module).__name__} that is not part of the model; pass one of its modules, or "
                "the dotted name of one"
            )
        return module
    if model is None:
        raise ValueError(f"{argument} is the name {module!r}, but forward_func is not a module; pass the module itself")
    try:
        return model.get_submodule(module)
    except AttributeError as error:
        raise ValueError(
            f"{argument} is {module!r}, but the model has no such module ({error}); pass the name of one of its modules"
        ) from error


def _change_first(change: Callable[[Any], Any], output: Any) -> Any:
    """Change the output of a module, or the first of its outputs."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


class _SequenceModel(MaskedModel):
    """A model whose tokens are removed at one site."""

    def __init__(
        self, call: ForwardCall, site: Site, patch_owners: Tensor, n_prefix: int | None, tokens_per_patch: int
    ) -> None:
        super().__init__(call)
        self.tokens_per_patch = tokens_per_patch
        self._site = site
        self.patch_owners = patch_owners
        self.n_prefix = n_prefix
        # Arguments with a batch dimension are indexed by row, so the images must be, too.
        self.one_image_per_row = any(call.has_batch(arg) for arg in call.additional_forward_args)

    @cached_property
    def view(self) -> models.PrivateView:
        """View of the model. Hooks and configuration changes on it do not affect other callers of the model."""
        return models.private_view(self.call.forward_func)

    @cached_property
    def site(self) -> Site:
        """The place in the view where tokens are removed."""
        return self._site.seen_in(self.view)

    def __call__(self, coalitions: Tensor, examples: Tensor) -> ModelOutput:
        patches = self._present_tokens(coalitions, examples).nonzero()[:, 1].reshape(len(coalitions), -1)
        kept: list[KeptTokens] = []
        with nullcontext() if patches.shape[1] else EmptyMeanIsZero(), ExitStack() as hooks:

            def gather(tokens: Tensor, n_prefix: int, image_of_row: Tensor) -> Tensor:
                first = torch.arange(self.tokens_per_patch) * self.patch_owners.shape[1] + n_prefix
                tokens_of_patches = (first[:, None] + patches[:, None]).flatten(1)
                rows = torch.cat([torch.arange(n_prefix).expand(len(patches), -1), tokens_of_patches], 1)
                if not rows.shape[1]:
                    # The layers need a patch. It is removed after the last of them.
                    for handle in self.site.hook_last():
                        hooks.callback(handle.remove)
                        rows = first.expand(len(patches), -1)
                kept.append(KeptTokens(rows.to(tokens.device), n_prefix, tokens.shape[1]))
                return tokens[image_of_row[:, None], kept[-1].tokens]

            if self.site.adds_pairs:
                hooks.enter_context(ChangedScores(lambda values: kept[-1].select_pairs(values) if kept else values))
            return self._run(examples, gather, self.site.hook_positions(lambda: kept[-1]))

    def sizes(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        return self._present_tokens(coalitions, examples).sum(1)

    def rows_per_pass(self, size: int) -> int:
        device = self.call.inputs[0].device
        # A CPU is fastest with passes of 1,600 to 6,400 tokens. 64 KiB per token suffices for a base-size encoder.
        tokens = min(memory_per_pass(device) // 2**16, 4096 if device.type == "cpu" else 2**16)
        return max(1, tokens // (size * self.tokens_per_patch + 1))

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[ModelOutput, list[Tensor]]:
        """Run the model with all tokens. Each attention is a stage, and its gates weight the keys of the tokens.

        A classifier that averages the patch tokens, such as that of DINOv2, averages all of them.
        """
        stages: list[Tensor] = []
        reached_site = False

        def gates(query: Tensor, n_keys: int) -> Tensor | None:
            if not reached_site:
                return None
            stages.append(new_gates(coalitions, query))
            patch_gates = self._present_tokens(stages[-1], examples).repeat(1, self.tokens_per_patch)
            # An attention that pools the tokens may have no prefix tokens among its keys.
            prefix_gates = patch_gates.new_ones(len(patch_gates), n_keys - patch_gates.shape[1])
            return torch.cat([prefix_gates, patch_gates], 1)

        def keep_all(tokens: Tensor, n_prefix: int, image_of_row: Tensor) -> Tensor:
            nonlocal reached_site
            reached_site = True
            return tokens[image_of_row]

        with models.sdpa_attention(self.view.forward_func), GatedAttention(gates):
            output = self._run(examples, keep_all)
        if not stages:
            raise ValueError(
                "forward_func calls neither scaled_dot_product_attention nor torch.nn.MultiheadAttention, so its "
                "attention cannot be weighted; pass a screen that needs no gradient, such as LastGainsScreen"
            )
        return output, stages

    def _present_tokens(self, values: Tensor, examples: Tensor) -> Tensor:
        """Map one value per player to the patch tokens: ``(rows, n)`` to ``(rows, tokens)``."""
        owners = self.patch_owners.to(values.device)
        if len(owners) == 1:
            return values[:, owners[0]]
        return values.gather(1, owners[examples.to(owners.device)])

    def _run(self, examples: Tensor, change: ChangeTokens, later_hooks: Iterable[RemovableHandle] = ()) -> ModelOutput:
        """Run the model once. ``change`` determines the sequence at the site.

        ``later_hooks`` are registered after the hook at the site, because they may be hooks of the same module.
        """
        pixels, image_of_row = self._images(examples)
        n_calls = 0

        def change_sequence(tokens: Tensor) -> Tensor:
            nonlocal n_calls
            n_calls += 1
            return change(tokens, self._count_prefix(tokens, len(pixels)), image_of_row.to(tokens.device))

        handles = [self.site.hook(change_sequence), *later_hooks, *self._skip_unused_tokens()]
        try:
            output = models.call_model(self.view.forward_func, pixels, *self.call.arguments(examples))
        finally:
            for handle in handles:
                handle.remove()
        if n_calls != 1:
            hint = "; a function that calls a compiled model must call the model itself" if n_calls == 0 else ""
            raise ValueError(
                f"{type(self.site.module).__name__}, where tokens are removed, ran {n_calls} times in one forward "
                f"pass; name a module that runs once, or pass removal=BaselineRemoval(){hint}"
            )
        return output

    def _images(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images to embed, each image once if possible, and the index of the image of each row."""
        images, image_of_row = examples, torch.arange(len(examples))
        if not self.one_image_per_row:
            images, image_of_row = examples.unique(return_inverse=True)
        pixels = self.call.inputs[0]
        return pixels[images.to(pixels.device)], image_of_row

    @cached_property
    def _first_token_module(self) -> nn.Module | None:
        return models.first_token_module(self.call.forward_func)

    def _skip_unused_tokens(self) -> list[RemovableHandle]:
        """After the last attention, leave out the tokens that the classifier does not read.

        The residual connection broadcasts the remaining token over the others, which has no effect on the output.
        """
        module = self._first_token_module
        if module is None:
            return []
        return [self.view.module(module).register_forward_pre_hook(lambda _module, args: (args[0][:, :1],))]

    def _count_prefix(self, tokens: object, n_images: int) -> int:
        """Return the number of prefix tokens.

        Raises:
            ValueError: If the sequence does not consist of the patches of these images.
        """
        n_patches = self.patch_owners.shape[1] * self.tokens_per_patch
        if isinstance(tokens, Tensor) and tokens.dim() == 3 and len(tokens) == n_images:
            n_prefix = tokens.shape[1] - n_patches
            expected = self.n_prefix
            if models.fits_prefix(tokens.shape[1], n_patches) if expected is None else n_prefix == expected:
                return n_prefix
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(
            f"the sequence at {type(self.site.module).__name__} is {shape}, but {n_images} images of {n_patches} "
            f"patches and {'a few' if self.n_prefix is None else self.n_prefix} prefix tokens were expected. "
            "Name the module whose output is (B, tokens, width). If the model resizes its inputs, pass inputs of that "
            "size. Otherwise pass removal=BaselineRemoval()"
        )


def _patch_owners(players: Players, images: Tensor, patch_size: tuple[int, int], removal: str) -> Tensor:
    """Return the position in ``players.ids`` of the player that owns each patch token.

    Returns:
        Tensor: Shape ``(1, tokens)`` or ``(B, tokens)``, int64, on the CPU.
    """
    grid = models.PatchGrid.of(images, patch_size)
    if not grid.n_patches:
        raise ValueError(
            f"inputs has shape {tuple(images.shape)}, smaller than a patch of {grid.height} x {grid.width} pixels; "
            "pass larger images"
        )
    owners = players.positions[0].expand(-1, -1, *images.shape[2:]).cpu()
    patches = grid.pixels_to_patches(owners)
    cut = (patches != patches[..., :1]).any(-1).nonzero()
    if len(cut):
        _, row, column = cut[0].tolist()
        ids = players.ids[patches[tuple(cut[0])].unique()].tolist()
        raise ValueError(
            f"feature_mask cuts {len(cut)} patches: the {grid.height} x {grid.width} patch at row {row}, column "
            f"{column} contains the players {', '.join(map(str, ids[:4]))}, but {removal} removes whole patches; "
            f"pass a mask of whole patches, such as patch_mask({tuple(images.shape[2:])}, {patch_size}), or "
            "removal=BaselineRemoval()"
        )
    return patches[..., 0].flatten(1)
