"""``from probes import name`` gives every public name, and ``import probes`` loads nothing heavy."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import probes


def test_import_probes_loads_no_torch():
    code = "import probes, sys; print(sorted({'torch', 'sklearn', 'numpy', 'interp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", probes.__all__)
def test_every_public_name_is_an_object(name: str):
    assert not isinstance(getattr(probes, name), ModuleType)


def test_type_checkers_see_the_same_names():
    block = next(node for node in ast.parse(inspect.getsource(probes)).body if isinstance(node, ast.If))
    names = [alias.name for line in block.body if isinstance(line, ast.ImportFrom) for alias in line.names]
    assert sorted(names) == probes.__all__


def test_no_public_name_is_also_a_module():
    """Importing a submodule sets it on the package, so a function of that name would change with the import order."""
    assert {path.stem for path in Path(probes.__path__[0]).iterdir()} & set(probes.__all__) == set()


def test_an_unknown_name_is_refused():
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        from probes import no_such_name  # noqa: F401  # pyright: ignore[reportAttributeAccessIssue]
