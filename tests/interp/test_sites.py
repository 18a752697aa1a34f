"""Site names round-trip, sort as a forward pass meets them, and import without torch."""

import subprocess
import sys

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from interp.sites import BLOCKS, SITE_NAMES, Site, block_of, resid_post
from tests.architectures import ARCHITECTURES

SITES = st.builds(Site, st.sampled_from(SITE_NAMES), st.integers(0, 200))


@given(SITES)
def test_a_site_is_read_back_from_its_text(site):
    assert Site.parse(str(site)) == site


@given(st.text())
def test_other_text_is_refused_and_quoted(text):
    try:
        assert str(Site.parse(text))
    except ValueError as error:
        assert repr(text) in str(error) or "the sites are" in str(error)


def test_execution_order():
    sites = [Site("resid_post", 0), Site("mlp_out", 0), Site("resid_pre", 1), Site("resid_mid", 0), Site("attn_out", 0)]
    names = ["attn_out.0", "resid_mid.0", "mlp_out.0", "resid_post.0", "resid_pre.1"]
    assert [str(site) for site in sorted(sites, key=lambda site: site.execution)] == names


def test_names_of_the_other_library():
    assert Site("resid_post", 3).transformer_lens == "blocks.3.hook_resid_post"


def test_resid_post_of_some_layers():
    assert [str(site) for site in resid_post(range(2))] == ["resid_post.0", "resid_post.1"]


def test_a_wrong_site_says_what_is_right():
    with pytest.raises(ValueError, match="site 'resid': the sites are resid_pre"):
        Site("resid", 0)
    with pytest.raises(ValueError, match="layers count from 0"):
        Site("resid_pre", -1)
    with pytest.raises(ValueError, match="family 'mamba'"):
        block_of("mamba")


def test_every_family_of_the_table_is_tested_on_a_model():
    tested = {getattr(transformers, config).model_type for config, _ in ARCHITECTURES.values()}
    assert set(BLOCKS) <= tested


def test_sites_need_no_torch():
    code = "import sys, interp.sites; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
