"""What Inspect finds by the suite's entry point: the model provider ``semcon`` and the task ``semcon/em``."""

import os

# On small tensors two threads are slower than one; read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from inspect_ai.model import ModelAPI, modelapi

from experiments.inspecting.extra import NAMESPACE, plainly_named
from experiments.inspecting.task import em

__all__ = ["em", "semcon"]


@modelapi(name=NAMESPACE)
@plainly_named
def semcon() -> type[ModelAPI]:
    """Return the provider of organisms."""
    from experiments.inspecting.provider import OrganismModel

    return OrganismModel
