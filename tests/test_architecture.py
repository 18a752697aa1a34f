"""The design held against the tree: who may import whom, what stays light, what docs/tree.md says exists."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("interp", "training", "probes", "experiments", "figures")
MAX_LINES = 400
MAY_IMPORT = {
    "interp": {"interp"},
    "training": {"training", "interp"},
    "probes": {"probes", "interp"},
    "experiments": {"experiments", "probes", "training", "interp"},
    "figures": {"figures", "interp.stats", "interp.runs"},
}
DRAWS_FIGURES = {
    "experiments/audit/benchmark.py",
    "experiments/cli/commands.py",
    "experiments/cli/launch.py",
    "experiments/pipelines/pocket.py",
    "experiments/pipelines/reproduce.py",
    "experiments/pipelines/trained_gates.py",
}  # inside functions, never on import
HOME = {
    "trl": ("training/sft.py",),
    "peft": ("interp/adapters.py", "interp/early/adapter_files.py", "training/sft.py"),
    "sklearn": ("probes/",),
    "h5py": ("interp/store.py",),
    "matplotlib": ("figures/",),
    "transformer_lens": ("interp/bridges/via_transformer_lens.py",),
    "nnsight": ("interp/bridges/via_nnsight.py",),
    "statsmodels": ("experiments/behaviour/axes.py",),
    "ray": ("experiments/pipelines/on_ray.py",),
    "inspect_ai": ("experiments/inspecting/",),
}
TORCH_FREE = (
    "interp.sites",
    "interp.triggers",
    "interp.stats",
    "interp.runs.run",
    "training.registry",
    "experiments.spec",
)
HEAVY = ("torch", "transformers", "peft", "trl", "sklearn", "h5py", "transformer_lens", "nnsight")
PEERS = {"via_transformer_lens", "via_nnsight", "attribution"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_ARGUMENTS = {"trust_remote_code", "allow_pickle"}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc"}


@dataclass(frozen=True)
class Import:
    """One imported module, as written; ``names`` after ``from``, ``lazy`` inside a function."""

    module: str
    names: tuple[str, ...]
    lazy: bool

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.module, *(f"{self.module}.{name}" for name in self.names))


def sources(*folders: str) -> dict[str, str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, source: str) -> Iterator[Import]:
    package = module_name(path) if path.endswith("__init__.py") else module_name(path).rpartition(".")[0]
    yield from _imports(ast.parse(source), package, lazy=False)


def _imports(node: ast.AST, package: str, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, (), lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parts = package.split(".")
            anchor = parts[: len(parts) - child.level + 1] if child.level else []
            module = ".".join([*anchor, *([child.module] if child.module else [])])
            yield Import(module, tuple(alias.name for alias in child.names), lazy)
        else:
            yield from _imports(child, package, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def wrong_direction(path: str, source: str) -> list[str]:
    allowed = MAY_IMPORT[path.split("/")[0]]
    found = []
    for line in imports(path, source):
        if line.module.split(".")[0] not in PACKAGES:
            continue
        ours = line.targets[1:] if line.module in PACKAGES and line.names else (line.module,)
        fine = all(any(f"{target}.".startswith(f"{name}.") for name in allowed) for target in ours)
        figures = line.module.split(".")[0] == "figures" and path in DRAWS_FIGURES and line.lazy
        if not fine and not figures:
            found.append(f"{path} imports {', '.join(ours)}")
    return found


def away_from_home(path: str, source: str) -> list[str]:
    found = []
    for line in imports(path, source):
        homes = HOME.get(line.module.split(".")[0])
        if homes and not path.startswith(homes):
            found.append(f"{path} imports {line.module}, which belongs in {', '.join(homes)}")
    return found


def unsafe(path: str, source: str) -> list[str]:
    found = [f"{path} imports {i.module}" for i in imports(path, source) if i.module.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(ast.parse(source)):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{where}: bare except")
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
            found.append(f"{where}: torch.load")
        if isinstance(node, ast.ImportFrom) and node.module == "torch" and any(a.name == "load" for a in node.names):
            found.append(f"{where}: torch.load")
        if isinstance(node, ast.keyword) and node.arg in UNSAFE_ARGUMENTS and ast.unparse(node.value) != "False":
            found.append(f"{where}: {ast.unparse(node)}")
    return found


def import_graph(files: dict[str, str]) -> dict[str, set[str]]:
    modules = {module_name(path): path for path in files}
    graph = {}
    for name, path in modules.items():
        targets = {target for line in imports(path, files[path]) if not line.lazy for target in line.targets}
        graph[name] = {target for target in targets if target in modules} - {name}
    return graph


def documented(page: str) -> set[str]:
    """Return the paths that ``docs/tree.md`` links to."""
    return set(re.findall(r"\]\(\.\./([\w./-]+)\)", page))


def loaded_by(*modules: str) -> set[str]:
    code = f"import {', '.join(modules)}, sys; print(*sorted(set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) & set(HEAVY)


def test_imports_point_one_way():
    assert [line for path, source in sources(*PACKAGES).items() for line in wrong_direction(path, source)] == []


def test_no_import_cycles():
    try:
        TopologicalSorter(import_graph(sources(*PACKAGES))).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_one_module_per_heavy_dependency():
    assert [line for path, source in sources(*PACKAGES).items() for line in away_from_home(path, source)] == []


def test_tables_and_figures_do_not_load_torch():
    assert loaded_by("figures", "experiments.spec") == set()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_modules_load_nothing_heavy(module: str):
    assert loaded_by(module) == set()


def test_the_core_of_interp_does_not_load_its_peers():
    core = [module_name(path) for path in sources("interp") if Path(path).stem not in {*PEERS, "__main__"}]
    assert loaded_by(*core) & {"transformer_lens", "nnsight"} == set()


def test_every_figure_module_loads_without_torch():
    assert loaded_by(*(module_name(path) for path in sources("figures"))) == set()


def test_every_module_is_named_for_what_it_holds():
    paths = sources(*PACKAGES, "tests", "benchmarks")
    assert [path for path in paths if Path(path).stem.lstrip("_") in NAMELESS] == []


def test_no_file_outgrows_its_idea():
    lengths = {path: source.count("\n") for path, source in sources(*PACKAGES, "tests", "benchmarks").items()}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_nothing_runs_code_from_files_and_no_error_is_swallowed():
    assert [line for path, source in sources(*PACKAGES, "benchmarks").items() for line in unsafe(path, source)] == []


def test_the_documented_tree_is_complete_and_exists():
    listed = documented((ROOT / "docs" / "tree.md").read_text(encoding="utf-8"))
    modules = {path for path in sources(*PACKAGES) if not path.endswith("__init__.py")}
    missing, gone = modules - listed, {path for path in listed if not (ROOT / path).exists()}
    assert missing | gone == set(), "run `python docs/make_tree.py`"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("interp/x.py", "import training.sft"),
        ("probes/x.py", "from experiments import spec"),
        ("figures/x.py", "from interp import record"),
        ("figures/x.py", "import interp"),
        ("figures/x.py", "from interp.statsmore import x"),
        ("training/x.py", "def f():\n    from probes.linear import Probe"),
        ("experiments/pipelines/reproduce.py", "import figures.report"),
        ("experiments/x.py", "def f():\n    from figures import report"),
        ("interp/x.py", "from ..training import data"),
    ],
)
def test_an_import_against_the_direction_is_seen(path: str, source: str):
    assert wrong_direction(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("figures/x.py", "from interp import stats, runs"),
        ("figures/x.py", "from .style import colour\nfrom interp.stats import Rate"),
        ("experiments/pipelines/reproduce.py", "def f():\n    from figures import report"),
        ("experiments/x.py", "from probes.linear import Probe\nimport interp, torch"),
    ],
)
def test_an_import_along_the_direction_is_fine(path: str, source: str):
    assert not wrong_direction(path, source)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "f(trust_remote_code=True)",
        "f(trust_remote_code=flag)",
        "np.load(x, allow_pickle=True)",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_unsafe_code_is_seen(source: str):
    assert unsafe("x.py", source)
    assert not unsafe("x.py", "f(trust_remote_code=False)\ntry:\n    f()\nexcept ValueError:\n    pass")


def test_a_stray_dependency_and_a_cycle_are_seen():
    assert away_from_home("training/data.py", "def f():\n    import peft.tuners")
    assert not away_from_home("training/sft.py", "from peft import LoraConfig")
    for library, home in (
        ("transformer_lens", "interp/bridges/via_transformer_lens.py"),
        ("nnsight", "interp/bridges/via_nnsight.py"),
    ):
        assert away_from_home("interp/analysis/attribution.py", f"def f():\n    from {library} import x")
        assert not away_from_home(home, f"import {library}.x")
    cycle = {"interp/a.py": "from interp import b", "interp/b.py": "from interp.a import x"}
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(cycle)).prepare()
