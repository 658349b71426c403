"""Replays: experiments that reuse the orders of a run, but change the players in another way than removing them.

To add a replay, write a file with a function that reads :class:`Orders` and returns a summary, and export the function
here.
"""

from captum_moxi.evaluation.replays.attack import run_attack
from captum_moxi.evaluation.replays.corruption import run_corruptions
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, read_orders

__all__ = ["ImageOrders", "Orders", "read_orders", "run_attack", "run_corruptions"]
