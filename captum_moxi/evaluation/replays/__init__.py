"""Replays: the orders of a run, played on images that change in other ways than by removal of players.

To add a replay, write a file that reads :class:`Orders` and returns a summary, and export its function here.
"""

from captum_moxi.evaluation.replays.attack import run_attack
from captum_moxi.evaluation.replays.corruption import run_corruptions
from captum_moxi.evaluation.replays.orders import ImageOrders, Orders, read_orders

__all__ = ["ImageOrders", "Orders", "read_orders", "run_attack", "run_corruptions"]
