"""Statistics of vectors that were never kept equal those of the stored ones, however the vectors came."""

import pytest
import torch

from interp.adapters import active_adapter
from interp.analysis.moments import Accumulator, Moments, moments
from interp.directions import difference_in_means
from interp.edits import add
from interp.recording import record, stream
from interp.sites import Site, resid_post
from tests import tiny

SITES, POSITIONS, D = resid_post([0, 2]), ("last_prompt", "question"), 6
AT = (SITES[1], "question")
LABELS = ["a", "b", "a", "c", "b", "a", "b", "a", "a", "b"] * 4


def vectors(n=40, scale=1.0, offset=0.0):
    noise = torch.randn(len(SITES), len(POSITIONS), n, D, generator=torch.Generator().manual_seed(0))
    return noise * scale + offset


def of(values, labels, *portions, covariance=True):
    """Statistics of the vectors taken in the given portions of their indices."""
    accumulator = Accumulator(SITES, POSITIONS, covariance=covariance)
    for rows in portions or (range(len(labels)),):
        accumulator.add(values[:, :, list(rows)], [labels[row] for row in rows])
    return accumulator.finish()


def assert_same(a: Moments, b: Moments, rtol=1e-12):
    assert a.counts == b.counts and list(a.groups) == list(b.groups)
    for label in a.groups:
        one, two = a.groups[label], b.groups[label]
        torch.testing.assert_close(one.mean, two.mean, rtol=rtol, atol=1e-12)
        if one.scatter is not None and two.scatter is not None:
            torch.testing.assert_close(one.scatter, two.scatter, rtol=rtol, atol=1e-10)


def assert_are_of(found: Moments, values, labels, rtol=1e-6):
    """``found`` is what torch computes from the stored vectors, relative to the largest entry."""
    for s, site in enumerate(found.sites):
        for p, position in enumerate(found.positions):
            centred = []
            for label in found.counts:
                rows = values[s, p, [row for row, other in enumerate(labels) if other == label]].double()
                close(found.mean(label, site, position), rows.mean(0), rtol)
                if len(rows) > 1:
                    close(found.covariance(label, site, position), torch.cov(rows.T), rtol)
                centred.append(rows - rows.mean(0))
            whole = torch.cat(centred)
            close(found.pooled_covariance(site, position), whole.T @ whole / (len(whole) - len(centred)), rtol)


def close(found, want, rtol):
    torch.testing.assert_close(found, want, rtol=0, atol=rtol * float(want.abs().max()))


@pytest.mark.parametrize(
    "portions", [(), [range(40)], [[i] for i in range(40)], [range(7), range(7, 31), range(31, 40)]]
)
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 32_000.0), (1e-3, 5.0)])
def test_they_are_torchs_mean_and_covariance_of_the_vectors(portions, scale, offset):
    """Also far from zero, where a sum of squares would have lost every digit."""
    values = vectors(scale=scale, offset=offset)
    assert_are_of(of(values, LABELS, *portions), values, LABELS, rtol=1e-9)


def test_portions_and_order_change_nothing_but_rounding():
    values, whole = vectors(), of(vectors(), LABELS)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    for portions in ([order], [order[:3], order[3:]], [[i] for i in reversed(range(40))]):
        assert_same(of(values, LABELS, *portions), whole)


@pytest.mark.parametrize("cut", [1, 13, 39])
@pytest.mark.parametrize("covariance", [True, False])
def test_the_sum_of_two_parts_is_one_pass(cut, covariance):
    values = vectors(offset=100.0)
    parts = [of(values, LABELS, rows, covariance=covariance) for rows in (range(cut), range(cut, 40))]
    assert_same(parts[0] + parts[1], of(values, LABELS, covariance=covariance))
    assert_same(parts[1] + parts[0], of(values, LABELS, covariance=covariance))


def test_a_label_that_only_one_part_has_is_in_the_sum():
    values = vectors(4)
    both = of(values, ["a", "a", "b", "c"], [0, 1, 2]) + of(values, ["a", "a", "b", "c"], [3])
    assert both.counts == {"a": 2, "b": 1, "c": 1}


def test_adding_leaves_its_terms_as_they_are():
    a, b, again = of(vectors(), LABELS), of(vectors(), LABELS), of(vectors(), LABELS)
    assert (a + b).counts["a"] == 40
    assert_same(a, again, rtol=0)


def test_the_difference_in_means_is_the_one_of_stored_vectors():
    values = vectors()
    found = of(values, LABELS).difference_in_means("a", "b", *AT)
    rows = {label: [row for row, other in enumerate(LABELS) if other == label] for label in "ab"}
    torch.testing.assert_close(found.vector, difference_in_means(values[1, 1, rows["a"]], values[1, 1, rows["b"]]))
    assert (found.n_positive, found.n_negative, found.site) == (20, 16, SITES[1])


def test_a_planted_direction_is_recovered():
    values, planted = vectors(2000), torch.nn.functional.one_hot(torch.tensor(3), D).float()
    labels = ["on", "off"] * 1000
    values[:, :, ::2] += 3 * planted
    found = of(values, labels).difference_in_means("on", "off", *AT)
    assert found.unit @ planted > 0.99


@pytest.mark.parametrize("batch_tokens", [1, 200, 4096])
def test_the_statistics_of_a_model_are_those_of_its_recording(llama, batch_tokens):
    chats, labels = tiny.chats(), ["a", "b", "a", "a", "b"]
    stored = record(llama, chats, SITES, POSITIONS, batch_tokens=batch_tokens).values
    found = moments(llama, chats, labels, SITES, POSITIONS, covariance=True, batch_tokens=batch_tokens)
    assert_are_of(found, stored, labels)
    back = moments(llama, chats[::-1], labels[::-1], SITES, POSITIONS, covariance=True)
    assert_are_of(back, stored, labels, rtol=1e-5)  # other passes round otherwise, in float32


def test_they_see_the_active_adapter_and_the_edits(llama):
    lm, chats, shift = tiny.with_adapters(llama, "first"), tiny.chats(), torch.arange(16.0)
    args = chats, ["x"] * 5, SITES, POSITIONS
    on, edited = moments(lm, *args), moments(lm, *args, edits=[add(AT[0], shift, positions="question")])
    close(edited.mean("x", *AT) - on.mean("x", *AT), shift.double(), 1e-5)
    with active_adapter(lm, None):
        off = moments(lm, *args)
    assert (off.mean("x", *AT) - on.mean("x", *AT)).abs().max() > 1e-2


def test_a_stream_yields_every_prompt_once_and_the_recorded_vectors(llama):
    whole, seen, told = record(llama, tiny.chats(), SITES, POSITIONS).values, [], []
    for rows, values in stream(llama, tiny.chats(), SITES, POSITIONS, batch_tokens=130, progress=told.append):
        torch.testing.assert_close(values, whole[:, :, rows], atol=1e-5, rtol=0)
        assert not values.is_inference()
        seen += rows
    assert sorted(seen) == list(range(5)) and sum(told) == 5 and len(told) > 1


def test_half_precision_is_accumulated_in_float64():
    values = vectors(offset=300.0).to(torch.bfloat16)
    assert_are_of(of(values, LABELS), values, LABELS, rtol=1e-9)


def test_what_has_no_answer_is_named():
    found, plain, values = of(vectors(3), ["a", "a", "b"]), of(vectors(), LABELS, covariance=False), vectors(2)
    values[1, 0, 1, 2] = float("inf")
    for message, ask in {
        "label 'z': the labels are a, b": lambda: found.mean("z", *AT),
        r"site resid_post\.1: recorded were": lambda: found.mean("a", Site("resid_post", 1), "question"),
        "covariance of b at .*: 1 vectors about 1 means": lambda: found.covariance("b", *AT),
        r"covariance of a.*: not recorded \(covariance=True\)": lambda: plain.covariance("a", *AT),
        "other covariance_kept: True and False": lambda: found + plain,
        "2 vectors with 1 labels": lambda: Accumulator(SITES, POSITIONS).add(values, ["a"]),
        r"resid_post\.2 at last_prompt: a vector is not finite": lambda: of(values, ["a", "b"]),
    }.items():
        with pytest.raises(ValueError, match=message):
            ask()


def test_labels_must_match_the_prompts(llama):
    with pytest.raises(ValueError, match="5 prompts with 2 labels"):
        moments(llama, tiny.chats(), ["a", "b"], SITES, POSITIONS)
