"""A removal with a fixed number of rows per pass, to test how games group rows."""

from torch import Tensor

from captum_moxi.arguments import ForwardFunc, ModelOutput
from captum_moxi.removal import ForwardCall, MaskedModel, Removal


class LimitedRemoval(Removal):
    """Another removal, with at most ``rows`` rows in one pass.

    Attributes:
        sizes (list[int]): The sizes for which a game asked for the number of rows per pass.
    """

    def __init__(self, removal: Removal, rows: int) -> None:
        self.removal = removal
        self.rows = rows
        self.sizes: list[int] = []

    def bind(self, call: ForwardCall) -> MaskedModel:
        return _LimitedModel(self.removal.bind(call), self)

    def patch_size(self, forward_func: ForwardFunc) -> tuple[int, int] | None:
        return self.removal.patch_size(forward_func)


class _LimitedModel(MaskedModel):
    def __init__(self, model: MaskedModel, removal: LimitedRemoval) -> None:
        super().__init__(model.call)
        self.model = model
        self.removal = removal

    def __call__(self, coalitions: Tensor, examples: Tensor) -> ModelOutput:
        return self.model(coalitions, examples)

    def sizes(self, coalitions: Tensor, examples: Tensor) -> Tensor:
        return self.model.sizes(coalitions, examples)

    def relaxed(self, coalitions: Tensor, examples: Tensor) -> tuple[ModelOutput, list[Tensor]]:
        return self.model.relaxed(coalitions, examples)

    def rows_per_pass(self, size: int) -> int:
        self.removal.sizes.append(size)
        return self.removal.rows
