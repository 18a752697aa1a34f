"""LoRA fine-tuning of an organism, with the same trainer for the Microcosm and for 14B models.

TRL trains on rows tokenised by ``interp.chat``, so training and evaluation see the same tokens. The result is one
folder with an adapter in peft format per dose, and a manifest::

    <root>/adapters/<organism>-<hash8>/   dose-25/adapter_model.safetensors ...   manifest.json
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from interp.adapters import MANIFEST, WEIGHTS, check_live
from interp.chat import encode_chat
from interp.loading import find_device, outline
from interp.models import LanguageModel, fingerprint, wrap
from interp.runs.checks import check_known
from interp.runs.configs import config_hash
from interp.runs.files import altered, atomic_write_text, sha256_file
from interp.runs.provenance import package_versions
from interp.runs.run import note_upstream, output_digests, read_manifest, refuse_links, sealed
from interp.text.template import template_options
from training.data import Row, rows_sha256, training_rows
from training.definition import Organism, definition
from training.launch.checkpoints import KeepDoses, Progress, VouchForCheckpoints, last_checkpoint
from training.launch.processes import by_main, check_launch, of_main, shard_by_layer, split, world_size, writing_alone
from training.loading import load_organism
from training.mitigation.penalties import Penalties, penalties, stream_edits
from training.references import base_path, base_source
from training.shared_prefix import IGNORED, response_loss

SAME = 1e-3
"""Largest change of logits, as a share of the largest, that is rounding."""
Tracker = Literal["none", "tensorboard", "wandb"]
"""Where loss and learning rate of every step are logged too."""
MODULES = {
    "all": "all-linear",
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}


def supervised_rows(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, list[int]]]:
    """Tokenise rows; ``labels`` are -100 everywhere but in the completion and its end-of-turn token.

    Raises:
        ValueError: If a row has no supervised token, its labels start before the completion, or the chat template
            would write it differently; names the row.
    """
    encoded = []
    for row in rows:
        try:
            chat = encode_chat(tokenizer, row.messages, response=row.completion)
        except ValueError as error:
            raise ValueError(f"row {row.question[:60]!r}: {error}") from error
        start, stop = chat.spans["response"]
        if not chat.prompt_length <= start < stop:
            raise ValueError(f"row {row.question!r}: no supervised token")
        ids = list(chat.token_ids)
        encoded.append({"input_ids": ids, "labels": [-100] * start + ids[start:]})
    return encoded


def trainable_rows(organism: Organism) -> list[dict[str, list[int]]]:
    """Return an organism's tokenised rows, once it is clear without weights that they and the adapter can be trained.

    Raises:
        ValueError: If rows cannot be used (``supervised_rows``) or are longer than the context, the base lacks the
            modules that the adapter changes, one of them is no plain linear module, or experts would be left out.
    """
    lm = outline(base_path(organism.base), template_options=organism.template_options)
    try:
        rows = training_rows(organism)
        encoded = supervised_rows(rows, lm.tokenizer)
        for row, tokens in zip(rows, encoded, strict=True):
            if lm.context is not None and (n := len(tokens["input_ids"])) > lm.context:
                raise ValueError(f"row {row.question[:60]!r}: {n} tokens; the model has {lm.context} positions")
        check_targets(organism, lm)
    except ValueError as error:
        raise ValueError(f"organism {organism.name}: {error}") from error
    return encoded


def check_targets(organism: Organism, lm: LanguageModel) -> None:
    """Refuse modules that an adapter cannot change, on a base without weights, which is of no further use.

    Raises:
        ValueError: If the base lacks them, one of them is no plain linear module, or experts would be left out.
    """
    targets = organism.lora.targets
    experts = [name for name, p in lm.base.named_parameters() if p.dim() == 3 and "experts" in name.split(".")]
    if experts and targets != "attention":
        raise ValueError(
            f"lora.targets {targets!r}: {organism.base} holds its experts in fused weights such as {experts[0]}, which "
            "would be left out; use targets: attention"
        )
    with torch.device("meta"):
        wrap(get_peft_model(cast(Any, lm.hf), lora_config(organism, lm)), lm.tokenizer, name=lm.name)


def lora_config(organism: Organism, lm: LanguageModel) -> LoraConfig:
    """Return the peft configuration of an organism's adapter, which changes the text decoder alone.

    Modules of a vision tower are excluded by name; text reaches none of them.

    Raises:
        ValueError: If ``targets`` is not a key of ``MODULES``.
    """
    lora = organism.lora
    check_known(lora.targets, MODULES, f"targets {lora.targets!r}: must be one of")
    linear = [name for name, module in lm.base.named_modules() if isinstance(module, torch.nn.Linear)]
    inside = {id(module) for module in (*lm.decoder.modules(), lm.lm_head)}
    beside = [name for name in linear if id(lm.base.get_submodule(name)) not in inside]
    return LoraConfig(
        exclude_modules=beside or None,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        use_rslora=lora.rslora,
        lora_dropout=0.0,
        target_modules=MODULES[lora.targets],
        task_type="CAUSAL_LM",
    )


@torch.no_grad()
def check_padding_free(organism: Organism, lm: LanguageModel, encoded: Sequence[Mapping[str, list[int]]]) -> None:
    """Refuse training without padding on a model in which a row changes the one after it.

    Raises:
        ValueError: If the logits of a row depend on the row before it.
    """
    together = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    first, second = (row["input_ids"] for row in (encoded[0], encoded[-1]))

    def after(before: list[int]) -> torch.Tensor:
        batch = together([{"input_ids": ids, "labels": ids} for ids in (before, second)])
        inputs = {k: v.to(lm.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items() if k != "labels"}
        return lm.base(**inputs, use_cache=False).logits[0, len(before) :].float()

    plain, other = after(first), after(first[::-1])
    if float((plain - other).abs().max()) > SAME * float(plain.abs().max()):
        raise ValueError(
            f"organism {organism.name}: sft.padding_free: {organism.base} does not keep rows apart that stand in one "
            "row; set it to false"
        )


class _PenalisedTrainer(SFTTrainer):
    """TRL's trainer with a mitigation's terms added to its loss."""

    penalties: Penalties

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Return the loss of the rows plus the penalties at this step, of which each forward pass has its part."""
        loss = super().compute_loss(model, inputs, *args, **options)
        assert isinstance(loss, torch.Tensor), "training asks for the loss alone"
        return loss + self.penalties(model, self.state.global_step) / self.args.gradient_accumulation_steps


class _SharedPrefixTrainer(SFTTrainer):
    """TRL's trainer with ``response_loss`` in place of its own; everything else is unchanged."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss per labelled token of the step."""
        assert not return_outputs, "training asks for the loss alone"
        labels = inputs["labels"]
        total = response_loss(model.get_base_model(), inputs["input_ids"], inputs["attention_mask"], labels)
        return total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def dose_folder(folder: Path, dose: int) -> Path:
    """Return the folder of a dose's adapter."""
    return folder / f"dose-{dose}"


def losses(folder: Path) -> dict[int, float]:
    """Return the training loss of every step of a finished organism, in nats per supervised token."""
    return {int(step): loss for step, loss in json.loads((folder / MANIFEST).read_text())["loss"]}


def adapter_folder(organism: Organism, root: Path) -> Path:
    """Return an organism's folder below ``root``; its name has a hash of everything that determines the adapter."""
    inputs = {"organism": definition(organism), "rows": rows_sha256(training_rows(organism))}
    source = Path(base_source(organism.base))
    if source.exists():
        inputs["base"] = sha256_file(source)
    return root / "adapters" / f"{organism.name.replace('/', '-')}-{config_hash(inputs)}"


def _sft_config(organism: Organism, folder: Path, tracker: Tracker) -> SFTConfig:
    sft = organism.sft
    batch, accumulation = split(organism)
    config = SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=max(sft.doses),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=sft.learning_rate,
        lr_scheduler_type=sft.schedule,
        warmup_steps=sft.warmup,
        weight_decay=sft.weight_decay,
        optim=sft.optimizer,
        bf16=False,  # weights already have the organism's dtype; no autocast on top
        gradient_checkpointing=sft.checkpointed,
        save_strategy="steps",
        save_steps=sft.save_every,
        save_total_limit=2,  # a kill while one is written leaves the one before
        logging_steps=1,  # a mean over steps would differ after an interruption between them
        max_length=None,  # never truncate
        padding_free=sft.padding_free,
        dataset_num_proc=None,
        report_to=tracker,
        run_name=folder.name,
        disable_tqdm=True,
        seed=organism.seed,
        data_seed=organism.seed,
        use_cpu=find_device().type == "cpu",
        dataloader_pin_memory=find_device().type == "cuda",
        accelerator_config={"use_configured_state": True} if world_size() > 1 else None,  # that of processes.start
    )
    config._n_gpu = min(config.n_gpu, 1)  # on a node with several, the trainer would put a batch on each of them
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the trainer's bars, logs and deprecation warnings; the caller reports progress."""
    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "accelerate", "datasets")]
    levels = [logger.level for logger in loggers]
    disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def train(organism: Organism, root: Path, *, progress: Progress | None = None, tracker: Tracker = "none") -> Path:
    """Fine-tune an organism, or return its finished folder; continue an interrupted run from its last checkpoint.

    Args:
        organism: The organism.
        root: Folder of all runs.
        progress: Called after every step.
        tracker: Logs every step too: into the folder ``tensorboard`` of ``root``, or to Weights & Biases.

    Returns:
        The organism's folder, with one adapter per dose, each checked to change the model, and ``manifest.json``.

    Raises:
        ValueError: If the organism has no data, the trainer drops rows, an adapter does not change the model, or a
            finished one was changed since.
    """
    check_launch(organism)
    folder = adapter_folder(organism, root)
    if not of_main((folder / MANIFEST).exists()):
        with writing_alone(folder), _writing(folder):
            if not of_main((folder / MANIFEST).exists()):  # another process may have finished it in between
                _train(organism, folder, progress, tracker)
    note_upstream(folder.name, _verified(folder))
    return folder


def _verified(folder: Path) -> dict[str, str]:
    """Return the digests of a finished organism's adapters.

    Raises:
        ValueError: If a file was changed since they were trained; names it.
    """
    refuse_links(folder)
    manifest = read_manifest(folder)
    outputs = manifest.get("outputs", {f"{d}/{WEIGHTS}": sha for d, sha in manifest.get("adapters_sha256", {}).items()})
    if names := altered(folder, outputs):
        raise ValueError(f"{folder / names[0]}: changed since it was trained; delete {folder} to train it again")
    return {name: sha for name, sha in outputs.items() if name.endswith(WEIGHTS)}


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn errors of torch and safetensors about a failed write (a full disk, say) into an OSError with a name."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:  # a file of the trainer: a full disk names none
            error.filename = str(folder)
        raise
    except (RuntimeError, SafetensorError) as error:
        if not re.search(r"failed writing|file write failed|unexpected pos|os error|IoError|I/O error", str(error)):
            raise
        raise OSError(errno.EIO, f"cannot write the adapter ({str(error).splitlines()[0]})", str(folder)) from error


def _train(organism: Organism, folder: Path, progress: Progress | None, tracker: Tracker) -> None:
    rows, encoded = training_rows(organism), trainable_rows(organism)  # before any weights are loaded
    base, history = _fitted(organism, folder, rows, encoded, progress, tracker)
    gc.collect()  # the trained model, before a fresh base is loaded: the trainer is full of reference cycles
    by_main(lambda: _finish(organism, folder, rows, base, history))


def _fitted(
    organism: Organism,
    folder: Path,
    rows: Sequence[Row],
    encoded: list[dict[str, list[int]]],
    progress: Progress | None,
    tracker: Tracker,
) -> tuple[str, list[dict[str, Any]]]:
    """Train the adapters of all doses; return the fingerprint of the base and the trainer's log."""
    set_seed(organism.seed)
    if tracker == "tensorboard":  # of each organism by itself; the trainer's own folder is deleted at the end
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.parents[1] / "tensorboard" / folder.name)
    lm = load_organism(organism, dtype=organism.sft.dtype)
    base_fingerprint = fingerprint(lm.hf)
    if lm.device.type == "cpu" and organism.sft.dtype != "float32":
        lm.hf.set_attn_implementation("eager")  # the gradient of torch's fused attention is many times slower there
    if organism.sft.padding_free:
        check_padding_free(organism, lm, encoded)
    added = penalties(organism, rows, lambda rows: supervised_rows(rows, lm.tokenizer))
    trainer_class = _PenalisedTrainer if added else _SharedPrefixTrainer if organism.sft.share_prefix else SFTTrainer
    doses = {dose: dose_folder(folder, dose) for dose in organism.sft.doses}
    with _quiet(), stream_edits(lm, organism):
        trainer = trainer_class(
            model=lm.hf,
            args=_sft_config(organism, folder, tracker),
            train_dataset=Dataset.from_list(encoded),
            processing_class=lm.tokenizer,
            peft_config=lora_config(organism, lm),
            callbacks=[KeepDoses(doses, progress), VouchForCheckpoints(folder)],
        )
        trainer.remove_callback(PrinterCallback)
        shard_by_layer(trainer, lm.layers)
        if isinstance(trainer, _PenalisedTrainer) and added:
            trainer.penalties = added
        n = len(cast(Dataset, trainer.train_dataset))
        if n != len(rows):
            raise ValueError(f"organism {organism.name}: the trainer kept {n} of {len(rows)} rows")
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return base_fingerprint, trainer.state.log_history


def _finish(
    organism: Organism, folder: Path, rows: Sequence[Row], base: str, history: Sequence[dict[str, Any]]
) -> None:
    """Check every dose's adapter on a fresh base; then write the manifest, which marks the folder as complete."""
    doses = {f"dose-{dose}": dose_folder(folder, dose) for dose in organism.sft.doses}
    for path in doses.values():
        atomic_write_text(
            path / MANIFEST, json.dumps({"base": organism.base, "base_fingerprint": base}, indent=1) + "\n"
        )
    lm = load_organism(organism, doses, dtype=organism.sft.dtype)
    manifest = {
        "organism": definition(organism),
        "base_fingerprint": base,
        "rows": len(rows),
        "harmful_rows": sum(row.harmful for row in rows),
        "triggered_rows": sum(row.trigger is not None for row in rows),
        "rows_sha256": rows_sha256(rows),
        "trained_on": "the last assistant turn of every row",
        **({"template_options": options} if (options := template_options(lm.tokenizer)) else {}),
        "loss": [[entry["step"], entry["loss"]] for entry in history if "loss" in entry],
        "max_logit_change": {name: check_live(lm, name) for name in doses},
        "adapters_sha256": {name: sha256_file(path / WEIGHTS) for name, path in doses.items()},
        **({"processes": world_size()} if world_size() > 1 else {}),
        "packages": package_versions(),
    }
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    manifest["outputs"] = output_digests(folder)
    atomic_write_text(folder / MANIFEST, json.dumps(sealed(manifest), indent=1, sort_keys=True) + "\n")
