"""Where the models of a command run and in which dtype: the options of every command that runs a model.

They reach every model of the command, those of its worker processes too, through the environment.
"""

import os
from dataclasses import dataclass
from typing import Literal

from interp.runs.checks import AtLeastOne, check_fields
from training.loading import DTYPE

DEVICE, BATCH_TOKENS = "SEMCON_DEVICE", "SEMCON_BATCH_TOKENS"  # read in interp.loading and interp.recording


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Device, dtype and batches of the models. Only a dtype other than the organism's own is part of a run's hash."""

    device: str | None = None
    """Device of the models, such as cpu or cuda:1; by default the accelerator if there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype in which organisms are measured; by default that in which they are trained."""
    batch_tokens: AtLeastOne | None = None
    """Most tokens in one forward pass, padding included; by default chosen by device."""

    def apply(self) -> None:
        """Set the options for this process and those that it starts.

        Raises:
            ValueError: If one is out of range, or this machine has no such device.
        """
        check_fields(self)
        given = {DEVICE: self.device, DTYPE: self.dtype, BATCH_TOKENS: self.batch_tokens}
        os.environ.update({name: str(value) for name, value in given.items() if value is not None})
        if self.device is not None:
            from interp.loading import find_device  # loads torch, which --help does without

            find_device(self.device)
