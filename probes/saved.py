"""A fitted probe as a file: safetensors with all that is needed to read another model run with it, and no code in it.

>>> save_probe("kind.safetensors", SavedProbe(probe, about))
>>> load_probe("kind.safetensors").scores(X)                      # [layer, class, row]
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from interp.runs.checks import check_known
from interp.runs.files import atomic_write_bytes
from interp.sites import Site
from probes.probe import Activations, Probe

_ABOUT = "probe"
_TENSORS = ("weight", "bias", "mean", "scale")
_NEEDED = ("sites", "position", "classes", "label", "model")


@dataclass(frozen=True, eq=False)
class SavedProbe:
    """A probe with axes [layer, class]: two classes have one probe, of the last of them.

    Attributes:
        about: ``sites`` (one per layer), ``position``, ``classes``, ``label``, ``model``, and what else is known of it.
    """

    probe: Probe
    about: Mapping[str, Any]

    @property
    def sites(self) -> list[Site]:
        """Where each layer's probe reads."""
        return [Site.parse(text) for text in self.about["sites"]]

    @property
    def classes(self) -> list[str]:
        """Its classes; of two the last is the positive one."""
        return list(self.about["classes"])

    @property
    def d_model(self) -> int:
        """Width of what it reads."""
        return self.probe.weight.shape[-1]

    def scores(self, X: Activations) -> Float[Tensor, "layer class n"]:
        """Return the score of every row."""
        return self.probe.scores(X)

    def direction(self, site: Site, name: str | None = None) -> Float[Tensor, " d_model"]:
        """Return the weight on raw activations at a site, of the positive class or of a named one.

        Of two classes the first one's direction is the negative of the second one's.

        Raises:
            ValueError: If it does not read there, or has no such class; of three or more classes one must be named.
        """
        check_known(site, self.sites, f"site {site}: the probe reads")
        at = self.probe.direction[self.sites.index(site)]
        if len(self.classes) == 2:
            name = self.classes[1] if name is None else name
        check_known(name, self.classes, f"class {name or 'none'}: name one of the probe's classes,")
        number = self.classes.index(str(name))
        return at[number] if len(self.classes) > 2 else at[0] * (1 if number else -1)


def save_probe(path: Path | str, saved: SavedProbe) -> None:
    """Write a probe to one safetensors file: float32, and what is known of it as JSON in the metadata."""
    tensors = {name: getattr(saved.probe, name).detach().float().cpu().contiguous() for name in _TENSORS}
    atomic_write_bytes(Path(path), save(tensors, {_ABOUT: json.dumps(saved.about, sort_keys=True)}))


def load_probe(path: Path | str) -> SavedProbe:
    """Read what ``save_probe`` wrote.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no probe, or its parts do not fit each other.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: no probe that `semcon probe` saved ({error})") from error
    if missing := [name for name in _NEEDED if name not in about]:
        raise ValueError(f"{path}: a probe without {missing[0]!r}")
    weight, layers = tensors["weight"], len(about["sites"])
    sides = 1 if len(about["classes"]) == 2 else len(about["classes"])
    if weight.ndim != 3 or weight.shape[:2] != (layers, sides) or not all(t.isfinite().all() for t in tensors.values()):
        raise ValueError(
            f"{path}: weights of shape {tuple(weight.shape)}, or not finite: expected {layers} x {sides} x width"
        )
    if any(t.shape != weight.shape[: t.ndim] for t in tensors.values()) or not bool((tensors["scale"] > 0).all()):
        raise ValueError(f"{path}: its parts differ in shape, or a scale is not positive")
    return SavedProbe(Probe(*(tensors[name] for name in _TENSORS)), about)


def fit_final(X: Activations, y: Tensor, fit: Any) -> Probe:
    """Fit one probe per class on all rows; axes [layer, class].

    Args:
        X: Activations.
        y: Two classes as booleans, or classes as numbers.
        fit: A fit of this package.
    """
    from probes.evaluate import one_vs_rest
    from probes.splits import Folds

    labels = one_vs_rest(y)
    rows = torch.ones_like(labels)
    return fit(X, labels.to(X.device), Folds(rows, ~rows, torch.zeros(1, X.shape[1], dtype=torch.long)))
