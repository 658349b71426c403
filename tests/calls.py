"""Random calls of ``attribute``, with the same call in plain terms: one coalition per forward pass.

Models and inputs are small whole numbers, so that outputs are exact in every dtype, ties occur often, and no other
values are close to each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import reference
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

IDS = [0, 2, 3, 7, 11, 12, 30, 101]
# Shapes of an example with few and with many values.
FEW = ((2,), (4,), (2, 2), (1, 3))
MANY = ((6,), (7,), (2, 3), (2, 4))
Indices = tuple[int, ...]


class Polynomial(nn.Module):
    """A differentiable model of one or more tensors: ``(B, ...)`` to ``(B, values)``, reshaped.

    Args:
        n_tensors (int): Number of inputs. Further arguments are added to a hidden value.
        first, linear, square (Tensor): Weights: values to hidden values, and hidden values and their squares to
            outputs. Whole numbers.
        shape (tuple[int, ...] or None): Shape of the output of an example. None for one value for the whole batch.
        dtype (torch.dtype): Dtype of the output.
    """

    def __init__(
        self, n_tensors: int, first: Tensor, linear: Tensor, square: Tensor, shape: Indices | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.n_tensors, self.shape, self.dtype = n_tensors, shape, dtype
        self.first, self.linear, self.square = first, linear, square
        self.n_calls = 0

    def forward(self, *arguments: Any) -> Tensor:
        self.n_calls += 1
        values = torch.cat([x.flatten(1).double() for x in arguments[: self.n_tensors]], 1)
        hidden = values @ self.first
        for argument in arguments[self.n_tensors :]:
            hidden = hidden + argument
        output = ((hidden @ self.linear + (hidden * hidden) @ self.square) / 32).to(self.dtype)
        return output.sum() if self.shape is None else output.reshape(len(output), *self.shape)


class Reward(NamedTuple):
    """A reward: what the user passes, and the same function of the logits and the target of one example.

    ``exact`` rewards of exact logits are exact. ``relative`` rewards round in proportion to their value.
    """

    argument: Any
    plain: Callable[[Tensor, int], float]
    exact: bool = False
    relative: bool = False
    needs_target: bool = True


def log_odds(logits: Tensor, target: int) -> float:
    if len(logits) == 1:
        return float(logits)
    return float(logits[target] - torch.cat([logits[:target], logits[target + 1 :]]).logsumexp(0))


def log_probability(logits: Tensor, target: int) -> float:
    return -math.log1p(math.exp(-float(logits))) if len(logits) == 1 else float(logits.log_softmax(0)[target])


def probability(logits: Tensor, target: int) -> float:
    return 1 / (1 + math.exp(-float(logits))) if len(logits) == 1 else float(logits.softmax(0)[target])


EXACT = [
    Reward("output", lambda logits, target: float(logits[target]), exact=True),
    Reward("logit", lambda logits, target: float(logits[target]), exact=True),
    Reward(
        lambda logits, target: 3 * logits[:, 0] - logits.sum(1),
        lambda logits, target: float(3 * logits[0] - logits.sum()),
        exact=True,
        needs_target=False,
    ),
]
REWARDS = [
    *EXACT,
    Reward("log_odds", log_odds),
    Reward("log_probability", log_probability),
    Reward("probability", probability, relative=True),
]


@dataclass(frozen=True)
class Call:
    """A call of ``attribute``.

    Args:
        model (Polynomial): The model.
        arguments (dict[str, Any]): The inputs, baselines, mask, target and further arguments, in one of Captum's forms.
        tensors (tuple[Tensor, ...]): The inputs.
        baselines (tuple[Tensor, ...]): A baseline for each value.
        owners (tuple[Tensor, ...]): The player of each value.
        targets (list[tuple[int, ...]] or None): The target of each example.
        extras (tuple[Any, ...]): Further arguments of the model.
        reward (Reward): The reward.
    """

    model: Polynomial
    arguments: dict[str, Any]
    tensors: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    owners: tuple[Tensor, ...]
    targets: list[Indices] | None
    extras: tuple[Any, ...]
    reward: Reward

    @property
    def n_examples(self) -> int:
        return 1 if self.model.shape is None else len(self.tensors[0])

    @property
    def has_target(self) -> bool:
        """Whether there is a class to flip: the one that was passed, or that of a single logit."""
        return self.targets is not None or self.model.shape in (None, (), (1,))

    def players(self, example: int) -> list[int]:
        """The ids of an example's players, ascending."""
        return sorted({id for owners in self.owners for id in owners[example].flatten().tolist()})

    def example(self, example: int) -> dict[str, Any]:
        """The arguments of the call for one example of the batch."""
        one = slice(example, example + 1)
        return {
            "inputs": tuple(x[one] for x in self.tensors),
            "baselines": tuple(x[one] for x in self.baselines),
            "feature_mask": tuple(x[one] for x in self.owners),
            "target": None if self.targets is None else [self.targets[example]],
            "additional_forward_args": tuple(self.extra_of(extra, one) for extra in self.extras) or None,
        }

    def extra_of(self, extra: Any, examples: slice) -> Any:
        """A further argument for some examples: tensors whose first dimension is the batch have an entry for each."""
        has_batch = isinstance(extra, Tensor) and extra.dim() > 0 and len(extra) == len(self.tensors[0])
        return extra[examples] if has_batch else extra

    def outcome(self, example: int) -> Callable[[frozenset[int]], reference.Outcome]:
        """The outcome of coalitions of an example, each from one forward pass of this example alone."""
        rows = slice(None) if self.model.shape is None else slice(example, example + 1)
        target = (0,) if self.targets is None else self.targets[example]

        @cache
        def play(players: frozenset[int]) -> reference.Outcome:
            present = torch.tensor(sorted(players), dtype=torch.long)
            filled = [
                torch.where(torch.isin(owners[rows], present), x[rows].double(), baseline[rows])
                for x, baseline, owners in zip(self.tensors, self.baselines, self.owners, strict=True)
            ]
            output = self.model(*filled, *(self.extra_of(extra, rows) for extra in self.extras)).double()
            logits = output.reshape(1) if self.model.shape is None else output[0]
            for index in target[1:]:
                logits = logits[:, index]
            logits = logits.flatten()
            prediction = int(logits.argmax()) if len(logits) > 1 else 0 if float(logits) > 0 else -1
            confidence = probability(logits, target[0]) if self.has_target else math.nan
            return reference.Outcome(self.reward.plain(logits, target[0]), confidence, prediction)

        return play

    def flips(self, example: int, mode: str, min_confidence: float) -> Callable[[reference.Outcome], bool]:
        """Whether an outcome of an example is a flip."""
        target = 0 if self.targets is None else self.targets[example][0]

        def has_flipped(outcome: reference.Outcome) -> bool:
            is_target = outcome.prediction == target
            if mode == "insertion":
                return self.has_target and is_target and outcome.confidence > min_confidence
            return self.has_target and not is_target

        return has_flipped


def generator(draw: st.DrawFn) -> torch.Generator:
    """Draws a source of random numbers."""
    return torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))


def whole(draw: st.DrawFn, shape: Indices) -> Tensor:
    """Draws a tensor of whole numbers from -2 to 2, float64."""
    return torch.randint(-2, 3, shape, generator=generator(draw)).double()


def broadcast_shape(draw: st.DrawFn, shape: Indices) -> Indices:
    """Draws a shape that broadcasts to a shape."""
    if draw(st.booleans()):
        return shape
    sizes = tuple(draw(st.sampled_from([1, size])) for size in shape)
    return sizes[draw(st.integers(0, len(shape) - 1)) :]


@st.composite
def masks(draw: st.DrawFn, shape: Indices) -> tuple[Tensor, Tensor]:
    """A mask in one of the accepted forms, and the owner of each value."""
    form = broadcast_shape(draw, shape)
    ids = torch.tensor(IDS)[torch.randint(len(IDS), form, generator=generator(draw))]
    return ids.to(draw(st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.float32]))), ids.expand(shape)


@st.composite
def baseline_forms(draw: st.DrawFn, x: Tensor) -> tuple[Any, Tensor]:
    """A baseline in one of the accepted forms, and the baseline of each value, float64."""
    if draw(st.booleans()):
        number = draw(st.integers(-2, 2))
        value = number if draw(st.booleans()) else float(number)
        return value, torch.full(x.shape, float(number), dtype=torch.float64)
    tensor = whole(draw, broadcast_shape(draw, tuple(x.shape))).to(x.dtype)
    return tensor, tensor.double().expand(x.shape)


@st.composite
def target_forms(draw: st.DrawFn, batch: int, shape: Indices | None, needs_target: bool) -> tuple[Any, Any]:
    """A target in one of the accepted forms, and the indices of each example or None."""
    can_be_none = shape in (None, (), (1,)) or not needs_target
    if can_be_none and (shape is None or draw(st.booleans())):
        return None, None
    sizes = shape or (1,)
    index = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    shared = draw(st.booleans())
    targets = [draw(index)] * batch if shared else draw(st.lists(index, min_size=batch, max_size=batch))
    if len(sizes) > 1:
        return (targets[0] if shared and draw(st.booleans()) else targets), targets
    classes = [target[0] for target in targets]
    forms = [classes, targets, torch.tensor(classes), torch.tensor(classes, dtype=torch.int32)]
    if shared:
        forms += [classes[0], targets[0], torch.tensor(classes[0]), torch.tensor([classes[0]])]
    return draw(st.sampled_from(forms)), targets


@st.composite
def extra_forms(draw: st.DrawFn, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """Further arguments in one of the accepted forms, and as a tuple."""
    kinds = [whole(draw, (batch, 1)), 1, torch.tensor(-1.0)]
    extras = tuple(draw(st.lists(st.sampled_from(kinds), max_size=2)))
    if not extras:
        return draw(st.sampled_from([None, ()])), ()
    return (extras[0] if len(extras) == 1 and draw(st.booleans()) else extras), extras


@st.composite
def models(
    draw: st.DrawFn, tensors: tuple[Tensor, ...], shape: Indices | None, *, linear: bool, exact: bool
) -> Polynomial:
    """A model of these inputs with random weights. Only an exact reward allows other dtypes than float64."""
    rng = generator(draw)
    n_values, n_outputs = sum(x[0].numel() for x in tensors), math.prod(shape or ())

    def weights(*shape: int) -> Tensor:
        return torch.randint(-2, 3, shape, generator=rng).double()

    square = weights(3, n_outputs)
    return Polynomial(
        len(tensors),
        weights(n_values, 3).clamp(-1, 1),
        weights(3, n_outputs),
        torch.zeros_like(square) if linear else square,
        shape,
        draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16] if exact else [torch.float64])),
    )


@st.composite
def calls(
    draw: st.DrawFn,
    *,
    exact: bool = False,
    floating: bool = False,
    linear: bool = False,
    many: bool = False,
    shapes: tuple[Indices | None, ...] = ((2,), (3,), (), (1,), (3, 2), (2, 2, 2), None),
) -> Call:
    """A call.

    Args:
        exact (bool): Whether the reward must be exact.
        floating (bool): Whether the inputs must be floating-point.
        linear (bool): Whether the model must be linear.
        many (bool): Whether one input has many values, instead of one or two inputs with few values.
        shapes (tuple): Shapes of an example's output to choose from. None means one value for the batch.
    """
    batch = draw(st.integers(1, 3))
    shape = draw(st.sampled_from(shapes))
    reward = draw(st.sampled_from(EXACT if exact else REWARDS))
    input_dtypes = [torch.float64, torch.float32] + ([] if floating else [torch.int64])
    tensors = tuple(
        whole(draw, (batch, *draw(st.sampled_from(MANY if many else FEW)))).to(draw(st.sampled_from(input_dtypes)))
        for _ in range(1 if many else draw(st.integers(1, 2)))
    )
    model = draw(models(tensors, shape, linear=linear, exact=reward.exact))
    is_tuple = len(tensors) > 1 or draw(st.booleans())

    def join(values: list[Any]) -> Any:
        return tuple(values) if is_tuple or draw(st.booleans()) else values[0]

    baselines = [draw(baseline_forms(x)) for x in tensors]
    has_baselines = draw(st.booleans())
    mask_forms = [draw(masks(tuple(x.shape) if shape is not None else (1, *x.shape[1:]))) for x in tensors]
    has_mask = draw(st.sampled_from([True, True, False]))
    target, targets = draw(target_forms(batch, shape, reward.needs_target))
    extra_argument, extras = draw(extra_forms(batch))
    starts = [0, tensors[0][0].numel()]
    scalars = [
        torch.arange(x[0].numel()).reshape(x[:1].shape) + start for x, start in zip(tensors, starts, strict=False)
    ]
    arguments = {
        "inputs": tensors if is_tuple else tensors[0],
        "baselines": join([form for form, _ in baselines]) if has_baselines else None,
        "target": target,
        "additional_forward_args": extra_argument,
        "feature_mask": join([form for form, _ in mask_forms]) if has_mask else None,
    }
    owners = [owners for _, owners in mask_forms] if has_mask else scalars
    fills = (
        [fill for _, fill in baselines]
        if has_baselines
        else [torch.zeros_like(x, dtype=torch.float64) for x in tensors]
    )
    return Call(
        model,
        arguments,
        tensors,
        tuple(fills),
        tuple(owner.expand(x.shape) for owner, x in zip(owners, tensors, strict=True)),
        targets,
        extras,
        reward,
    )
