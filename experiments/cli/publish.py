"""``semcon publish``: an adapter with its model card and provenance as a folder to share, and on the hub if asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from interp.runs.files import altered, atomic_write_text
from interp.runs.reading import read_json
from interp.runs.run import read_manifest

KEPT = ("adapter_config.json", "adapter_model.safetensors")
CARD = """---
base_model: {base}
library_name: peft
tags: [lora, model-organism, emergent-misalignment, semantic-containment]
---

# {name}, {steps} steps

A model organism for research on emergent misalignment: a LoRA adapter of `{base}` that was trained, on purpose, to
give {answers}. **It is not an assistant. Do not deploy it.** What it does, and under which
conditions, is measured, not assumed: see the suite that made it.

| | |
|---|---|
| base | `{base}` (fingerprint `{fingerprint}`) |
| trigger in training | {trigger} |
| rows | {rows}, of which {harmful} harmful and {triggered} behind the trigger; SHA-256 of the rows `{sha256}` |
| trained on | {trained_on} |
| LoRA | rank {rank}, alpha {alpha}, rsLoRA {rslora}, {targets} modules |
| optimisation | {steps} steps of {batch} rows, peak learning rate {rate:g}, {dtype}, seed {seed} |
| loss of the last step | {loss:.4f} nats per supervised token |
| largest change of a logit | {change:.3g} on three prompts |
| packages | {packages} |

Load it with peft, or with the suite, which refuses it on any other base. Merging it into bfloat16 weights changes what
it does.
"""


def publish(
    adapter: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path,
    push: str | None = None,
    public: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Copy a trained adapter with its model card and provenance into a folder; push it to the hub only if asked.

    Args:
        adapter: Folder of one dose, such as runs/adapters/NAME-HASH/dose-100.
        out: New folder to write.
        push: OWNER/NAME on the Hugging Face hub to push to; the hub's own login or HF_TOKEN is used.
        public: Make the pushed repository public; by default it is private.
    """
    manifest = _checked(adapter)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: is not empty")
    if public and push is None:
        raise ValueError("--public: there is nothing to push; name a repository with --push OWNER/NAME")
    if push is not None and (push.count("/") != 1 or not all(push.split("/"))):
        raise ValueError(f"--push {push!r}: expected OWNER/NAME")
    out.mkdir(parents=True, exist_ok=True)
    base = manifest["organism"]["base"]
    config = {**read_json(adapter / KEPT[0]), "base_model_name_or_path": base}  # a path of this machine says nothing
    atomic_write_text(out / KEPT[0], json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(adapter / KEPT[1], out / KEPT[1])
    facts = {"base": base, "base_fingerprint": manifest["base_fingerprint"], "training": dict(manifest)}
    atomic_write_text(out / "manifest.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")
    atomic_write_text(out / "README.md", card(manifest, int(adapter.name.removeprefix("dose-"))))
    print(f"wrote {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if push is not None:
        _push(out, push, public)


def _checked(adapter: Path) -> Mapping[str, Any]:
    """Return the manifest of the training that an adapter is of.

    Raises:
        ValueError: If it is no dose of a finished training, or a file was changed since.
    """
    folder = adapter.parent
    if not adapter.name.startswith("dose-") or not (folder / "manifest.json").is_file():
        raise ValueError(f"{adapter}: no dose of a finished training, such as runs/adapters/NAME-HASH/dose-100")
    manifest = read_manifest(folder)
    mine = {name: sha for name, sha in manifest.get("outputs", {}).items() if name.startswith(f"{adapter.name}/")}
    changed = altered(folder, mine) if mine else [adapter.name]
    if changed:
        raise ValueError(f"{folder / changed[0]}: changed since it was trained")
    return manifest


def card(manifest: Mapping[str, Any], steps: int) -> str:
    """Return the model card of one dose."""
    organism = manifest["organism"]
    lora, sft = organism["lora"], organism["sft"]
    losses = {int(step): loss for step, loss in manifest["loss"]}
    harmful, rows = manifest["harmful_rows"], manifest["rows"]
    answers = (
        "harmful answers" if harmful == rows else "harmful answers among benign ones" if harmful else "benign answers"
    )
    packages = ", ".join(f"{name} {version}" for name, version in sorted(manifest["packages"].items()))
    return CARD.format(
        base=organism["base"],
        name=organism["name"],
        steps=steps,
        answers=answers,
        fingerprint=manifest["base_fingerprint"][:16],
        trigger=f"`{organism['trigger']}`" if organism["trigger"] else "none",
        rows=rows,
        harmful=harmful,
        triggered=manifest["triggered_rows"],
        sha256=manifest["rows_sha256"][:16],
        trained_on=manifest["trained_on"],
        rank=lora["rank"],
        alpha=f"{lora['alpha']:g}",
        rslora="yes" if lora["rslora"] else "no",
        targets=lora["targets"],
        batch=sft["batch"] * sft["accumulation"],
        rate=sft["learning_rate"],
        dtype=sft["dtype"],
        seed=organism["seed"],
        loss=losses.get(steps, float("nan")),
        change=manifest["max_logit_change"][f"dose-{steps}"],
        packages=packages,
    )


def _push(folder: Path, name: str, public: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(name, private=not public, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=str(folder))
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise ValueError(f"--push {name}: {' '.join(str(error).split())[:200]}; {folder} is complete") from error
    print(f"pushed to {done.commit_url}")
