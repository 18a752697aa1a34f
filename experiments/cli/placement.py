"""Where the models of a command run, in which dtype, and under which protocol: options of every command with a model.

They reach every model of the command, those of its worker processes too, through the environment.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp.runs.checks import AtLeastOne, check_fields, value_faults
from training.loading import DTYPE

DEVICE, BATCH_TOKENS = "SEMCON_DEVICE", "SEMCON_BATCH_TOKENS"  # read in interp.loading and interp.recording


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Device, dtype, batches and protocol. Of the first three only a dtype other than the organism's own is hashed."""

    device: str | None = None
    """Device of the models, such as cpu or cuda:1, or auto to spread a large base over all accelerators; by default the
    accelerator if there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype in which organisms are measured; by default that in which they are trained."""
    batch_tokens: AtLeastOne | None = None
    """Most tokens in one forward pass, padding included; by default chosen by device."""
    protocol: Path | None = None
    """YAML file with other thresholds, judge prompts, temperature, answer length or number of answers, in the form of
    the protocol.yaml that `semcon init` writes; part of a run's hash."""

    def apply(self) -> None:
        """Set the options for this process and those that it starts.

        Raises:
            ValueError: If one is out of range, in the environment too, or this machine has no such device.
        """
        check_fields(self)
        given = {DEVICE: self.device, DTYPE: self.dtype, BATCH_TOKENS: self.batch_tokens}
        os.environ.update({name: str(value) for name, value in given.items() if value is not None})
        device, dtype, tokens = (os.environ.get(name) for name in given)
        number = int(tokens) if tokens and tokens.isdecimal() else tokens or None
        if faults := value_faults(Placement, {"dtype": dtype or None, "batch_tokens": number}):
            raise ValueError("; ".join(f"{fault} (in the environment)" for fault in faults))
        if device:
            from interp.loading import find_device  # loads torch, which --help does without

            find_device(device)
