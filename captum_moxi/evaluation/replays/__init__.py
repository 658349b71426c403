"""Replays: experiments that reuse the orders of a run, but change or remove the players in another way.

To add a replay, write a file with a function that reads :class:`Orders` and returns a summary, and export the function
here.
"""

from captum_moxi.evaluation.replays.attack import run_attack
from captum_moxi.evaluation.replays.corruption import run_corruptions
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, read_orders, read_orders_of_all_modes
from captum_moxi.evaluation.replays.removals import run_removals

__all__ = [
    "ImageOrders",
    "Orders",
    "read_orders",
    "read_orders_of_all_modes",
    "run_attack",
    "run_corruptions",
    "run_removals",
]
