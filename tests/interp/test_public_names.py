"""``from interp import name`` gives every public name, and ``import interp`` loads nothing heavy."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import interp


def type_checking_names() -> set[str]:
    tree = ast.parse(inspect.getsource(interp))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name for line in block.body if isinstance(line, ast.ImportFrom) for alias in line.names}


def test_import_interp_loads_no_torch():
    code = "import interp, sys; print(sorted({'torch', 'transformers', 'h5py', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", interp.__all__)
def test_every_public_name_is_a_documented_object_of_its_module(name: str):
    value = getattr(interp, name)
    assert not isinstance(value, ModuleType)
    assert value.__module__.startswith("interp.") and inspect.getdoc(value)


def test_type_checkers_see_the_same_names():
    assert type_checking_names() == set(interp.__all__) <= set(dir(interp))


def test_no_public_name_is_also_a_module():
    """Importing a submodule sets it on the package, so a function of that name would change with the import order."""
    modules = {path.stem for path in Path(interp.__path__[0]).iterdir()}
    assert modules & set(interp.__all__) == set()


def test_an_unknown_name_is_refused():
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        from interp import no_such_name  # noqa: F401  # pyright: ignore[reportAttributeAccessIssue]
