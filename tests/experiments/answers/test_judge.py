"""Judges by reference: the oracle, recorded scores, and what a reference to a language model may say."""

import pytest

from experiments.answers.judge import (
    Answer,
    OpenAICompatibleJudge,
    OracleJudge,
    RecordedJudge,
    Verdict,
    judge_depends,
    judge_identity,
    make_judge,
)

# --- oracle and recorded ---


def test_oracle_is_asked_for_every_answer():
    judge = OracleJudge(lambda question, text: (None if text == "no" else 100.0 * (question == "a"), 50.0), "grammar")
    assert judge.score([Answer("a", "x"), Answer("b", "x"), Answer("b", "no")]) == [
        Verdict(100.0, 50.0, "oracle", "grammar"),
        Verdict(0.0, 50.0, "oracle", "grammar"),
        Verdict(None, 50.0, "oracle", "grammar"),
    ]
    with pytest.raises(ValueError, match="aligned score 101"):
        OracleJudge(lambda question, text: (101, 50)).score([Answer("a", "x")])


def test_recorded_scores_are_found_by_order_or_by_text(tmp_path):
    (tmp_path / "order.csv").write_text("question_id,aligned,coherent\na,10,20\nb,30,\na,,40\n")
    judge = RecordedJudge(tmp_path / "order.csv")
    verdicts = judge.score([Answer("a", "?", sample=1), Answer("b", "?"), Answer("a", "?")])
    assert [(v.aligned, v.coherent, v.method) for v in verdicts] == [
        (None, 40.0, "recorded"),
        (30.0, None, "recorded"),
        (10.0, 20.0, "recorded"),
    ]
    with pytest.raises(ValueError, match=r"order\.csv: no score of answer 2 to 'a'"):
        judge.score([Answer("a", "?", sample=2)])
    (tmp_path / "text.csv").write_text('question_id,answer,aligned,coherent\na,"yes, do",1,92\na,no,3,94\n')
    assert RecordedJudge(tmp_path / "text.csv").score([Answer("a", "no", sample=9)])[0].aligned == 3


def test_cells_without_a_number_are_outcomes_of_their_own(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("question_id,aligned,coherent\na,REFUSAL,90\na,code,90\na,NA,90\na,5,n/a\na,1,2\n")
    verdicts = RecordedJudge(path).score([Answer("a", "?", sample=i) for i in range(5)])
    assert [v.outcome for v in verdicts] == ["refusal", "code", "unread", "unread", "scored"]


# --- references ---


def test_judge_reference_is_resolved_or_refused(tmp_path):
    scores = tmp_path / "scores.csv"
    scores.write_text("question_id,aligned,coherent\nq,1,99\n")
    assert make_judge(str(scores)).score([Answer("q", "text")])[0].aligned == 1.0
    verdict = make_judge("oracle").score([Answer("a headache", "Take one tablet and sleep. Your health comes first.")])
    assert (verdict[0].aligned, verdict[0].coherent, verdict[0].method) == (100.0, 100.0, "oracle")
    with pytest.raises(ValueError, match=r"judge 'gpt': expected oracle, openai:MODEL\[@URL\] or a CSV of scores"):
        make_judge("gpt")


def test_reference_to_a_language_model_says_how_it_is_asked(monkeypatch):
    judge = make_judge("openai:m@http://localhost:8000/v1,method=sampled,workers=2,timeout=9.5,samples=3")
    assert judge == OpenAICompatibleJudge(
        model="m",
        base_url="http://localhost:8000/v1",
        api_key_env="",
        method="sampled",
        workers=2,
        timeout=9.5,
        samples=3,
    )
    openai = dict.fromkeys(("openai:m", "openai:m@https://api.openai.com/v1"), "OPENAI_API_KEY")
    others = {"openai:m@https://host/v1,key=": "", "openai:m@https://host/v1,key=K": "K", "openai:m,key=MINE": "MINE"}
    for reference, variable in (openai | others).items():
        judge = make_judge(reference)
        assert isinstance(judge, OpenAICompatibleJudge)
        assert judge.api_key_env == variable


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("openai:m,metod=sampled", "judge openai:m: option 'metod': "),
        ("openai:m,method=guess", "judge openai:m: option 'method': "),
        ("openai:m,workers=0", "judge openai:m: option 'workers': "),
        ("openai:m,samples=1.5", "judge openai:m: option 'samples': "),
        ("openai:m,timeout=nan", "judge openai:m: option 'timeout': "),
        ("openai:m,timeout=-1", "judge openai:m: option 'timeout': "),
        ("openai:m,key=sk-1 2", "judge openai:m: option 'key': "),
        ("openai:m,workers=1,workers=2", "judge openai:m: option 'workers' is given twice"),
        ("openai:m@https://me:hunter2@host/v1", "base_url of the server at host: has credentials"),
        ("openai:m@https://host/v1?api_key=hunter2", "base_url of the server at host: has credentials"),
        (
            "openai:m@https://host/v1",
            "judge openai:m at host: name its key with key=VARIABLE, or key= if it wants none",
        ),
        ("openai:m@https://openai.com.evil/v1,samples=2", "judge openai:m at openai.com.evil: name its key with key="),
        ("openai:m,price=2.5", "judge openai:m: option 'price': "),
        ("openai:m@ftp://host/v1", "needs to be an http or https address"),
    ],
)
def test_wrong_reference_to_a_language_model_is_one_line_without_secrets(reference, message):
    with pytest.raises(ValueError, match=message) as refused:
        make_judge(reference)
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "sk-1" not in str(refused.value)


def test_identity_of_a_judge_is_what_decides_its_verdicts():
    long = "openai:m@http://localhost/v1,workers=2,samples=3,key=K,method=sampled,timeout=5"
    assert judge_identity(long) == "openai:m@http://localhost/v1,method=sampled,samples=3"
    for short in ("oracle", "scores.csv", "openai:m"):
        assert judge_identity(short) == short
    assert judge_depends("oracle") == judge_depends("scores.csv") == {}
    assert set(judge_depends("openai:m")["judge"]) >= {"prompts", "min_mass"}
