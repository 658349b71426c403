"""The beam: which groups each step continues with, and which players they choose."""

import torch
from torch import Tensor

from captum_moxi.search.candidates import Evaluations
from captum_moxi.search.state import Groups, Rules
from captum_moxi.search.ties import first_best, is_best


def best_groups(rules: Rules, groups: Groups, evaluations: Evaluations, width: int) -> tuple[Tensor, Tensor]:
    """Return the groups to continue from, and the player that each of them chooses.

    The first group of each example is the group of greedy search. The others are the best remaining groups.

    Args:
        rules (Rules): Rules of the search.
        groups (Groups): S groups that the search keeps.
        evaluations (Evaluations): What the step learned about its candidates.
        width (int): Number of groups to keep for each example.

    Returns:
        tuple[Tensor, Tensor]: Indices of groups ``(S',)`` and positions of players ``(S',)``, int64.
    """
    dtype, relative = groups.rewards.dtype, rules.rounds_relatively
    greedy_choice = first_best(evaluations.values, dtype, relative=relative, sizes=evaluations.sizes)
    if width == 1:
        return torch.arange(len(greedy_choice)), greedy_choice
    n = rules.game.n_players
    active = rules.active(groups)
    parents: list[int] = []
    choices: list[int] = []
    for example in range(rules.game.n_examples):
        members = (groups.examples == example).nonzero().flatten()
        parents.append(int(members[0]))
        choices.append(int(greedy_choice[members[0]]))
        if not active[members[0]]:
            continue
        values, sizes = evaluations.values[members].flatten(), evaluations.sizes[members].flatten()
        coalition_ids = evaluations.coalition_ids[members].flatten()
        for _ in range(width - 1):
            # Several groups can lead to the coalition that was just taken. Exclude it in all of them.
            taken = evaluations.coalition_ids[parents[-1], choices[-1]]
            values = values.masked_fill(coalition_ids == taken, -torch.inf)
            if bool(values.isinf().all()):
                break
            best = int(first_best(values[None], dtype, relative=relative, sizes=sizes[None]))
            parents.append(int(members[best // n]))
            choices.append(best % n)
    return torch.tensor(parents), torch.tensor(choices)


def remaining_groups(rules: Rules, groups: Groups) -> Tensor:
    """Return the indices of the groups to keep: all groups of active examples, and the best group of finished ones."""
    if len(groups.examples) == rules.game.n_examples:
        return torch.arange(rules.game.n_examples)
    active = rules.active(groups)
    kept: list[int] = []
    for example in range(rules.game.n_examples):
        members = (groups.examples == example).nonzero().flatten()
        finished = members[~active[members]]
        if len(finished) and len(members) > 1:
            members = _best_finished(rules, groups, finished)[None]
        kept += members.tolist()
    return torch.tensor(kept)


def _best_finished(rules: Rules, groups: Groups, finished: Tensor) -> Tensor:
    """Return the index of the group with the best last reward. Ties go to the group with the best sum of rewards.

    After a full ranking, all groups contain the same players, so only the rewards of earlier steps differ.
    """
    rewards = groups.rewards[finished]
    values, sizes = rules.values(rewards), rules.sizes(rewards)
    tied = is_best(values[None, :, -1], rewards.dtype, relative=rules.rounds_relatively, sizes=sizes[None, :, -1])[0]
    finished, values = finished[tied], values[tied]
    return finished[values.sum(1).argmax()]
