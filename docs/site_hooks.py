"""What the site has besides the pages in this folder: an API page per module, the gallery, the conventions.

MkDocs calls the functions by their names. Links out of ``docs/`` are right on a code host; here they are turned into
links to the API pages and the copied files.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, relpath
from typing import Any

from make_tree import PACKAGES, ROOT, purpose
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

COPIED = {"interp/CONVENTIONS.md": "conventions.md"}
GALLERY = "figures/gallery"
LINK = re.compile(r"\[([^\[\]]*)\]\(\.\./([^)#\s]+?)/?(#[^)\s]*)?\)")


def modules(package: str) -> Iterator[Path]:
    """Yield the modules of a package, the package itself first, relative to the root."""
    for path in sorted((ROOT / package).rglob("*.py"), key=lambda p: (p.parent, p.name != "__init__.py", p.name)):
        if path.name != "__main__.py":
            yield path.relative_to(ROOT)


def page_of(module: Path) -> str:
    """Return the API page of a module; a package is the index of its folder."""
    return f"api/{module.parent.as_posix()}/{'index' if _is_package(module) else module.stem}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API to the navigation, folder by folder; a site without the plugin that reads it has none."""
    assert config.nav is not None
    if "mkdocstrings" in config.plugins:
        config.nav.append({"API": [{package: _section(Path(package))} for package in PACKAGES]})
    return config


def _section(folder: Path) -> list[Any]:
    own = [path for path in modules(folder.as_posix()) if path.parent == folder]
    below = sorted({path.parent for path in modules(folder.as_posix()) if path.parent.parent == folder})
    pages: list[Any] = [page_of(path) if _is_package(path) else {path.stem: page_of(path)} for path in own]
    return [*pages, *({child.name: _section(child)} for child in below)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API pages, the pictures and the pages that live beside the code."""
    for package in PACKAGES if "mkdocstrings" in config.plugins else ():
        for module in modules(package):
            files.append(File.generated(config, page_of(module), content=_api_page(module)))
    for picture in (ROOT / GALLERY).glob("*.png"):
        files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    for source, target in COPIED.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def _api_page(module: Path) -> str:
    name = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
    text = f"---\ntitle: {name.rpartition('.')[2]}\n---\n\n::: {name}\n"
    if not _is_package(module):
        return text
    inside = [path for path in modules(module.parts[0]) if path != module]
    shown = [path for path in inside if module.parent == (path.parent.parent if _is_package(path) else path.parent)]
    lines = [f"| [{_short(path)}]({_between(module, path)}) | {purpose(ROOT / path)} |" for path in shown]
    return "\n".join([text, "| module | purpose |", "| --- | --- |", *lines, ""])


def _is_package(module: Path) -> bool:
    return module.name == "__init__.py"


def _short(module: Path) -> str:
    return module.parent.name if _is_package(module) else module.stem


def _between(start: Path, end: Path) -> str:
    return relpath(page_of(end), dirname(page_of(start)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave ``docs/`` at what the site has of their target; the others become plain text."""
    return LINK.sub(_link, markdown) if "/" not in page.file.src_uri else markdown


def _link(match: re.Match[str]) -> str:
    text, path, anchor = match[1], match[2], match[3] or ""
    if path.startswith(f"{GALLERY}/"):
        return f"[{text}](gallery/{Path(path).name})"
    if path in COPIED:
        return f"[{text}]({COPIED[path]}{anchor})"
    if path.endswith(".py") and path.split("/")[0] in PACKAGES and Path(path).name != "__main__.py":
        return f"[{text}]({page_of(Path(path))})"
    return text


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set off what a number does not show; it is part of the number."""
    return html.replace("<p>Not evidence for:", '<p class="caveat"><strong>Not evidence for:</strong>').replace(
        "<p>Source:", "<p><strong>Source:</strong>"
    )


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give the search dialog of the theme the name that it lacks, for screen readers."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')
