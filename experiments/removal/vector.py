"""Where a direction to steer with comes from: two sets of prompts, a saved probe, or a file of directions.

Exactly one of these. Everything that can be read without the model is checked without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.runs.checks import NotNegative
from interp.sites import Site, require_layer
from interp.text.prompts import Prompt, check_position, encode_prompts, read_prompts
from interp.triggers import Trigger

if TYPE_CHECKING:
    from torch import Tensor

    from interp.directions import Direction
    from interp.models import LanguageModel
    from probes import SavedProbe


@dataclass(frozen=True, kw_only=True)
class Source:
    """A direction to add: --positive and --negative, --probe, or --direction."""

    positive: Path | None = None
    """Prompts of one side: one per line, or JSON lines of messages; the direction points to them."""
    negative: Path | None = None
    """Prompts of the other side."""
    read: str = "last_prompt"
    """Where the two sides are read; their means differ by the direction."""
    probe: Path | None = None
    """Saved probe (semcon probe); the direction is its weight, at the layer of its highest AUROC."""
    target: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Class of the probe to steer towards; by default the positive one of two."""
    direction: Path | None = None
    """Safetensors file of directions, such as directions.safetensors of semcon geometry."""
    direction_name: str | None = None
    """Name of the direction in that file; needed if it has several."""
    site: str = "resid_post"
    """Site name at which it is added, unless the probe or the file names one."""
    layer: NotNegative | None = None
    """Layer at which it is added; by default that of the probe or file, else the middle one."""

    def config(self) -> Mapping[str, Any]:
        """Return what was given."""
        return {
            name: value for name, value in vars(self).items() if name in self.__dataclass_fields__ and value is not None
        }

    def inputs(self) -> Mapping[str, Path]:
        """Return the files."""
        files = {"positive": self.positive, "negative": self.negative, "probe": self.probe, "direction": self.direction}
        return {name: path for name, path in files.items() if path is not None}

    def depends(self) -> Mapping[str, Any]:
        """Return nothing: the files are all there is."""
        return {}

    def judges(self) -> frozenset[str]:
        """Return no judge."""
        return frozenset()

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse nothing: it has no model of its own."""

    def cells(self, rows: object = ()) -> Mapping[str, Any]:
        """Return no cells."""
        return {}

    def label(self) -> str:
        """Return the file that it comes from."""
        return next((path.stem for path in self.inputs().values()), "")

    def check(self) -> None:
        """Refuse anything but exactly one source, and files that hold none.

        Raises:
            ValueError: If so.
        """
        given = [bool(self.positive or self.negative), bool(self.probe), bool(self.direction)]
        if sum(given) != 1 or (given[0] and not (self.positive and self.negative)):
            raise ValueError(
                "name one direction: --positive FILE and --negative FILE, --probe FILE, or --direction FILE; that of "
                "an organism is added by `semcon steer --organism`"
            )
        for option, value, owner in (
            ("class", self.target, "probe"),
            ("direction-name", self.direction_name, "direction"),
        ):
            if value is not None and getattr(self, owner) is None:
                raise ValueError(f"--{option} {value}: needs --{owner}")
        Site(self.site, self.layer or 0)
        if self.positive and self.negative:
            sides = [{(tuple(m["content"] for m in p.messages), p.response) for p in side} for side in self._sides]
            if sides[0] == sides[1]:
                raise ValueError(f"--negative {self.negative}: has the same prompts as --positive {self.positive}")
            for side in self._sides:
                check_position(self.read, side)
        elif (vector := self._vector()) is not None:
            from interp.directions import norms

            try:
                norms(vector)
            except ValueError as error:
                raise ValueError(f"{self.probe or self.direction}: {error}") from error

    def prompts(self) -> list[Prompt]:
        """Return the prompts of both sides."""
        return [prompt for side in self._sides for prompt in side]

    def _vector(self) -> Tensor | None:
        """Return the weight of the probe, or the stored direction; None of prompts."""
        if self._probe and (site := self._site(None)):
            return self._probe.direction(site, self.target)
        return self._stored().vector if self.direction else None

    def check_width(self, d_model: int | None) -> None:
        """Refuse a stored direction or probe of another width than the model's, where that is known.

        Raises:
            ValueError: If it is.
        """
        vector = self._vector()
        if vector is not None and d_model is not None and len(vector) != d_model:
            raise ValueError(
                f"{self.probe or self.direction}: a direction of width {len(vector)}; the model's is {d_model}"
            )

    def at(self, n_layers: int | None) -> Site | None:
        """Return where it is added, as far as it is known without the model.

        Raises:
            ValueError: If the model has no such layer, or a probe does not read there.
        """
        site = self._site(n_layers)
        if site:
            require_layer(site.layer, n_layers, f"layer {site.layer}")
        return site

    def _site(self, n_layers: int | None) -> Site | None:
        if self._probe:
            sites, aurocs = self._probe.sites, self._probe.about.get("auroc") or [0.0]
            best = sites[max(range(len(aurocs)), key=lambda i: aurocs[i])]
            chosen = best if self.layer is None else Site(best.name, self.layer)
            self._probe.direction(chosen, self.target)
            return chosen
        if self.direction and self.layer is None:
            return self._stored().site
        if self.layer is not None:
            return Site(self.site, self.layer)
        return None if n_layers is None else Site(self.site, n_layers // 2)

    def find(self, lm: LanguageModel) -> Direction:
        """Return the direction; two sets of prompts are read with the active adapter.

        Raises:
            ValueError: If it does not fit the model, or is zero.
        """
        from interp.directions import Direction

        site = self.at(lm.n_layers)
        assert site is not None
        self.check_width(lm.d_model)
        if self._probe:
            classes = self._probe.classes
            name = self.target or classes[-1]
            others = ", ".join(c for c in classes if c != name)
            vector = self._probe.direction(site, self.target)
            return Direction(vector, site, "probe", name, others, int(self._probe.about.get("n", 0)), 0)
        if self.direction:
            return replace(self._stored(), site=site)
        return self._contrast(lm, site)

    def _contrast(self, lm: LanguageModel, site: Site) -> Direction:
        from interp.directions import Direction, difference_in_means
        from interp.recording import record

        chats = [encode_prompts(lm, prompts) for prompts in self._sides]
        sides = [record(lm, side, [site], [self.read]).at(site, self.read) for side in chats]
        vector, counts = difference_in_means(*sides), [len(side) for side in sides]
        return Direction(
            vector, site, f"difference-in-means at {self.read}", str(self.positive), str(self.negative), *counts
        )

    @cached_property
    def _sides(self) -> list[list[Prompt]]:
        return [read_prompts(path) for path in (self.positive, self.negative) if path]

    @cached_property
    def _probe(self) -> SavedProbe | None:
        if self.probe is None:
            return None
        from probes import load_probe

        return load_probe(self.probe)

    def _stored(self) -> Direction:
        """Return the direction of the file."""
        found = dict(_directions(Path(self.direction or ""), self.site, self.layer))
        if self.direction_name is None and len(found) > 1:
            names = ", ".join(list(found)[:8])
            raise ValueError(f"{self.direction}: has {len(found)} directions; --direction-name one, such as {names}")
        name = self.direction_name or next(iter(found), "")
        if name not in found:
            raise ValueError(f"{self.direction}: no direction {name!r}; it has {', '.join(list(found)[:8]) or 'none'}")
        return found[name]


def _directions(path: Path, site: str, layer: int | None) -> Iterator[tuple[str, Direction]]:
    """Yield the directions of a file: with their provenance where this suite wrote it, else every vector in it."""
    from interp.directions import Direction, load_directions
    from interp.runs.tensors import read_tensors

    metadata, tensors = read_tensors(path, "file of directions")
    if any('"site"' in text for text in metadata.values()):
        yield from load_directions(path).items()
        return
    for name, vector in tensors.items():
        if vector.ndim == 1:
            if layer is None:
                raise ValueError(f"{path}: says no layer; name it with --layer")
            yield name, Direction(vector.float(), Site(site, layer), f"{path.name}", name, "", 0, 0)
