import torch
from torch import Tensor

from captum_moxi import MoXIInsertion
from captum_moxi.evaluation.rows import Row, minimal_row


def test_a_prediction_that_is_flipped_without_any_player_has_one_empty_group() -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x.sum(1) - 1.5], 1)

    # Class 1 is predicted if the sum is larger than 1.5. The baseline of the first example is sufficient, and each
    # player of the second one.
    baselines, x = torch.tensor([[2.0] * 3, [0.0] * 3]), torch.full((2, 3), 2.0)
    groups = MoXIInsertion(forward).alternatives(x, baselines=baselines, target=1, at_most=2)
    row: Row = {"image": "a", "status": "explained"}
    written = [minimal_row(row, groups[0], groups, example=example)["groups"] for example in range(2)]
    assert written == [[[]], [[0], [1]]]
    # In a batch of its own, an example has the same groups.
    for example, expected in enumerate(written):
        inputs = {"baselines": baselines[[example]], "target": 1, "at_most": 2}
        alone = MoXIInsertion(forward).alternatives(x[[example]], **inputs)  # type: ignore[arg-type]
        assert minimal_row(row, alone[0], alone, example=0)["groups"] == expected
