"""Mutants: small errors that somebody could make, and the tests that must find each of them.

``tests/test_mutants.py`` applies each mutant to a copy of the package. If a change of the package affects a line that a
mutant replaces, update the mutant.
"""

from dataclasses import dataclass
from pathlib import Path

PROPERTIES = "tests/properties/test_attribute.py"
PLAIN = f"{PROPERTIES}::test_a_search_is_the_plain_search[quick]"


@dataclass(frozen=True)
class Mutant:
    """An error in one place.

    Args:
        name (str): Short description of the error.
        file (str): File, relative to the package.
        old (str): Text that occurs once in the file.
        new (str): Text that replaces it.
        tests (tuple[str, ...]): Tests, at least one of which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = (PLAIN,)

    def apply(self, package: Path) -> None:
        """Replace the text in a copy of the package."""
        path = package / self.file
        source = path.read_text()
        assert source.count(self.old) == 1, f"{self.old!r} occurs {source.count(self.old)} times in {self.file}"
        path.write_text(source.replace(self.old, self.new))


MUTANTS = [
    Mutant(
        "half precision logits are not converted",
        "game/outputs.py",
        "        logits = logits.float()\n    # A reward",
        "        pass\n    # A reward",
        ("tests/game/test_coalition.py::test_half_precision_output_has_a_single_precision_reward",),
    ),
    Mutant(
        "a pass leaves out a row",
        "game/batching.py",
        "pending = pending[len(slots) :]",
        "pending = pending[len(slots) + 1 :]",
    ),
    Mutant(
        "rows return in the order of passes",
        "game/batching.py",
        "torch.cat(finished).argsort()",
        "torch.arange(len(torch.cat(finished)))",
        ("tests/game/test_batching.py::test_results_do_not_depend_on_the_size_of_a_pass",),
    ),
    Mutant(
        "ties go to the highest id",
        "search/ties.py",
        "    return before_best.sum(1).clamp(max=values.shape[1] - 1)",
        "    return values.shape[1] - 1 - is_best(values, dtype, relative=relative).flip(1).long().argmax(1)",
    ),
    Mutant(
        "ties need equal values", "search/ties.py", "TIE_EPS = 8", "TIE_EPS = 0", ("tests/search/test_searches.py",)
    ),
    Mutant(
        "deletion maximizes the reward",
        "search/state.py",
        '1.0 if path == "insertion" else -1.0',
        "1.0",
    ),
    Mutant(
        "a flip needs a confidence of at least the threshold",
        "search/selection.py",
        "confidences > min_confidence",
        "confidences >= min_confidence",
        (f"{PROPERTIES}::test_a_flip_needs_more_than_the_minimum_confidence[quick]",),
    ),
    Mutant(
        "a search takes one step fewer",
        "search/state.py",
        "(groups.n_steps < groups.limit)",
        "(groups.n_steps + 1 < groups.limit)",
    ),
    Mutant(
        "all rows receive the arguments of the first example",
        "removal/base.py",
        "arg.detach()[examples.to(arg.device)]",
        "arg.detach()[examples.to(arg.device) * 0]",
    ),
    Mutant(
        "all rows receive the baselines of the first example",
        "removal/baseline.py",
        "baseline = baseline[rows]",
        "baseline = baseline[:1]",
    ),
    Mutant(
        "all examples have the players of the first one",
        "game/coalition.py",
        "coalitions.bool().cpu() & self.exists[examples]",
        "coalitions.bool().cpu() & self.exists[:1]",
    ),
    Mutant(
        "the Shapley value is that of the last step",
        "search/greedy.py",
        "        if not groups.positions.shape[1]:\n            own_gains",
        "        if True:\n            own_gains",
    ),
    Mutant(
        "the Shapley values in full-context are those in self-context",
        "interactions.py",
        "all_but_one = ~torch.eye(n, dtype=torch.bool)",
        "all_but_one = torch.eye(n, dtype=torch.bool)",
        ("tests/test_interactions.py",),
    ),
    Mutant(
        "interactions have the opposite sign",
        "search/state.py",
        "interactions=(gains - shapley)",
        "interactions=(shapley - gains)",
    ),
    Mutant(
        "a screen sees the first gain of a player instead of its last",
        "search/greedy.py",
        "gains=torch.where(evaluated, gains, groups.gains)",
        "gains=torch.where(evaluated & groups.gains.isnan(), gains, groups.gains)",
        (f"{PROPERTIES}::test_last_gains_evaluates_the_players_with_the_highest_last_known_gains[quick]",),
    ),
    Mutant(
        "a screen sees the first estimate of a player instead of its last",
        "search/greedy.py",
        "estimates=torch.where(evaluated[:, None], estimates, groups.estimates)",
        "estimates=torch.where(evaluated[:, None] & groups.estimates.isnan(), estimates, groups.estimates)",
        ("tests/search/screens/test_gradient.py",),
    ),
    Mutant(
        "a beam continues with the same group twice",
        "search/beam.py",
        "values = values.masked_fill(coalition_ids == taken, -torch.inf)",
        "values = values.clone()",
        (f"{PROPERTIES}::test_a_wide_beam_finds_the_best_group[quick]",),
    ),
    Mutant(
        "ranks start below one",
        "attr/scores.py",
        "(n_steps - torch.arange(selection.order.shape[1])) / n_steps",
        "(n_steps - 1 - torch.arange(selection.order.shape[1])) / n_steps",
    ),
    Mutant(
        "absent and present values are swapped",
        "removal/baseline.py",
        "filled.append(torch.where(present, x, baseline))",
        "filled.append(torch.where(present, baseline, x))",
    ),
    Mutant(
        "DeiT has one prefix token",
        "models/tokens.py",
        "def _class_and_distillation_token(vision: Any) -> int:\n    return 2",
        "def _class_and_distillation_token(vision: Any) -> int:\n    return 1",
        ("tests/removal/test_tokens.py::test_logits_equal_those_of_the_kept_tokens",),
    ),
    Mutant(
        "all prefix tokens are the class token",
        "removal/sequence.py",
        "torch.arange(n_prefix).expand(len(patches), -1)",
        "torch.zeros(len(patches), n_prefix, dtype=torch.long)",
        ("tests/removal/test_tokens.py::test_logits_equal_those_of_the_kept_tokens",),
    ),
    Mutant(
        "a patch has the token and position of another patch",
        "removal/sequence.py",
        "return patches[..., 0].flatten(1)",
        "return patches[..., 0].transpose(1, 2).flatten(1)",
        ("tests/removal/test_tokens.py::test_logits_equal_those_of_the_kept_tokens",),
    ),
    Mutant(
        "a hook acts in all threads",
        "removal/sequence.py",
        "_change_first(change, output) if get_ident() == this_thread else None",
        "_change_first(change, output)",
        ("tests/test_threads.py::test_four_threads_that_mix_everything_get_the_results_of_one",),
    ),
]
