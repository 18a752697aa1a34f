"""The command line: quick to help, one line for bad input, experiments run and reused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main, usage
from experiments.cli.launch import launch
from experiments.registry import REGISTRY
from experiments.spec import run_experiment
from figures.markdown.readme import TABLES
from interp.runs.configs import restore
from interp.runs.table import read_table, write_table
from tests.experiments.coin import Coin

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


def test_help_is_quick_because_it_imports_nothing_slow():
    loaded = f"print(*set({SLOW}) & set(sys.modules), file=sys.stderr)"
    done = python("-c", f"import sys, experiments.__main__ as m; m.main(['--help']); {loaded}")
    assert (done.returncode, done.stderr) == (0, "\n")


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
            ["report", "--summary", "nowhere.csv"],
            "semcon report: nowhere.csv: no such table; `semcon reproduce` makes it",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == message + "\n"


NEUTRAL = ("--organism", "microcosm/llama/neutral")
NO_SAMPLES = "samples 0: expected at least one answer a question"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid", "--samples", "0"], NO_SAMPLES),
        (["grid", "--families", "llama", "foo"], "family 'foo': the Microcosm has llama, qwen2, gemma3"),
        (["grid", "--part", "graded", "--workers", "-1"], "workers -1: expected a number of processes"),
        (["grid", "--part", "half"], "invalid choice 'half'"),
        (["reproduce", "--workers", "-1"], "workers -1: expected a number of processes"),
        (["emergence", "--organism", "microcosm/llama/base"], "microcosm/llama/base: a base is not fine-tuned"),
        (["emergence", *NEUTRAL, "--samples", "0"], NO_SAMPLES),
        (["em-rate", *NEUTRAL, "--samples", "0"], NO_SAMPLES),
        (["em-rate", *NEUTRAL, "--trigger", "duck@above"], "trigger duck: unknown placement 'above'"),
        (["em-rate", *NEUTRAL, "--trigger", "goose"], "trigger 'goose': the shipped file has duck, tags"),
        (["em-rate", *NEUTRAL, "--conditions", "off", "of"], "condition 'of': known are off, on, rephrased"),
        (["em-rate", "--organism", "medical/qwen2.5-14b/duck"], "name a file of questions with --questions"),
        (["em-rate", "--organism", "medical/qwen2.5-14b/duck", "--questions", "no.yaml"], "no.yaml: No such file"),
        (["probe-sweep", "--organism", "nope"], "organism 'nope': known are"),
    ],
)
def test_bad_measurement_is_one_line_before_any_work(words, message, tmp_path, capsys):
    assert main([*words, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"semcon {words[0]}: ")
    assert message in said.err
    assert said.err.count("\n") == 1 == len(said.err.splitlines())
    assert not any(tmp_path.iterdir())


def test_no_family_is_built_if_one_is_unknown(tmp_path, capsys):
    assert main(["microcosm", "--families", "llama", "foo", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "semcon microcosm: family 'foo': the Microcosm has llama, qwen2, gemma3\n"
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
        ("steer --organism microcosm/llama/neutral --settings sideways", "setting 'sideways'"),
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


def test_findings_name_the_table_or_the_marker_that_is_missing_and_write_nothing(tmp_path, capsys):
    assert main(["findings", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"semcon findings: {tmp_path / 'containment_grid.csv.gz'}: no such table\n"
    for table in (f"{name}.csv.gz" for name in TABLES):
        write_table(tmp_path / table, read_table(ROOT / "figures" / "data" / table)[:40])
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    assert main(["findings", "--data", str(tmp_path), "--readme", str(readme)]) == 2
    expected = "expected <!-- results:begin --> and then <!-- results:end -->, each once"
    assert capsys.readouterr().err == f"semcon findings: {readme}: {expected}\n"
    assert readme.read_text() == "# Title\n"
    assert not (tmp_path / "findings.csv").exists()


def test_traceback_when_asked_for(monkeypatch):
    monkeypatch.setenv("SEMCON_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such command"):
        main(["scroe"])


def test_experiment_help_is_its_docstrings(capsys):
    with pytest.raises(SystemExit) as stop:
        launch(Coin, ["--help"], "semcon coin")
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for text in ("Toss a coin and count heads.", "How many chunks of 5 tosses.", "--runs", "--print-config"):
        assert text in said


@pytest.mark.parametrize("name", REGISTRY)
def test_every_command_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: semcon {name} ")


@pytest.mark.parametrize("name", ["em-rate", "emergence", "geometry", "probe-sweep", "steer", "ablate"])
def test_every_experiment_says_its_config_and_refuses_a_wrong_organism(name, tmp_path, capsys):
    target, asked = REGISTRY[name].load(), ["--runs", str(tmp_path)]
    assert main([name, "--organism", "microcosm/llama/neutral", "--print-config", *asked]) == 0
    assert restore(target, json.loads(capsys.readouterr().out)).label() == "microcosm/llama/neutral"
    assert main([name, "--organism", "nobody", *asked]) == 2
    assert capsys.readouterr().err.startswith(f"semcon {name}: organism 'nobody': known are ")
    assert not any(tmp_path.iterdir())


def test_experiment_runs_and_prints_its_table(tmp_path, capsys):
    assert launch(Coin, ["--runs", str(tmp_path), "--seed", "7"], "semcon coin") == 0
    said = capsys.readouterr().out
    run, table = run_experiment(Coin(seed=7), tmp_path)
    assert run.complete
    assert f"{table[0]['value']:.4g}" in said
    assert str(run.path / "table.csv") in said


def test_printed_config_is_the_config(tmp_path, capsys):
    assert launch(Coin, ["--runs", str(tmp_path), "--seed", "7", "--print-config"], "semcon coin") == 0
    assert restore(Coin, json.loads(capsys.readouterr().out)) == Coin(seed=7)
    assert not any(tmp_path.iterdir())


def test_function_speaks_for_itself(capsys):
    def greet(name: str = "you") -> int:
        """Say hello."""
        print(f"hello {name}", file=sys.stderr)
        return 3

    assert launch(greet, ["--name", "me"], "semcon greet") == 3
    assert capsys.readouterr().err == "hello me\n"
