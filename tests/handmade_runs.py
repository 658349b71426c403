"""Runs whose rows are written by hand, for tests of curves and reports."""

from pathlib import Path
from typing import Any

from captum_moxi.arguments import Mode
from captum_moxi.evaluation import store
from captum_moxi.evaluation.rows import Row

SETTINGS = {"model": "a model", "data": "photographs", "stop": None, "n_steps": None}
VERSIONS = '{"captum-moxi": "0"}'


def explained(
    image: str,
    method: str,
    mode: Mode,
    hits: str,
    confidences: list[float],
    *,
    players: int = 4,
    seconds: float = 1,
) -> Row:
    """A row in which ``"x"`` in ``hits`` marks the steps that predict the target, class 1."""
    return {
        "image": image,
        "status": "explained",
        "method": method,
        "mode": mode,
        "target": 1,
        "players": players,
        "order": list(range(len(hits) - 1)),
        "rewards": confidences,
        "confidences": confidences,
        "predictions": [1 if hit == "x" else 0 for hit in hits],
        "seconds": seconds,
        "rows": 10.0,
        "versions": VERSIONS,
    }


def write_run(folder: Path, rows: list[Row], **settings: Any) -> Path:
    store.open_run(folder, SETTINGS | settings)
    for image in dict.fromkeys(row["image"] for row in rows):
        store.write_part(folder, [row for row in rows if row["image"] == image])
    return folder


def write_full_run(folder: Path, *, copies: int = 1) -> Path:
    """A run of two explained images of four players, or several copies of them, a wrong image and an unreadable one."""
    rows: list[Row] = []
    for copy in range(copies):
        a, b = ("a", "b") if copy == 0 else (f"a{copy}", f"b{copy}")
        rows += [
            explained(a, "MoXI", "insertion", "-xxxx", [0.0, 0.5, 0.5, 0.5, 1.0], seconds=1),
            explained(a, "MoXI", "deletion", "xx---", [1.0, 0.5, 0.0, 0.0, 0.0]),
            explained(b, "MoXI", "insertion", "---xx", [0.0, 0.0, 0.0, 0.5, 1.0], seconds=3),
            explained(b, "MoXI", "deletion", "xxxxx", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ]
    rows += [
        {"image": "c", "status": "wrong", "versions": VERSIONS},
        {"image": "d", "status": "unreadable", "error": "torn", "versions": VERSIONS},
    ]
    return write_run(folder, rows)
