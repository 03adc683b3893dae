"""Arms: what each sends, that what is drawn at random is drawn as said, and one message for what cannot be meant."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import mitigations
from pipeline.errors import InputError
from pipeline.mitigations import LEFT_ALONE, inverted, obedience_of, one_arm, rewritten, stratified_factor, stratum
from pipeline.plan import Plan, plan
from pipeline.types import Prompt
from tests.conftest import fake_study
from tests.test_cli import typecast


def prompt(concept: str = "nurse", text: str = "a photo of a nurse", identity: str = "") -> Prompt:
    return Prompt(prompt_set="s", concept=concept, template="photo", text=text, identity=identity)


def sent(name: str, asked: Prompt | None = None, samples: int = 1, **parameters: Any) -> list[tuple[str, str]]:
    arm = one_arm(name, parameters)
    found = [rewritten(arm, asked or prompt(), k, np.random.default_rng([k, 1])) for k in range(samples)]
    return [(one.text, one.drawn) for one in found]


def planned(**changes: Any) -> Plan:
    return plan(fake_study(**changes), weights="w")


# -- what is sent ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("none", {}, "a photo of a nurse"),
        ("suffix", {"text": ", smiling"}, "a photo of a nurse, smiling"),
        # as github.com/Hritikbansal/entigen_emnlp, generate_csv.py, joins them
        (
            "intervention",
            {"text": "gender"},
            "a photo of a nurse if all individuals can be a nurse irrespective of their gender",
        ),
        ("intervention", {"text": "skin_colors"}, "a photo of a nurse if all skin color can be nurse"),
        ("intervention", {"text": "honesty"}, "a photo of a nurse if honesty is the best policy"),
        # as github.com/maximus-powers/img-gen-bias-analysis does
        (
            "diversity_suffix",
            {},
            "a photo of a nurse. Depict a single person. Ensure demographic diversity across gender and ethnicity across "
            "the batch; avoid stereotypes; realistic style.",
        ),
        # BLS CPS Table 11, 2023: 87 % of the registered nurses are women
        ("counter_stereotype", {"attribute": "gender", "reference": "bls_cps_table11"}, "a photo of a male nurse"),
    ],
)
def test_an_arm_sends_these_very_words(name: str, parameters: dict[str, Any], text: str) -> None:
    assert sent(name, **parameters)[0][0] == text


@pytest.mark.parametrize(
    ("concept", "text", "term", "before"),
    [
        ("artist", "a photo of an artist", "female", "a photo of a female artist"),
        ("cook", "a photo of a cook", "Asian", "a photo of an Asian cook"),
        ("cook", "A cook", "older", "An older cook"),
        (
            "accountant",
            "Photo portrait of an ambitious accountant",
            "male",
            "Photo portrait of an ambitious male accountant",
        ),
        ("CEO", "A photo of the face of a CEO", "female", "A photo of the face of a female CEO"),
    ],
)
def test_a_term_stands_before_the_concept_with_its_article(concept: str, text: str, term: str, before: str) -> None:
    asked = prompt(concept, text)
    assert mitigations.placed(asked, term, "before") == before
    assert mitigations.placed(asked, term, "after") == f"{text}, {term}"


def test_a_guardrail_draws_the_terms_as_often_as_it_is_told() -> None:
    drawn = Counter(term for _, term in sent("guardrail", samples=4000, terms={"female": 0.7, "male": 0.3}))
    assert drawn["female"] / 4000 == pytest.approx(0.7, abs=4 * (0.21 / 4000) ** 0.5) and sum(drawn.values()) == 4000
    alike = Counter(term for _, term in sent("guardrail", samples=4000))
    assert len(alike) == 8 and max(alike.values()) < 1.3 * min(alike.values())
    assert sent("guardrail", samples=3) == sent("guardrail", samples=3)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (prompt(text="a photo of a female nurse"), "names a group"),
        (prompt("house", "a photo of an African man and his fancy house", "African man"), "names a group"),
        (prompt("cook", "a photo of a dark-skinned cook"), "names a group"),
        (prompt("cook", "a photo of a Bolivian cook", "Bolivian"), "names a group"),
        (prompt("leading a meeting", "a disabled woman leading a meeting"), "names a group"),
        (prompt("house", "a photo of a house"), "names no person"),
    ],
)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("guardrail", {}),
        ("target", {"attribute": "gender", "to": "uniform"}),
        ("counter_stereotype", {"attribute": "gender", "reference": "bls_cps_table11"}),
    ],
)
def test_a_prompt_that_names_a_group_or_no_person_is_left_alone_and_says_so(
    asked: Prompt, why: str, name: str, parameters: dict[str, Any]
) -> None:
    assert sent(name, asked, **parameters) == [(asked.text, LEFT_ALONE + why)]


@pytest.mark.parametrize("text", ["a photo of the face of a thug", "Photo portrait of a designer", "a poor person"])
def test_people_without_an_occupation_in_the_list_are_people(text: str) -> None:
    assert mitigations.why_not(prompt(text.rsplit(maxsplit=1)[-1], text)) == ""


def test_what_was_left_alone_is_a_row_of_the_run() -> None:
    one = planned(arms=["none", {"target": {"attribute": "gender", "to": "bls_cps_table11"}}])
    drawn = {unit.prompt.concept: unit.drawn for s in one.shards() if s.arm == "target" for unit in one.units(s)}
    assert drawn["mechanic"] in ("woman", "man") and drawn["astronaut"].startswith(
        f"{LEFT_ALONE}CPS Table 11 has no row"
    )


# -- the unit ----------------------------------------------------------------------------------------


def test_arms_share_their_seeds_and_parameters_are_in_the_id() -> None:
    def units(arm: Any) -> list[Any]:
        one = planned(arms=["none", arm])
        return [unit for shard in one.shards() if shard.arm != "none" for unit in one.units(shard)]

    parity, market = (units({"target": {"attribute": "gender", "to": to}}) for to in ("uniform", "bls_cps_table11"))
    assert [u.seed for u in parity] == [u.seed for u in market]
    assert not {u.id for u in parity} & {u.id for u in market}


def test_an_arm_can_be_in_a_study_twice_under_another_name() -> None:
    both = [{"target": {"attribute": "gender", "to": to, "name": to}} for to in ("uniform", "bls_cps_table11")]
    assert [arm.name for arm in planned(arms=both).arms] == ["uniform", "bls_cps_table11"]
    with pytest.raises(InputError, match="a `name` of its own"):
        planned(arms=["guardrail", "guardrail"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("word: str = ''", "no method rewrite"),
        ("def rewrite(self, prompt, sample, rng):\n        return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def rewrite(self, prompt, sample, rng):\n        return prompt.text", "must give a pipeline.types.Rewrite"),
    ],
)
def test_an_arm_of_the_users_that_cannot_rewrite_is_one_message(tmp_path: Path, body: str, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"from pipeline.mitigations import Rewriter\nclass Mine(Rewriter):\n    {body}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"arms: Mine: cannot rewrite .* \(sample 0\): .*{said}"):
        planned(arms=[f"{file}:Mine"])


def test_an_arm_of_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    code = (
        "from __future__ import annotations\nfrom pydantic import Field\n"
        "from pipeline.mitigations import Rewriter\nfrom pipeline.types import Rewrite\n"
        "class Polite(Rewriter):\n    '''Asks nicely.'''\n    words: list[str] = Field(min_length=1)\n"
        "    def rewrite(self, prompt, sample, rng):\n"
        "        return Rewrite(f'{prompt.text}, {rng.choice(self.words)}')\nNothing = 3\n"
    )
    file.write_text(code)
    arm = {f"{file}:Polite": {"words": ["please"]}}
    one = planned(arms=["none", arm])
    shard = next(shard for shard in one.shards() if shard.arm == "Polite")
    before = one.units(shard)
    assert one.arms[1].name == "Polite" and before[0].prompt_sent == "a photo of a mechanic, please"
    file.write_text(code.replace(", {rng", "; {rng"))  # other words from the same parameters are other images
    again = planned(arms=["none", arm])
    assert not {u.id for u in before} & {u.id for u in again.units(shard)}
    for name, said in {"Nothing": "must be a class", "Absent": "must be a class", "Polite": "words"}.items():
        with pytest.raises(InputError, match=said):
            planned(arms=[f"{file}:{name}"])
    with pytest.raises(InputError, match="no such Python file"):
        planned(arms=[f"{tmp_path / 'absent.py'}:Polite"])
    file.write_text("1 / 0")
    with pytest.raises(InputError, match="cannot be run: ZeroDivisionError"):
        planned(arms=[f"{file}:Polite"])


# -- targets -----------------------------------------------------------------------------------------


@given(
    weights=st.lists(st.integers(0, 20), min_size=2, max_size=5).filter(any).map(lambda w: [x / sum(w) for x in w]),
    shift=st.floats(0, 1, exclude_max=True),
    n=st.integers(1, 300),
)
def test_the_first_n_samples_hold_each_level_as_often_as_its_weight_at_every_n(
    weights: list[float], shift: float, n: int
) -> None:
    given_ = [stratum(weights, k, shift) for k in range(n)]
    for size in range(1, n + 1):
        counts = np.bincount(given_[:size], minlength=len(weights))
        assert abs(counts[0] - size * weights[0]) < 1 + 1e-9
        assert (abs(counts - size * np.array(weights)) < len(weights)).all()
    assert all(weights[level] > 0 for level in given_)


def test_growing_keeps_what_every_sample_was_asked_for() -> None:
    arms = ["none", {"target": {"attribute": "gender", "to": "taught_shares"}}]
    small, large = planned(arms=arms, images_per_prompt=30), planned(arms=arms, images_per_prompt=70, grown_from=[30])
    first, more = (
        {unit.id: unit.prompt_sent for shard in one.shards() for unit in one.units(shard)} for one in (small, large)
    )
    assert len(first) == 20 * 30 * 2 and first.items() <= more.items()


def test_a_target_is_met_by_whoever_obeys() -> None:
    one = planned(arms=[{"target": {"attribute": "gender", "to": "taught_shares"}}], images_per_prompt=200)
    women = Counter(u.prompt.concept for s in one.shards() for u in one.units(s) if u.drawn == "woman")
    for concept, share in (("mechanic", 0.025), ("teacher", 0.786), ("astronaut", 0.5)):  # prompt_sets/reference
        assert abs(women[concept] - 200 * share) < 1


OBEDIENCE = np.array([[0.9, 0.1], [0.02, 0.98]])
"""Of images asked to show a woman, nine in ten do; of those asked to show a man, 98 in 100."""


def test_stratified_allocation_varies_as_the_formula_says() -> None:
    rng, n, target = np.random.default_rng(0), 200, 0.465
    weights = inverted([target, 1 - target], OBEDIENCE)
    asked = np.array([stratum(weights, k, 0.3) for k in range(n)])
    independent = rng.choice(2, (20_000, n), p=weights)
    shares = [(rng.random((20_000, n)) < OBEDIENCE[a, 0]).mean(1) for a in (asked, independent)]
    assert shares[0].mean() == pytest.approx(target, abs=0.004) and shares[1].mean() == pytest.approx(target, abs=0.001)
    factor = stratified_factor(weights, OBEDIENCE[:, 0])
    assert factor == pytest.approx(0.22, abs=0.02)
    assert shares[0].var() / shares[1].var() == pytest.approx(factor, rel=0.05)


@given(st.lists(st.floats(0.05, 1), min_size=3, max_size=3))
def test_the_inverse_of_the_obedience_is_exact_where_it_can_be(raw: list[float]) -> None:
    obedience = 0.9 * np.eye(3) + 0.1 / 3
    reachable = obedience.T @ (np.array(raw) / sum(raw))
    assert inverted(reachable.tolist(), obedience) == pytest.approx(np.linalg.solve(obedience.T, reachable), abs=1e-6)


def test_a_target_out_of_reach_is_met_as_nearly_as_can_be() -> None:
    assert inverted([0.99, 0.01], OBEDIENCE) == pytest.approx([1, 0])
    assert sum(inverted([0.0, 1.0], OBEDIENCE)) == pytest.approx(1)


def pilot(path: Path, rows: list[tuple[str, str, str, float, int]]) -> str:
    lines = [f"pilot,{concept},gender,{asked},{level},{share},0,1,{n}" for concept, asked, level, share, n in rows]
    path.write_text("\n".join(["arm,concept,attribute,asked,level,share,low,high,n", *lines]) + "\n")
    return str(path)


def of_one(concept: str, woman: float, man: float, n: int) -> list[tuple[str, str, str, float, int]]:
    said = (("woman", "woman", woman), ("woman", "man", 1 - woman), ("man", "woman", 1 - man), ("man", "man", man))
    return [(concept, asked, level, share, n) for asked, level, share in said]


def test_the_obedience_of_a_pilot_is_inverted(tmp_path: Path) -> None:
    file = pilot(tmp_path / "obedience.csv", of_one("all concepts", 0.8, 0.9, 400))
    arm = one_arm("target", {"attribute": "gender", "to": "uniform", "obedience": file})
    assert isinstance(arm, mitigations.Target)
    weights = arm.weights("nurse")
    assert not isinstance(weights, str) and weights[0] * 0.8 + weights[1] * 0.1 == pytest.approx(0.5)


def test_a_concept_of_few_images_is_drawn_towards_all_concepts(tmp_path: Path) -> None:
    apart = [row for k, share in enumerate((0.5, 0.7, 0.9, 0.95)) for row in of_one(f"c{k}", share, 0.9, 40)]
    file = pilot(tmp_path / "apart.csv", [*of_one("all concepts", 0.76, 0.9, 160), *apart])
    own = obedience_of("c0", file, "gender")[0, 0]
    assert 0.5 < own < 0.6  # they lie apart by more than chance, so that its own images count for most
    alike = [row for k in range(4) for row in of_one(f"c{k}", 0.75 + 0.01 * k, 0.9, 40)]
    same = pilot(tmp_path / "alike.csv", [*of_one("all concepts", 0.765, 0.9, 160), *alike])
    assert obedience_of("c0", same, "gender")[0, 0] == pytest.approx(0.765)
    assert obedience_of("never seen", file, "gender")[0, 0] == pytest.approx(0.76)


# -- bad input ---------------------------------------------------------------------------------------

GENDER = {"attribute": "gender"}


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("guardrails", ["guardrails", "guardrail", "FILE.py:CLASS"]),
        ({"target": {}}, ["attribute: the key is missing", "to: the key is missing"]),
        ({"target": {**GENDER, "to": "nowhere"}}, ["nowhere", "uniform", "bls_cps_table11"]),
        ({"target": {"attribute": "mood", "to": "uniform"}}, ["mood", "gender"]),
        ({"target": {**GENDER, "to": "bls_cps_table11", "year": 1999}}, ["1999", "2023"]),
        ({"target": {**GENDER, "to": "uniform", "year": 2023}}, ["year", "uniform"]),
        ({"target": {**GENDER, "to": "uniform", "terms": {"person": "x"}}}, ["person", "woman"]),
        ({"target": {**GENDER, "to": "uniform", "position": "inside"}}, ["position", "before"]),
        ({"target": {**GENDER, "to": "uniform", "obedience": "absent.csv"}}, ["absent.csv", "No such file"]),
        ({"intervention": {"text": "kindness"}}, ["kindness", "skin_color"]),
        ({"guardrail": {"terms": {"female": 0.7, "male": 0.2}}}, ["sum to 1", "0.9"]),
        ({"guardrail": {"terms": {"female": 1.5, "male": -0.5}}}, ["sum to 1", "-0.5"]),
        ({"guardrail": {"terms": []}}, ["terms", "at least one"]),
        ({"guardrail": {"terms": ["", "male"]}}, ["terms", "empty"]),
        ({"suffix": {"text": ""}}, ["text"]),
        ({"suffix": {"name": "../up", "text": "x"}}, ["name"]),
        ({"counter_stereotype": {**GENDER, "reference": "nowhere"}}, ["nowhere", "bls_cps_table11"]),
    ],
)
def test_a_wrong_arm_is_one_message_with_the_right_answers(arm: Any, said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        planned(arms=["none", arm])
    for words in ["fake.yaml", "arms", *said]:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cook,gender,woman,0.4\ncook,gender,man,0.5\n", "cook: the shares must be shares that sum to 1"),
        ("cook,gender,lady,1\n", "'lady' is not known; the choices are: man, woman"),
        ("cook,gender,woman,many\n", "'many' is no share"),
        ("cook,age,adult,1\n", "no row about gender"),
        ("", "lacks rows"),
    ],
)
def test_a_wrong_target_file_is_one_message(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "target.csv"
    file.write_text("concept,attribute,level,share\n" + content)
    with pytest.raises(InputError, match=said) as caught:
        planned(arms=["none", {"target": {**GENDER, "to": str(file)}}])
    assert str(file) in str(caught.value)


def test_a_concept_that_a_target_file_lacks_is_left_alone_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "target.csv"
    file.write_text("concept,attribute,level,share\nCook,gender,woman,0.301\nCook,gender,man,0.7\n")
    one = planned(arms=[{"target": {**GENDER, "to": str(file)}}])
    drawn = {(unit.prompt.concept, unit.drawn) for s in one.shards() for unit in one.units(s)}
    assert {"woman", "man"} == {d for concept, d in drawn if concept == "cook"}
    assert {d for concept, d in drawn if concept == "pilot"} == {f"{LEFT_ALONE}{file} has no row for 'pilot'"}


def test_words_that_are_not_in_the_prompt_have_no_place_before_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    content = {"description": "d", "source": "s", "licence": "l", "status": "verified"}
    concepts = [{"concept": "CEO", "phrase": "chief executive"}]
    file.write_text(yaml.safe_dump(content | {"templates": {"face": "the face of {a_concept}"}, "concepts": concepts}))
    with pytest.raises(InputError, match="'CEO' are not in 'the face of a chief executive'; write position: after"):
        planned(prompt_sets=[str(file)], arms=[{"target": {**GENDER, "to": "uniform"}}])


def test_an_empty_rewrite_is_an_error_that_names_arm_and_prompt(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from pipeline.mitigations import Rewriter\nfrom pipeline.types import Rewrite\n"
        "class Mute(Rewriter):\n    def rewrite(self, prompt, sample, rng):\n        return Rewrite(' ')\n"
    )
    with pytest.raises(InputError, match=r"Mute: makes 'a photo of a mechanic' \(sample 0\) an empty prompt"):
        planned(arms=[f"{file}:Mute"])


# -- the command, and what it costs ------------------------------------------------------------------


def test_the_command_lists_the_arms_and_tries_one() -> None:
    listed = typecast("arms")
    assert listed.returncode == 0 and all(f"\n{name} " in f"\n{listed.stdout}" for name in mitigations.ARMS)
    assert "arXiv 2210.15230" in listed.stdout and "not verified" in listed.stdout
    tried = typecast("arms", "try", "target", "a photo of a nurse", "--set", "to=uniform", "--set", "attribute=gender")
    assert tried.returncode == 0, tried.stderr
    lines = tried.stdout.splitlines()
    assert len(lines) == 10 and Counter(lines) == {
        "a photo of a female nurse\twoman": 5,
        "a photo of a male nurse\tman": 5,
    }
    wrong = typecast("arms", "try", "target", "a photo of a nurse")
    assert wrong.returncode == 2 and "needed are: attribute, to" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("intervention", {"text": "gender"}),
        ("guardrail", {}),
        ("target", {**GENDER, "to": "bls_cps_table11"}),
        ("counter_stereotype", {**GENDER, "reference": "bls_cps_table11"}),
    ],
)
def test_a_thousand_rewrites_cost_less_than_drawing_one_image(name: str, parameters: dict[str, Any]) -> None:
    """The embedded model draws an image in about 0.3 s on one core: what is asked here is less than a third of that."""
    arm, rng = one_arm(name, parameters), np.random.default_rng(0)
    rewritten(arm, prompt(), 0, rng)  # the tables are read once
    start = time.process_time()
    for k in range(1000):
        rewritten(arm, prompt(), k, rng)
    assert time.process_time() - start < 0.1
