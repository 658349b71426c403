"""Engines process the batches of a run, and write the rows of each batch when it is finished.

``ENGINES`` lists the engines by name. To add one, derive a class from :class:`Engine` in a separate file, and register
it below.
"""

from captum_moxi.evaluation.engines.base import Engine, Resources
from captum_moxi.evaluation.engines.local import LocalEngine
from captum_moxi.evaluation.engines.ray_engine import RayEngine
from captum_moxi.registry import Registry

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "Resources"]

ENGINES: Registry[Engine] = Registry("engine")
ENGINES.register("local", LocalEngine, help="one batch after another in this process")
ENGINES.register("ray", RayEngine, help="batches on the workers of a Ray cluster")
