"""The engine that runs in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captum_moxi.evaluation.engines.base import Engine, Resources

if TYPE_CHECKING:
    from captum_moxi.evaluation.evaluator import Evaluator


class LocalEngine(Engine):
    """Processes one batch after the other in this process."""

    def run(
        self, evaluator: "Evaluator", folder: Path, batches: Sequence[Sequence[int]], *, resources: Resources
    ) -> Iterator[int]:
        for batch in batches:
            yield evaluator.write(batch, folder)
