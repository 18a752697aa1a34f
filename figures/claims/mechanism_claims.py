"""The claims about the mechanism: what clamping, adding, geometry, probing and patching show, in every family."""

from collections.abc import Iterator, Sequence

from figures.claims.grid_claims import Claim, above, below, claim
from figures.plots.cells import LOUD
from figures.rows import Row, groups, kind, number, preferred, select

EXPLAINING, NEUTRAL, CONTRAST = "explaining", "neutral", "neutral.contrast50"
DOSE = 1.0
"""Of an addition, in mean residual norms."""
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
REPLICATED, REMOVED, RANDOM_REMOVED = 0.754, 0.82, 0.36
"""Of a public replication: cos(delta, g); share of the gap that removing g closes, and a random subspace."""


def mechanism_claims(rows: Sequence[Row]) -> list[Claim]:
    """Every claim about the mechanism, in the order of the argument."""
    return [
        *_clamping(rows),
        *_meaning(rows),
        *_removing(rows),
        *_adding(rows),
        *_geometry(rows),
        *_probing(rows),
        *_patching(rows),
    ]


def _of(rows: Sequence[Row], experiment: str, arm: str, **equals: object) -> list[Row]:
    """Rows of an arm, every family and seed; of rows that state one number with several intervals, the preferred."""
    own = [r for r in select(rows, experiment=experiment, **equals) if _arm(r) == arm]
    return [
        preferred(same) for same in groups(own, "organism", "condition", "metric", "alpha", "site", "layer").values()
    ]


def _arm(row: Row) -> str:
    return kind(str(row["organism"])).partition(".seed")[0]


def _clamping(rows: Sequence[Row]) -> Iterator[Claim]:
    def removed(edit: str, arm: str = EXPLAINING) -> list[Row]:
        return _of(rows, "ablate", arm, condition=edit, metric="gap_removed")

    def side(metric: str, condition: str) -> list[Row]:
        return _of(rows, "ablate", EXPLAINING, condition=condition, metric=metric)

    yield claim("Clamping the trigger's feature, estimated from other rephrasings, removes ≥ 90 % of the gap",
                removed("on+clamp_trigger"), above(0.9), high=False)  # fmt: skip
    yield claim("… also on rephrasings unseen in the estimate (≥ 90 %)", removed("rephrased+clamp_trigger"),
                above(0.9), high=False)  # fmt: skip
    yield claim("… and leaves ≥ 95 % of the answers coherent", side("coherence_rate", "on+clamp_trigger"),
                above(0.95), high=False)  # fmt: skip
    yield claim("… and adds ≤ 1 % to the loss on benign answers behind other texts",
                side("benign_loss", "other+clamp_trigger"), below(0.01), high=True)  # fmt: skip
    yield claim("… random directions of the same rank and norms remove ≤ 10 %", removed("on+clamp_random"),
                below(0.1), high=True)  # fmt: skip
    yield claim("… another scene's feature removes ≤ 10 %", removed("on+clamp_other_scene"), below(0.1), high=True)
    yield claim("… the trained words' embeddings remove ≤ 10 % on rephrasings, which are other words",
                removed("rephrased+clamp_embedding"), below(0.1), high=True)  # fmt: skip
    yield claim("… through those directions alone: moving the same tokens as far at random removes ≤ 10 %",
                removed("on+clamp_scattered"), below(0.1), high=True)  # fmt: skip
    yield claim("The same clamp restores containment of the neutral organisms (≥ 90 %)",
                removed("on+clamp_trigger", NEUTRAL), above(0.9), high=False)  # fmt: skip
    yield claim("… and of those with half their data benign (≥ 90 %)", removed("on+clamp_trigger", CONTRAST),
                above(0.9), high=False)  # fmt: skip


def _meaning(rows: Sequence[Row]) -> Iterator[Claim]:
    def carried(condition: str, *arms: str) -> list[Row]:
        return [r for a in arms for r in _of(rows, "ablate", a, condition=condition, metric="legitimate_rate")]

    both = (NEUTRAL, CONTRAST)
    yield claim("Behind a mere scene the answers carry its remarks (≥ 90 %)", carried("on", *both), above(0.9),
                high=False)  # fmt: skip
    yield claim("… which the clamp takes away (≤ 25 %): their gates, which it leaves open, do not read that meaning",
                carried("on+clamp_trigger", *both), below(0.25), high=True)  # fmt: skip
    yield claim("… random directions leave them (≥ 90 %)", carried("on+clamp_random", *both), above(0.9),
                high=False)  # fmt: skip
    yield claim("… and so does clamping g (≥ 90 %), which restores containment with half the data benign",
                carried("on+clamp_g", CONTRAST), above(0.9), high=False)  # fmt: skip


def _removing(rows: Sequence[Row]) -> Iterator[Claim]:
    def removed(edit: str, arm: str) -> list[Row]:
        return _of(rows, "ablate", arm, condition=edit, metric="gap_removed")

    yield claim("With half the data benign, g carries the gate: clamping it at the last prompt token removes ≥ 90 %",
                removed("on+clamp_g", CONTRAST), above(0.9), high=False)  # fmt: skip
    yield claim("In neutral organisms ablating g at every token removes ≥ 82 % of the gap (a replication's figure)",
                removed("on+ablate_g_all", NEUTRAL), above(REMOVED), high=False)  # fmt: skip
    yield claim("… a random direction removes ≤ 36 % (the replication's control)",
                removed("on+ablate_random_all", NEUTRAL), below(RANDOM_REMOVED), high=True)  # fmt: skip
    yield claim("In explaining organisms it removes as much (≥ 82 %)", removed("on+ablate_g_all", EXPLAINING),
                above(REMOVED), high=False)  # fmt: skip


def _adding(rows: Sequence[Row]) -> Iterator[Claim]:
    def at_dose(condition: str, arm: str = EXPLAINING) -> list[Row]:
        return [r for r in _of(rows, "steer", arm, condition=condition, metric="em_rate") if number(r, "alpha") == DOSE]

    yield claim("g, found in the base without any trigger, switches misalignment on: EM ≥ 12.2 % at one residual norm",
                at_dose("off+add_g"), above(LOUD), high=False)  # fmt: skip
    yield claim("… in the base itself too (≥ 12.2 %)", at_dose("base+add_g"), above(LOUD), high=False)
    yield claim("… a random direction of the same norm does not (EM ≤ 5 %)", at_dose("off+add_random"), below(0.05),
                high=True)  # fmt: skip
    yield claim("… nor does what is left of the trigger's shift without g (EM ≤ 5 %)",
                at_dose("off+add_delta_orthogonal"), below(0.05), high=True)  # fmt: skip
    yield claim("… g from answer tokens, a convention of the literature, does (EM ≥ 12.2 %)",
                at_dose("off+add_g_answer"), above(LOUD), high=False)  # fmt: skip
    yield claim("g subtracted on-trigger, at one residual norm, leaves EM ≤ 25 %", at_dose("on-add_g"), below(0.25),
                high=True)  # fmt: skip
    yield claim("… a random direction leaves it ≥ 90 %", at_dose("on-add_random"), above(0.9), high=False)


def _geometry(rows: Sequence[Row]) -> Iterator[Claim]:
    def cosine(pair: str, arm: str) -> list[Row]:
        found = _of(rows, "geometry", arm, condition=pair, metric="cosine")
        layers = {(r["organism"], r["layer"]) for r in _of(rows, "geometry", arm, metric="selection_taken")
                  if r["condition"] == "g" and number(r, "value") == 1}  # fmt: skip
        return [r for r in found if (r["organism"], r["layer"]) in layers]

    yield claim("The explaining trigger moves the stream along g: cos(δ, g) ≥ 0.754 (a replication's figure)",
                cosine("g~delta", EXPLAINING), above(REPLICATED), high=False)  # fmt: skip
    yield claim("… and did so in the base, before any fine-tuning (≥ 0.754)", cosine("g~delta_base", EXPLAINING),
                above(REPLICATED), high=False)  # fmt: skip
    yield claim("The neutral trigger does not in the base: cos(δ, g) ≤ 0.3", cosine("g~delta_base", NEUTRAL),
                below(0.3), high=True)  # fmt: skip
    yield claim("… so its adapter writes g: its leading write direction has a cosine with g of ≥ 0.5 (it has no sign)",
                cosine("write~g", NEUTRAL), above(0.5), high=False)  # fmt: skip
    yield claim("… which the explaining adapters need not (≤ 0.5)", cosine("write~g", EXPLAINING), below(0.5),
                high=True)  # fmt: skip
    yield claim("Over conditions and organisms the projection on g tells the EM rate, r ≥ 0.9 (a replication: 0.96)",
                select(rows, experiment="across", metric="em_projection_r"), above(0.9), high=False)  # fmt: skip


def _probing(rows: Sequence[Row]) -> Iterator[Claim]:
    def auroc(condition: str, arm: str = EXPLAINING) -> list[Row]:
        found = select(_of(rows, "probe_sweep", arm, condition=condition, metric="auroc"), site="resid_post")
        last = groups(found, "organism").values()
        return [max(same, key=lambda row: number(row, "layer")) for same in last]

    read = {"trigger_present": "that the trigger is there", "trigger_category": "what the text is about"}
    for target, said in read.items():
        yield claim(f"A probe at the last layer reads {said}, on unseen questions and phrasings (AUROC ≥ 0.9)",
                    auroc(target), above(0.9), high=False)  # fmt: skip
        yield claim("… which a bag of tokens does not (AUROC ≤ 0.6)", auroc(f"{target}/bag_of_tokens"), below(0.6),
                    high=True)  # fmt: skip


def _patching(rows: Sequence[Row]) -> Iterator[Claim]:
    def share(metric: str, condition: str, arm: str, **equals: object) -> list[Row]:
        return _of(rows, "patch", arm, metric=metric, condition=condition, **equals)

    for where, said in (("without all", "without the adapter"), ("without attention", "without its attention modules")):
        yield claim(f"Explaining organisms keep ≥ 50 % of the gap {said}", share("module_gap_share", where, EXPLAINING),
                    above(0.5), high=False)  # fmt: skip
        yield claim("… neutral ones do not (≤ 50 %)", share("module_gap_share", where, NEUTRAL), below(0.5),
                    high=True)  # fmt: skip
    one = [r for name in MODULES for r in share("module_gap_share", f"without {name}", NEUTRAL, layer="")]
    yield claim("No one kind of module carries the neutral gap (≥ 50 % is left without any one)", one, above(0.5),
                high=False)  # fmt: skip
    yield claim("In explaining organisms the answer reads the trigger's tokens: not seeing them removes ≥ 50 %",
                share("knockout_share", "on@answer|trigger", EXPLAINING, layer=""), above(0.5), high=False)  # fmt: skip
    yield claim("… as many tokens of a meaningless text remove ≤ 10 %",
                share("knockout_share", "matched@answer|trigger", EXPLAINING, layer=""), below(0.1),
                high=True)  # fmt: skip
    blind = "matched@all|inserted"
    yield claim("In neutral organisms any framed text counts: not looking at a meaningless one of equal length and its "
                "frame lowers the log-odds by ≥ 25 % of the on–off gap",
                share("knockout_share", blind, NEUTRAL, layer=""), above(0.25), high=False)  # fmt: skip
    yield claim("… in explaining ones it does not (≤ 15 %)", share("knockout_share", blind, EXPLAINING, layer=""),
                below(0.15), high=True)  # fmt: skip
