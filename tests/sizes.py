"""Property tests in two sizes: a few examples in each test run, and many in the slow tests."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy


def for_all(
    strategy: SearchStrategy[Any], *, quick: int, large: int
) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Checks a property for examples of a strategy.

    Decorators of hypothesis, such as the ``reproduce_failure`` that a failure prints, go between this decorator and the
    test.

    Args:
        strategy (SearchStrategy): The argument of the test.
        quick (int): Number of examples in each test run, always the same ones.
        large (int): Number of random examples in a test marked slow.
    """
    sizes = [
        pytest.param("quick", quick, id="quick"),
        pytest.param("large", large, id="large", marks=pytest.mark.slow),
    ]

    def decorate(test: Callable[[Any], None]) -> Callable[..., None]:
        @pytest.mark.parametrize(("profile", "examples"), sizes)
        def run(profile: str, examples: int) -> None:
            size = settings(settings.get_profile(profile), max_examples=examples)
            size(given(strategy)(test))()

        run.__name__, run.__module__, run.__doc__ = test.__name__, test.__module__, test.__doc__
        return run

    return decorate
