"""Token removal: the tokens of absent patches are removed after the embedding, as in the paper."""

from torch import nn

from captum_moxi.arguments import ForwardFunc
from captum_moxi.removal.sequence import SequenceRemoval, Site, check_module, find_module, known_layout


class TokenRemoval(SequenceRemoval):
    r"""
    Remove the tokens of absent patches from the sequence, after the embedding and its positions.

    The model receives a shorter sequence: a coalition of k patches costs k tokens plus the prefix tokens (class,
    distillation, registers). This is the paper's removal for vision transformers. It uses a forward hook on the
    embedding module. Each image of a pass is embedded once.

    Layers whose attention depends on positions (relative position biases, rotary positions) receive the values of the
    remaining tokens. The result therefore equals that of a model in which no token attends to an absent patch and only
    present patches are averaged.

    If no patch is present, the model receives only its prefix tokens. A classifier that averages the patch tokens then
    receives zeros as their mean.

    Args:
        embeddings (nn.Module or str, optional): Module whose output is the sequence ``(B, tokens, width)``, or its
            dotted name in the model. The sequence has the prefix tokens first, followed by one token per patch in
            reading order, with positions added. Not needed for the vision transformers of transformers, timm and
            torchvision that ``docs/supported-models.md`` lists.
            Default: None
        patch_size (int or tuple[int, int], optional): Height and width of a patch in pixels. Not needed for the models
            above, or for models with a patch projection: a convolution whose stride equals its kernel size.
            Default: None
        n_prefix (int, optional): Number of tokens before the patch tokens. Not needed for the models above.
            Default: None, the number of tokens minus the number of patches. It must be at most 16 and less than the
            number of patches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a size is less than 1, or ``n_prefix`` is negative. When the removal is used: if the inputs are
            not one batch of images, if the model has no patch tokens or its layers need the whole grid, if the feature
            mask cuts through a patch, if ``baselines`` were passed, or if the sequence does not consist of the inputs'
            patches (as in a model that resizes its inputs).
    """

    def __init__(
        self,
        embeddings: nn.Module | str | None = None,
        patch_size: int | tuple[int, int] | None = None,
        n_prefix: int | None = None,
    ) -> None:
        super().__init__(patch_size, n_prefix)
        if embeddings is not None:
            check_module("embeddings", embeddings)
        self.embeddings = embeddings

    def site(self, forward_func: ForwardFunc) -> Site:
        if self.embeddings is None:
            layout = known_layout(forward_func, "TokenRemoval", "embeddings")
            return Site(
                layout.embeddings,
                at_input=layout.family.at_input,
                last=layout.layers[-1],
                positions=layout.positions(),
                arguments=layout.arguments(layout.layers),
                adds_pairs=layout.family.adds_pairs,
            )
        return Site(find_module(forward_func, self.embeddings, "embeddings"), at_input=False)

    def _arguments(self) -> dict[str, object]:
        name = self.embeddings if isinstance(self.embeddings, str | None) else type(self.embeddings).__name__
        return {"embeddings": name, **super()._arguments()}
