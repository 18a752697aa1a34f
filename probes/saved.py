"""A fitted probe as a file: safetensors with all that is needed to read another model run with it, and no code in it.

>>> save_probe("kind.safetensors", SavedProbe(probe, about))
>>> load_probe("kind.safetensors").scores(X)                      # [layer, class, row]
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import MinLen
from jaxtyping import Float
from pydantic import AfterValidator
from safetensors.torch import save
from torch import Tensor

from interp.runs.checks import NotNegative, Share, check_known
from interp.runs.files import atomic_write_bytes
from interp.runs.reading import Text, json_value, refuse, validated
from interp.runs.tensors import read_tensors
from interp.sites import Site
from probes.probe import Activations, Probe

_ABOUT, _KIND = "probe", "probe that `semcon probe` saved"
_TENSORS = ("weight", "bias", "mean", "scale")


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("expected each once")
    return names


@dataclass(frozen=True, kw_only=True)
class _About:
    """What a file says of its probe, as far as it is read."""

    sites: Annotated[tuple[Annotated[str, AfterValidator(Site.parse)], ...], MinLen(1)]
    position: Text
    classes: Annotated[tuple[str, ...], MinLen(2), AfterValidator(_distinct)]
    label: Text
    model: Text
    adapter: Text | None = None
    adapter_on: bool = True
    template_options: dict[str, Any] = field(default_factory=dict)
    n: NotNegative = 0
    auroc: tuple[Share, ...] = ()
    groups: tuple[str, ...] = ()


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
    metadata, tensors = read_tensors(path, _KIND)
    about, faults = json_value(metadata.get(_ABOUT, ""), dict[str, Any])
    stated = {f.name: about[f.name] for f in fields(_About) if f.name in about} if about else {}
    known, wrong = validated(_About, stated)
    faults += [*(wrong if not faults else ()), *(f"no tensor {name!r}" for name in _TENSORS if name not in tensors)]
    if faults or (faults := list(_misfits(known, tensors))):
        refuse(path, [f"no {_KIND}", *faults])
    return SavedProbe(Probe(*(tensors[name] for name in _TENSORS)), about)


def _misfits(about: _About, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what does not fit in a saved probe."""
    weight, layers = tensors["weight"], len(about.sites)
    sides = 1 if len(about.classes) == 2 else len(about.classes)
    if weight.ndim != 3 or weight.shape[:2] != (layers, sides):
        yield f"weights of shape {tuple(weight.shape)}: expected {layers} x {sides} x width"
    if any(t.shape != weight.shape[: t.ndim] for t in tensors.values()):
        yield "its parts differ in shape"
    if not all(t.isfinite().all() for t in tensors.values()) or not bool((tensors["scale"] > 0).all()):
        yield "a value is not finite, or a scale is not positive"
    if about.auroc and len(about.auroc) != layers:
        yield f"auroc has {len(about.auroc)} values for {layers} sites"


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
