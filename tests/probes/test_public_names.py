"""``from probes import name`` gives every public name, and ``import probes`` loads nothing heavy."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import probes
import probes.public


def test_import_probes_loads_no_torch():
    code = "import probes, sys; print(sorted({'torch', 'sklearn', 'numpy', 'interp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", dir(probes))
def test_every_public_name_is_an_object_of_the_package(name: str):
    value = getattr(probes, name)
    assert not isinstance(value, ModuleType)
    assert value is getattr(probes.public, name)


def test_no_public_name_is_also_a_module():
    """Importing a submodule sets it on the package, so a function of that name would change with the import order."""
    assert {path.stem for path in Path(probes.__path__[0]).iterdir()} & set(dir(probes)) == set()


def test_an_unknown_name_is_refused():
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        from probes import no_such_name  # noqa: F401  # pyright: ignore[reportAttributeAccessIssue]
