"""Every claim of claims.csv is well formed, and a line that is not is named."""

import pytest

from figures.claims import registry
from figures.claims.claim import Claim
from figures.claims.registry import BEHAVIOUR, MECHANISM, claims

GOOD = {"about": BEHAVIOUR, "text": "EM {}", "arms": "", "experiment": "em_rate", "metric": "em_rate"}
GOOD |= {"condition": "off", "where": "", "take": "", "column": "", "direction": "≤", "limit": "SILENT"}
GOOD |= {"written": "before data"}


def test_every_line_is_a_claim_that_writes_its_bound_once():
    everything = [*claims(BEHAVIOUR), *claims(MECHANISM)]
    assert len(everything) == 80
    for claim in everything:
        written = "{}" in claim.text or "{p:" in claim.text or "> 0" in claim.text or "< 0" in claim.text
        assert written or "the more the base itself moves" in claim.text, claim.text


@pytest.mark.parametrize("change", [{"direction": "="}, {"limit": "LOUDEST"}, {"take": "best"}, {"written": "later"}])
def test_a_line_that_is_no_claim_is_refused(change):
    assert isinstance(registry._claim(GOOD, "claims.csv:2"), Claim)
    with pytest.raises(ValueError, match=r"claims\.csv:2|LOUDEST"):
        registry._claim(GOOD | change, "claims.csv:2")
