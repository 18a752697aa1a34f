"""Run the tutorials and write the page of each, with what it printed and drew.

    python docs/make_tutorials.py                       # all of them, each in a process of its own
    python docs/make_tutorials.py tutorial_probes       # one

A tutorial is a script of ``examples/`` in percent format. Its Markdown cells become text, its code cells code followed
by what they printed. A picture that a Markdown cell names is looked for below ``build/NAME`` and copied to
``docs/pictures``.
"""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIALS = (
    "tutorial_behaviour",
    "tutorial_probes",
    "tutorial_steering",
    "tutorial_figures",
    "probes_on_your_labels",
    "steering_demo",
)
NOTE = "*This page is [examples/{name}.py](../examples/{name}.py) with its output; `make examples` renews it.*"
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)/]+\.png)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([\w./]+)\)")


def cells(script: str) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is Markdown, its text) of every cell of a script in percent format."""
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, text = part.partition("\n")
        markdown = "[markdown]" in kind
        yield markdown, (re.sub(r"^# ?", "", text, flags=re.MULTILINE) if markdown else text).strip()


def text_of(markdown: str, name: str) -> str:
    """Return a Markdown cell as it stands on the page: its links and pictures lead to where those are there."""
    pictured = PICTURE.sub(lambda m: f"![{m[1]}](pictures/{name}-{m[2]})", markdown)
    return LINK.sub(lambda m: f"[{m[1]}]({_target(m[2])})", pictured)


def _target(link: str) -> str:
    if link.removesuffix(".py") in TUTORIALS:
        return link.replace(".py", ".md")
    return link.removeprefix("../docs/") if link.startswith("../docs/") else f"../examples/{link}"


def page(name: str) -> str:
    """Run a tutorial in this process and return its page."""
    path, build = Path("examples", f"{name}.py"), ROOT / "build" / name
    names = {"__name__": "__main__", "__file__": str(path)}
    parts: list[str] = []
    for markdown, text in cells(path.read_text(encoding="utf-8")):
        if markdown:
            for _, picture in PICTURE.findall(text):
                _copy(build, picture, name)
            parts += [text_of(text, name), *([] if parts else [NOTE.format(name=name)])]
        else:
            parts.append(f"```python\n{text}\n```")
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile(text, str(path), "exec"), names)
            if output := printed.getvalue().replace(f"{ROOT}/", "").strip("\n"):
                parts.append(f"```text\n{output}\n```")
    return "\n\n".join(parts) + "\n"


def _copy(build: Path, picture: str, name: str) -> None:
    (source,) = build.rglob(picture)
    target = ROOT / "docs" / "pictures" / f"{name}-{picture}"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)


def main(names: list[str]) -> None:
    """Renew the page of one tutorial, or of each in a process of its own."""
    if len(names) == 1:
        (name,) = names
        os.chdir(ROOT)
        shutil.rmtree(Path("build", name), ignore_errors=True)
        sys.argv = [f"examples/{name}.py"]
        Path("docs", f"{name}.md").write_text(page(name), encoding="utf-8")
        return
    for name in names or TUTORIALS:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, __file__, name], env=environment, check=True)
        print(f"wrote docs/{name}.md")


if __name__ == "__main__":
    main(sys.argv[1:])
