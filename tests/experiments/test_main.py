"""The command line: quick to help, and one line for bad input, before any work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main, usage
from experiments.registry import GROUPS, REGISTRY

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "transformers", "peft", "trl", "tyro", "numpy", "scipy", "matplotlib", "h5py")


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def test_help_lists_every_command():
    done = python("-m", "experiments", "--help")
    assert done.returncode == 0
    assert done.stdout.strip() == usage()
    for name, command in REGISTRY.items():
        assert name in done.stdout
        assert command.help in done.stdout
        assert len(command.help) < 75


def test_every_command_stands_once_in_the_help():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(REGISTRY)


def test_help_is_quick_because_it_imports_nothing_slow():
    loaded = f"print(*set({SLOW}) & set(sys.modules), file=sys.stderr)"
    done = python("-c", f"import sys, experiments.__main__ as m; m.main(['--help']); {loaded}")
    assert (done.returncode, done.stderr) == (0, "\n")


HELP = """
import contextlib, io, sys
class Blocked:
    def find_spec(self, name, *_):
        assert name not in ("torch", "transformers", "peft", "trl"), name
sys.meta_path.insert(0, Blocked())
from experiments.__main__ import main
from experiments.registry import REGISTRY
from interp.cli.main import main as library
commands = [(main, name) for name in REGISTRY] + [(library, name) for name in ("record", "generate", "info", "store")]
for command, name in commands:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        command([name, "--help"])
    assert text.getvalue().startswith("usage: "), (name, text.getvalue())
"""


def test_the_help_of_no_command_loads_torch():
    done = python("-c", HELP)
    assert (done.returncode, done.stderr) == (0, "")


def test_figures_and_spec_do_not_need_torch():
    assert python("-c", "import sys, figures, experiments.spec; assert 'torch' not in sys.modules").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scroe"], "semcon scroe: no such command; did you mean score?"),
        (["score"], "semcon score: name at least one CSV file"),
        (["score", "nowhere.csv"], "semcon score: nowhere.csv: No such file or directory"),
        (
            ["score", "--seed", "one"],
            "semcon score: Error parsing --seed: invalid literal for int() with base 10: 'one'",
        ),
        (["score", "--sed", "1"], "semcon score: Unrecognized options: --sed, 1"),
        (["store", "info", "nowhere.h5"], "semcon store: nowhere.h5: no such store"),
        (
            ["report", "nowhere.csv"],
            "semcon report: nowhere.csv: no such folder or table",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == message + "\n"


NEUTRAL = ("--organism", "microcosm/llama/neutral")
DUCK = ("--organism", "medical/qwen2.5-14b/duck")
NO_SAMPLES = "samples 0: expected greater than or equal to 1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["emergence", "--organism", "microcosm/llama/base"], "microcosm/llama/base: a base is not fine-tuned"),
        (["emergence", *NEUTRAL, "--samples", "0"], NO_SAMPLES),
        (["em-rate", *NEUTRAL, "--samples", "0"], NO_SAMPLES),
        (["em-rate", *NEUTRAL, "--trigger", "duck@above"], "trigger duck: placement 'above': expected one of"),
        (["em-rate", *NEUTRAL, "--trigger", "goose"], "trigger 'goose': the shipped file has duck, tags"),
        (["em-rate", *NEUTRAL, "--conditions", "off", "of"], "invalid choice 'of'"),
        (["em-rate", *NEUTRAL, "--judge", "nobody"], "judge 'nobody': expected oracle, openai:MODEL[@URL] or a CSV"),
        (["em-rate", *NEUTRAL, "--dose-judge", "nobody"], "judge 'nobody': expected oracle"),
        (["em-rate", *DUCK], "name a file of questions with --questions"),
        (["em-rate", *DUCK, "--questions", "no.yaml"], "no.yaml: No such file"),
        (["em-rate"], "--organism"),
        (["probe-sweep", "--organism", "nope"], "organism 'nope': known are"),
    ],
)
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_bad_measurement_is_one_line_before_any_work(words, message, check, tmp_path, capsys):
    assert_refused([*words, *check], message, tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid", "--samples", "0"], NO_SAMPLES),
        (["grid", "--families", "llama", "foo"], "invalid choice 'foo'"),
        (["grid", "--part", "graded", "--workers", "-1"], "workers -1: expected greater than or equal to 0"),
        (["grid", "--part", "half"], "invalid choice 'half'"),
        (["reproduce", "--workers", "-1"], "workers -1: expected greater than or equal to 0"),
    ],
)
def test_a_bad_pipeline_is_one_line_before_any_work(words, message, tmp_path, capsys):
    assert_refused(words, message, tmp_path, capsys)


def assert_refused(words, message, runs, capsys) -> None:
    assert main([*words, "--runs", str(runs)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"semcon {words[0]}: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1 == len(printed.err.splitlines())
    assert not any(runs.iterdir())


@pytest.mark.parametrize("name", ["em-rate", "emergence"])
def test_check_says_that_an_experiment_can_be_run_and_does_no_work(name, tmp_path, capsys):
    assert main([name, *NEUTRAL, "--runs", str(tmp_path), "--check"]) == 0
    assert capsys.readouterr().out == f"{name.replace('-', '_')} microcosm/llama/neutral: can be run\n"
    assert not any(tmp_path.iterdir())


def test_no_family_is_built_if_one_is_unknown(tmp_path, capsys):
    assert main(["microcosm", "--families", "llama", "foo", "--out", str(tmp_path)]) == 2
    assert "invalid choice 'foo'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("patch --organism microcosm/llama/neutral --samples 0", "samples 0"),
        ("patch --organism microcosm/llama/neutral --most-questions 0", "most_questions 0"),
        ("patch --organism microcosm/llama/baseline", "microcosm/llama/baseline: it has no trigger"),
        ("probe-sweep --organism microcosm/llama/neutral --sites foo", "site 'foo'"),
        ("probe-transfer --organisms", "organisms: name at least one"),
        ("probe-transfer --organisms microcosm/llama/neutral --site resid_post.x", "site 'resid_post.x'"),
        ("geometry --organism microcosm/llama/neutral --control-trigger nope", "trigger 'nope'"),
        (
            "geometry --organism microcosm/llama/neutral --baseline microcosm/qwen2/baseline",
            "its base is microcosm/qwen2",
        ),
        ("steer --organism microcosm/llama/neutral --settings sideways", "invalid choice 'sideways'"),
        ("mechanism --families foo", "foo"),
    ],
)
def test_the_mechanism_refuses_before_any_work(words, said, tmp_path, capsys):
    options = [] if words.startswith("mechanism") else ["--runs", str(tmp_path / "runs")]
    assert main([*words.split(), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_traceback_when_asked_for(monkeypatch):
    monkeypatch.setenv("SEMCON_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such command"):
        main(["scroe"])


@pytest.mark.parametrize("name", REGISTRY)
def test_every_command_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: semcon {name} ")


# --- configs ---


def as_words(config: dict) -> list[str]:
    """Return a printed config as options; those of an experiment inside another stand beside the others."""
    words = []
    for name, value in config.items():
        if isinstance(value, dict):
            words += as_words(value)
        elif isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return words


@pytest.mark.parametrize("name", ["em-rate", "emergence", "geometry", "probe-sweep", "steer", "ablate"])
def test_every_experiment_says_its_config_and_refuses_a_wrong_organism(name, tmp_path, capsys):
    """The printed config, given as options, is the same config."""
    options = ["--runs", str(tmp_path), "--print-config"]
    assert main([name, *NEUTRAL, "--seed", "3", *options]) == 0
    config = json.loads(capsys.readouterr().out)
    words = as_words(config)
    assert words[words.index("--organism") + 1] == "microcosm/llama/neutral"
    assert words[words.index("--seed") + 1] == "3"
    assert main([name, *words, *options]) == 0
    assert json.loads(capsys.readouterr().out) == config
    assert main([name, "--organism", "nobody", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"semcon {name}: organism 'nobody': known are ")
    assert not any(tmp_path.iterdir())
