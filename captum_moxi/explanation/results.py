"""What the results for one image and one target class have in common."""

from dataclasses import dataclass
from functools import cached_property

from captum_moxi.explanation.images import PreparedImage
from captum_moxi.game import CoalitionGame
from captum_moxi.plot import DrawPlayers, draw_from_game


@dataclass(frozen=True, eq=False)
class TargetResult:
    """A result for one image and one target class.

    Args:
        image (PreparedImage): The image.
        target (int): Index of the target class.
    """

    image: PreparedImage
    target: int

    @property
    def label(self) -> str:
        """Name of the target class."""
        return self.image.classifier.labels[self.target]

    @property
    def draw(self) -> DrawPlayers:
        """Draws the input of the model for any players. See :func:`captum_moxi.plot.draw_from_game`."""
        return draw_from_game(self._game, self.image.classifier.to_images)

    @cached_property
    def _game(self) -> CoalitionGame:
        """Game of the image and the target. Creating it costs a forward pass, so it is created once."""
        return self.image.game(self.target)
