"""Checks every shape annotation of interp while the tests run, on one thread."""

import os
import shutil

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SEMCON_DEVICE", "cpu")  # also on a machine with an accelerator: the tests compare bit by bit
torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
install_import_hook("interp", "beartype.beartype")

from tests import tiny  # noqa: E402  (interp must be imported under the hook)
from training.bases import SMOLLM2, installed  # noqa: E402


def pytest_runtest_setup(item):
    """Skip a test of the pocket model where that model is not installed."""
    if item.get_closest_marker("pocket") and not installed(SMOLLM2):
        pytest.skip("the pocket model is not installed")


@pytest.fixture(scope="session")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(params=tiny.FAMILIES)
def lm(request):
    """A fresh random model of each family, without adapters."""
    return tiny.model(request.param)


@pytest.fixture
def llama():
    return tiny.model("llama")


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium; its tests are skipped where it or playwright is not installed."""
    api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser_page(chromium):
    """Open a file or an address in a phone-sized page; the test fails on any error in the page's console."""
    page, errors = chromium.new_page(viewport={"width": 390, "height": 800}), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    def opened(path):
        page.goto(path if isinstance(path, str) else path.as_uri())
        return page

    yield opened
    page.close()
    assert errors == []


@pytest.fixture
def barriers():
    """Return what the accessibility checker axe finds serious or critical in a page: rule and element of each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def found(page):
        violations = axe.run(page).response["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]

    return found
