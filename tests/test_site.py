"""The site in a browser: no page is wider than the screen, and the accessibility checker finds nothing serious."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[1]
PHONE, DESK = 390, 1280
PAGES = {
    PHONE: ("index", "audit", "audit_misses", "hypotheses-audit", "inspect", "plan", "pocket"),
    DESK: ("index", "audit", "pocket"),
}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, without the pages of the API."""
    build, config = (pytest.importorskip(f"mkdocs.{name}") for name in ("commands.build", "config"))
    folder = tmp_path_factory.mktemp("site")
    settings = {"site_dir": str(folder), "strict": False, "plugins": ["search"]}
    build.build(config.load_config(str(ROOT / "mkdocs.yml"), **settings))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("width", PAGES)
def test_pages_fit_and_are_accessible_at_either_width(site, browser_page, barriers, width):
    for name in PAGES[width]:
        page = browser_page(f"{site}/{name}.html")
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")  # its menu slides in first
        assert barriers(page) == [], name
