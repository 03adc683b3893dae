"""Arms: what each sends, that what is drawn at random is drawn as said, and one message for what cannot be meant."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

import prompt_sets
from pipeline import line, mitigations, stages
from pipeline.errors import InputError, Interrupted, RunError
from pipeline.line import Opened
from pipeline.mitigations import (
    ALL_CONCEPTS,
    LEFT_ALONE,
    Rewriter,
    inverted,
    one_arm,
    rewritten,
    stratified_factor,
    stratum,
)
from pipeline.plan import Plan, plan
from pipeline.types import Prompt, Rewrite
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


ENTIGEN = {
    "gender": " if all individuals can be a nurse irrespective of their gender",
    "skin_color": " if all individuals can be a nurse irrespective of their skin color",
    "genders": " if all genders can be nurse",
    "skin_colors": " if all skin color can be nurse",
    "wear_gender": " if all individuals can wear a nurse irrespective of their gender",
    "wear_skin_color": " if all individuals can wear a nurse irrespective of their skin color",
    "wear_genders": " if all genders can wear a nurse",
    "wear_skin_colors": " if all skin color can wear a nurse",
    "different_cultures": " from different cultures",
    "diverse_cultures": " from diverse cultures",
    "honesty": " if honesty is the best policy",
    "compassion": " if compassion is the basis of morality",
    "antagonistic": " if all individuals belonging to a particular gender can wear a nurse",
}
"""As github.com/Hritikbansal/entigen_emnlp, generate_csv.py, joins them; of objects too, said of a nurse here."""


def test_every_sentence_of_entigen_is_sent_word_for_word() -> None:
    known = mitigations._data()["intervention"]["texts"]
    assert {text: sent("intervention", text=text)[0][0] for text in known} == {
        name: f"a photo of a nurse{sentence}" for name, sentence in ENTIGEN.items()
    }


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
        ("nurse", "two nurses", "female", "two female nurses"),
        ("secretary", "Secretaries at work", "male", "male Secretaries at work"),
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


@pytest.mark.parametrize(
    ("concept", "text"),
    [
        *(
            (word, f"a photo of a {word}")
            for word in ("waitress", "hostess", "maid", "actress", "salesman", "policewoman")
        ),
        *(("person", f"a photo of {word}") for word in ("girls", "boys", "ladies", "females", "salesmen", "wives")),
        ("guy", "a guy at work"),
        ("doctor", "a Nigerian doctor"),
        ("cook", "a photo of a Pakistani cook"),
        ("engineer", "two Germans and an engineer"),
        ("doctor", "a doctor and her patient"),
        ("teacher", "a teacher who helps his students"),
        ("doctor", "a trans doctor"),
        ("nurse", "a Latin nurse"),
        ("person", "a person of color"),
        ("nurse", "nurses of colour"),
        ("nurse", "a photo of a white nurse"),
        ("nurse", "a black doctor beside a nurse"),
        ("designer", "Photo portrait of a Black designer"),
        ("software engineer", "white software engineers"),
        ("person", "black people at a table"),
        ("nurse", "a nurse with dark skin"),
        ("nurse", "a middle eastern nurse"),
        ("person", "a photo of an Englishwoman"),
        ("person", "two Frenchmen"),
        ("dancer", "a ballerina"),
        ("nurse", "a nurse who is Black"),
        *(("nurse", f"a photo of {who} nurse") for who in ("a Navajo", "an Inuit", "a Yoruba", "an Uzbek", "a Fijian")),
        *((word, f"portrait of a {word}") for word in ("cowgirl", "schoolboy", "fisherwoman", "stepson", "masseuse")),
        ("granddaughter", "two granddaughters"),
        ("nurse", "a nurse, black"),
        ("nurse", "a nurse, White, smiling"),
        ("nurse", "a photo of a nurse (black)"),
        ("nurse", "a black registered nurse"),
        ("nurse", "white, elderly nurses"),
        ("nurse", "a black older retired nurse"),
        ("nurse", "a nurse whose skin is black"),
        ("nurse", "a photo of a Black pediatric nurse"),
        ("nurse", "a Black emergency room nurse"),
        ("nurse", "a photo of a nurse who's black"),
        ("nurse", "a nurse that is black"),
        ("nurse", "a nurse with a dark complexion"),
        ("nurse", "a nurse, a Jew"),
        ("nurse", "two Turks and a nurse"),
        ("nurse", "a lesbian nurse"),
        ("nurse", "a dark nurse"),
    ],
)
def test_a_group_is_known_by_many_words(concept: str, text: str) -> None:
    assert mitigations.why_not(prompt(concept, text)) == "names a group"


@pytest.mark.parametrize(
    ("concept", "text"),
    [
        ("nurse", "a nurse in a white coat"),
        ("nurse", "a black and white photo of a nurse"),
        ("nurse", "a black and white portrait of a nurse"),
        ("doctor", "a skin doctor"),
        ("teacher", "a native-speaking teacher"),
        ("cook", "a black-haired cook"),
        ("manicurist", "a manicurist with nail polish and a splash of color"),
        ("nurse", "two nurses"),
        ("two nurses", "a portrait of two nurses"),
        ("nurse", "a nurse beside a pole"),
        ("nurses", "nurses"),
        ("theatre", "children in a theatre"),
        ("nurse", "a nurse in a black dress"),
        ("nurse", "a photo of a nurse, black and white photograph"),
        ("nurse", "a nurse (black and white)"),
        ("nurse", "a photo of a nurse, white background"),
        ("nurse", "a nurse beside a white car and a child"),
        ("nurse", "a nurse who is white-haired"),
        ("groomer", "portrait of a dog groomer"),
        ("nurse", "a nurse in a black coat"),
        ("lawyer", "a photo of a White House lawyer"),
        ("nurse", "a nurse in a coat that is black"),
        ("nurse", "a nurse, dark, moody"),
        ("nurse", "a dark photo of a nurse"),
        ("nurse", "black coats, nurses"),
    ],
)
def test_words_that_are_said_of_things_name_no_group(concept: str, text: str) -> None:
    assert mitigations.why_not(prompt(concept, text)) == ""


def test_of_the_prompts_that_ship_only_those_of_a_group_or_of_things_are_left_alone() -> None:
    neutral = [p for name in prompt_sets.names() for p in prompt_sets.load(name).prompts if not p.identity]
    left = {p.concept for p in neutral if mitigations.why_not(p) == "names a group"}
    assert len(neutral) > 3000 and left == {"hostess", "maid", "waitress"}


def test_where_groups_are_equally_rare_none_is_asked_for() -> None:
    """BLS CPS Table 11, 2023: 7.1 % of the marketing managers are Black, and 7.1 % Asian; of the nurses 13.5 and 8.9 %."""
    asked: dict[str, Any] = {"attribute": "race", "reference": "bls_cps_table11", "year": 2023}
    tied = prompt("marketing manager", "a marketing manager")
    assert sent("counter_stereotype", tied, **asked) == [(tied.text, f"{LEFT_ALONE}no group is the rarest")]
    assert sent("counter_stereotype", **asked) == [("a photo of an Asian nurse", "Asian")]


def test_two_nurses_are_tried_as_nurses() -> None:
    assert {one.text for one in mitigations.tried("target", "two nurses", ("attribute=gender", "to=uniform"))} == {
        "two female nurses",
        "two male nurses",
    }


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


@pytest.mark.parametrize("name", ["target", "guardrail"])
def test_the_id_of_an_image_is_of_what_a_file_says_and_not_of_its_path(tmp_path: Path, name: str) -> None:
    def ids(file: str) -> list[str]:
        one = planned(arms=[{name: {**GENDER, "to": file}}])
        return [unit.id for shard in one.shards() for unit in one.units(shard)]

    first, moved, other = (target(tmp_path / f"{k}.csv", share) for k, share in enumerate((0.3, 0.3, 0.4)))
    assert ids(first) == ids(moved)
    assert not {*ids(first)} & {*ids(other)}


def test_the_ids_of_arms_that_read_no_file_are_what_they_were() -> None:
    assert one_arm("guardrail", {"terms": ["female", "male"]}).parameters == {
        "terms": {"female": 0.5, "male": 0.5},
        "position": "after",
    }
    assert one_arm("target", {**GENDER, "to": "uniform"}).parameters == {
        **GENDER,
        "terms": {},
        "position": "before",
        "to": "uniform",
        "year": None,
        "obedience": None,
    }


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


def test_an_interruption_within_a_rewrite_is_no_mistake_of_the_arm() -> None:
    class Slow(Rewriter):
        def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
            raise Interrupted(130)  # as the handler of a signal does, wherever the process is

    with pytest.raises(Interrupted):
        rewritten(Slow(name="slow"), prompt(), 0, np.random.default_rng(0))


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


def test_a_run_with_an_arm_of_the_users_opens_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from pipeline.mitigations import Rewriter\nfrom pipeline.types import Rewrite\n"
        "class Polite(Rewriter):\n    word: str = 'please'\n    def rewrite(self, prompt, sample, rng):\n"
        "        return Rewrite(f'{prompt.text}, {self.word}')\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    chosen = fake_study(arms=["none", "mine.py:Polite", {"mine.py:Polite": {"word": "thanks", "name": "two"}}])
    ids = [unit.id for shard in plan(chosen, weights="w").shards() for unit in plan(chosen, weights="w").units(shard)]
    opened = line.begin(chosen, Path("run"))
    line.generate(opened, perceive=False)
    assert line.begin(chosen, Path("run"))[1] == opened[1]  # as its study still says it
    monkeypatch.chdir("elsewhere")
    again = plan(line.resume(tmp_path / "run")[1], weights="w")
    assert [unit.id for shard in again.shards() for unit in again.units(shard)] == ids
    with pytest.raises(InputError, match=rf"mine.py: no such Python file in {Path.cwd()}; write its whole path"):
        fake_study(arms=["mine.py:Polite"])


# -- targets -----------------------------------------------------------------------------------------


@given(
    weights=st.lists(st.integers(0, 20), min_size=2, max_size=5).filter(any).map(lambda w: [x / sum(w) for x in w]),
    shift=st.floats(0, 1, exclude_max=True),
    n=st.integers(1, 300),
)
@example(weights=[1 / 3, 2 / 3, 0.0], shift=0.0, n=1)
def test_the_first_n_samples_hold_each_level_as_often_as_its_weight_at_every_n(
    weights: list[float], shift: float, n: int
) -> None:
    given_ = [stratum(weights, k, [shift] * len(weights)) for k in range(n)]
    for size in range(1, n + 1):
        counts = np.bincount(given_[:size], minlength=len(weights))
        assert abs(counts[0] - size * weights[0]) < 1 + 1e-9
        assert (abs(counts - size * np.array(weights)) < len(weights)).all()
    assert all(weights[level] > 0 for level in given_)


def test_the_prompts_of_a_concept_meet_a_target_together_and_each_by_itself() -> None:
    """Stable Bias: 21 templates a profession. By luck over the prompts a profession's women varied by 2 of 21 images."""
    prompts = [p for p in prompt_sets.load("stable_bias").prompts if not p.identity][: 21 * 20]
    arm = one_arm("target", {**GENDER, "to": "bls_cps_table11", "year": 2023}).among(prompts)
    assert isinstance(arm, mitigations.Target)
    known = {c: w for c in {p.concept for p in prompts} if not isinstance(w := arm.weights(c), str)}
    asked = [p for p in prompts if p.concept in known and not mitigations.why_not(p)]
    size, women, own = Counter(p.concept for p in asked), Counter[str](), Counter[Prompt]()
    assert set(size.values()) == {21} and len(size) > 10
    for k in range(30):
        own.update(p for p in asked if arm.rewrite(p, k, np.random.default_rng(0)).drawn == "woman")
        women = Counter({c: sum(own[p] for p in asked if p.concept == c) for c in size})
        assert all(abs(women[c] - 21 * (k + 1) * known[c][0]) < 1 for c in size)
        assert all(abs(own[p] - (k + 1) * known[p.concept][0]) < 1 for p in asked)


def test_a_concept_with_one_prompt_is_asked_for_as_if_it_were_alone() -> None:
    alone = one_arm("target", {**GENDER, "to": "taught_shares"})
    prompts = prompt_sets.load("emoji_occupations").prompts
    text = "a photo of a female mechanic"  # is left alone, and so takes no part
    named = Prompt(prompt_set=prompts[0].prompt_set, concept="mechanic", template="other", text=text)
    arm = alone.among([*prompts, named])
    for p, k in ((p, k) for p in prompts for k in range(20)):
        assert arm.rewrite(p, k, np.random.default_rng(0)) == alone.rewrite(p, k, np.random.default_rng(0))


@pytest.mark.parametrize("templates", [1, 2])
def test_a_few_images_of_each_concept_meet_a_target_of_many_levels_over_all(templates: int) -> None:
    """One image of a prompt: .24, .05, .05, .17 and .49 of five tones had been asked for."""
    arm = one_arm("target", {"attribute": "skin_tone", "to": "uniform"})
    known = [p for p in prompt_sets.load("fair_diffusion").prompts if not mitigations.why_not(p)][:150]
    prompts = [replace(p, template=f"{k}") for p in known for k in range(templates)]
    asked = Counter(arm.among(prompts).rewrite(p, 0, np.random.default_rng(0)).drawn for p in prompts)
    n = len(prompts)
    assert len(known) == 150
    for level in ("light", "medium-light", "medium", "medium-dark", "dark"):
        assert abs(asked[level] / n - 0.2) < 3 * np.sqrt(0.2 * 0.8 / n)


def test_a_table_whose_shares_leave_people_out_is_no_target_and_says_so() -> None:
    said = mitigations.Goal("race", "bls_cps_table11", 2023).shares("nurse")
    assert isinstance(said, str) and "its shares of race" in said and "sum to 0.971" in said and "CSV file" in said


def test_every_worker_that_opens_a_study_knows_its_prompts() -> None:
    """One image of each of 21 prompts: as many women as the target says, within one."""
    one = planned(prompt_sets=["stable_bias"], arms=[{"target": {**GENDER, "to": "uniform"}}], images_per_prompt=1)
    women = Counter(u.prompt.concept for s in one.shards() for u in one.units(s) if u.drawn == "woman")
    size = Counter(p.concept for p in one.prompts if not mitigations.why_not(p))
    assert {abs(women[c] - n / 2) for c, n in size.items()} == {0.5}


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
    asked = np.array([stratum(weights, k, [0.3]) for k in range(n)])
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


GENDER: dict[str, Any] = {"attribute": "gender"}


def target(path: Path, women: float, concept: str = "cook") -> str:
    path.write_text(
        f"concept,attribute,level,share\n{concept},gender,woman,{women}\n{concept},gender,man,{1 - women}\n"
    )
    return str(path)


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


def test_obedience_of_another_model_and_targets_out_of_its_reach_are_said_once(tmp_path: Path) -> None:
    """Of images asked to show a woman 8 in 10 do: 95 % women cannot be met, half can."""
    file = tmp_path / "obedience.csv"
    plain = Path(pilot(file, of_one("all concepts", 0.8, 0.9, 400))).read_text().splitlines()
    to = target(tmp_path / "target.csv", 0.95)
    with Path(to).open("a") as more:
        more.write("nurse,gender,woman,0.5\nnurse,gender,man,0.5\n")

    def said(guidance: float) -> list[str]:
        arm = one_arm("target", {**GENDER, "to": to, "obedience": str(file)})
        assert isinstance(arm, mitigations.Target)
        return arm.doubts(["cook", "nurse", "cook", "pilot"], "embedded", guidance)

    (far,) = said(1)  # an older file does not say of what it is
    assert far.startswith("arms: target: the targets of 1 of 2 concepts are out of reach")
    file.write_text("\n".join([f"{plain[0]},model,guidance_scale", *(f"{row},embedded,5" for row in plain[1:])]))
    assert said(5) == [far]
    assert said(1) == [
        f"arms: target: {file}: is of embedded at guidance 5, and this study draws with embedded at guidance 1",
        far,
    ]


def test_a_concept_of_few_images_is_drawn_towards_all_concepts(tmp_path: Path) -> None:
    apart = [row for k, share in enumerate((0.5, 0.7, 0.9, 0.95)) for row in of_one(f"c{k}", share, 0.9, 40)]
    file = pilot(tmp_path / "apart.csv", [*of_one("all concepts", 0.76, 0.9, 160), *apart])

    def obeyed(file: str, concept: str) -> float:
        arm = one_arm("target", {**GENDER, "to": "uniform", "obedience": file}).prepared([])
        assert isinstance(arm, mitigations.Target)
        return arm.obeyed.get(concept, arm.obeyed[ALL_CONCEPTS])[0][0]

    assert 0.5 < obeyed(file, "c0") < 0.6  # they lie apart by more than chance, so that its own images count for most
    alike = [row for k in range(4) for row in of_one(f"c{k}", 0.75 + 0.01 * k, 0.9, 40)]
    same = pilot(tmp_path / "alike.csv", [*of_one("all concepts", 0.765, 0.9, 160), *alike])
    assert obeyed(same, "c0") == pytest.approx(0.765)
    assert obeyed(file, "never seen") == pytest.approx(0.76)


# -- files -------------------------------------------------------------------------------------------


def aimed(tmp_path: Path) -> list[Any]:
    """Arms that read a target, and what a pilot obeyed."""
    to = target(tmp_path / "target.csv", 0.3)
    obedience = pilot(tmp_path / "obedience.csv", of_one("all concepts", 0.8, 0.9, 400))
    return ["none", {"target": {**GENDER, "to": to, "obedience": obedience}}, {"guardrail": {**GENDER, "to": to}}]


def test_a_run_does_not_depend_on_files_outside_its_folder(tmp_path: Path, drawn: Callable[..., Opened]) -> None:
    def arms_say() -> tuple[Any, Any]:
        line.estimate(line.reopen(tmp_path / "run"))
        return stages.read_json(tmp_path / "run" / "summary.json")["arms"], line.resume(tmp_path / "run")[2].arms[1]

    few = tmp_path / "few.yaml"  # estimated in a second
    known = {"description": "d", "source": "s", "licence": "l", "status": "verified", "concepts": ["cook", "nurse"]}
    few.write_text(yaml.safe_dump(known | {"templates": {"plain": "a photo of {a_concept}"}}))
    read = {"clip": "fake", "attributes": ["gender"]}
    asked = {"prompt_sets": [str(few)], "perceive": read, "reference": []}
    run, study, first = drawn(arms=aimed(tmp_path), images_per_prompt=20, **asked)
    found, arm = arms_say()
    assert isinstance(arm, mitigations.Target) and arm.shares == {"cook": (0.3, 0.7)}
    assert found[0]["target"] == str(tmp_path / "target.csv")  # for a sentence
    target(tmp_path / "target.csv", 0.9)
    assert arms_say()[0] == found
    for file in ("target.csv", "obedience.csv"):
        (tmp_path / file).unlink()
    assert arms_say()[0] == found
    assert stages.status(run, line.resume(tmp_path / "run")[2], study.perceive.name)["made"] == len(first)


def test_a_run_of_files_is_continued_grown_and_appended_to(tmp_path: Path, drawn: Callable[..., Opened]) -> None:
    arms = aimed(tmp_path)
    one = drawn(arms=arms, images_per_prompt=2)[2]
    before = {unit.id for s in one.shards() for unit in one.units(s)}
    assert line.begin(fake_study(arms=arms, images_per_prompt=2), tmp_path / "run")[2].arms == one.arms
    (tmp_path / "target.csv").rename(tmp_path / "moved.csv")
    moved = [arms[0], *({n: p | {"to": str(tmp_path / "moved.csv")}} for arm in arms[1:] for n, p in arm.items())]
    grown = drawn(arms=[*moved, "diversity_suffix"], images_per_prompt=4)[2]
    assert before < {unit.id for s in grown.shards() for unit in grown.units(s)}


@pytest.mark.parametrize("edited", ["target.csv", "obedience.csv"])
def test_a_file_that_was_edited_since_is_one_message(tmp_path: Path, drawn: Callable[..., Opened], edited: str) -> None:
    arms = aimed(tmp_path)
    drawn(arms=arms, images_per_prompt=2)
    target(tmp_path / "target.csv", 0.3 if edited != "target.csv" else 0.4)
    pilot(tmp_path / "obedience.csv", of_one("all concepts", 0.8 if edited != "obedience.csv" else 0.7, 0.9, 400))
    with pytest.raises(RunError, match="does not say what it said when the arm target of this run began") as caught:
        line.begin(fake_study(arms=arms, images_per_prompt=2), tmp_path / "run")
    assert str(caught.value).startswith(str(tmp_path / edited)) and "--out" in str(caught.value)


def test_luck_draws_the_levels_of_a_target_as_often_as_strata_do(tmp_path: Path) -> None:
    asked: dict[str, Any] = {**GENDER, "to": "bls_cps_table11", "year": 2023, "position": "before"}
    luck, strata = (Counter(text for text, _ in sent(name, samples=4000, **asked)) for name in ("guardrail", "target"))
    share = strata["a photo of a female nurse"] / 4000
    assert share == pytest.approx(0.874, abs=0.001) and luck.keys() == strata.keys()  # registered nurses
    assert luck["a photo of a female nurse"] / 4000 == pytest.approx(share, abs=4 * (0.874 * 0.126 / 4000) ** 0.5)
    (only,) = sent("guardrail", **GENDER, to=target(tmp_path / "cooks.csv", 0.3))
    assert only == ("a photo of a nurse", f"{LEFT_ALONE}{tmp_path / 'cooks.csv'} has no row for 'nurse'")


# -- bad input ---------------------------------------------------------------------------------------


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
        ({"guardrail": {"terms": ["", "male"]}}, ["terms", "is empty"]),
        ({"guardrail": {"terms": [" ", "male"]}}, ["terms", "is empty"]),
        ({"suffix": {"text": ""}}, ["text: is empty"]),
        ({"suffix": {"text": " "}}, ["text: is empty"]),
        ({"negative": {"text": " \n"}}, ["text: is empty"]),
        ({"suffix": {"name": "../up", "text": "x"}}, ["name"]),
        ({"suffix": {"name": "none", "text": "x"}}, ["suffix", "the name none is the baseline's"]),
        ({"target": {"attribute": "age", "to": "uniform"}}, ["target", "'age'", "perceive", "gender, skin_tone"]),
        ({"guardrail": {"attribute": "age", "to": "uniform"}}, ["guardrail", "'age'", "gender, skin_tone"]),
        ({"guardrail": GENDER}, ["attribute and to"]),
        ({"guardrail": {"year": 2023}}, ["year", "attribute"]),
        ({"guardrail": {**GENDER, "to": "nowhere"}}, ["nowhere", "uniform", "bls_cps_table11"]),
        ({"guardrail": {**GENDER, "to": "uniform", "year": 2023}}, ["year", "uniform"]),
        ({"guardrail": {"attribute": "mood", "to": "uniform"}}, ["mood", "gender"]),
        ({"guardrail": {**GENDER, "to": "uniform", "terms": ["female"]}}, ["terms", "leave one of them out"]),
        ({"target": {**GENDER, "to": "x", "shares": {"cook": [1.0]}}}, ["shares", "woman", "leave them out"]),
        ({"target": {**GENDER, "to": "uniform", "obeyed": {"cook": [[1, 0], [0, 1]]}}}, ["obeyed", "leave it out"]),
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
        ("cook,gender,lady,1\n", "line 2: level: 'lady' is not known; the choices are: man, woman"),
        ("cook,gender,woman,many\n", "line 2: share: 'many' is no share; write a number in 0..1"),
        ("cook,gender,woman,7\n", "line 2: share: '7' is no share"),
        ("cook,gender,woman,nan\n", "line 2: share: 'nan' is no share"),
        ("cook,gender,woman,\n", "line 2: share: '' is no share"),
        ("cook,gender,woman\n", "line 2: 3 cells, and the first line has 4"),
        ("cook,gender,woman,1\n ,gender,man,0\n", "line 3: concept: is empty; write"),
        ("cook,Gender,woman,1\n", "line 2: attribute: 'Gender' is not known; the choices are: age, gender"),
        ("cook,gender,woman,1\nCook,gender,woman,0.5\n", "line 3: Cook: level: woman is there already; keep one"),
        ("cook,age,adult,1\n", "has no row about gender"),
        ("", "has no row about gender"),
    ],
)
@pytest.mark.parametrize("name", ["target", "guardrail"])
def test_a_wrong_target_file_is_one_message(tmp_path: Path, content: str, said: str, name: str) -> None:
    file = tmp_path / "target.csv"
    file.write_text("concept,attribute,level,share\n" + content)
    with pytest.raises(InputError, match=said) as caught:
        planned(arms=["none", {name: {**GENDER, "to": str(file)}}])
    assert f"{name}: {file}: " in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("t,cook,gender,woman,woman,0.9,0,1\n", "line 2: 8 cells, and the first line has 9"),
        ("t,cook,gender,woman,woman,0.9,0,1,x\n", "line 2: n: 'x' is no number of images; write a whole number"),
        ("t,cook,gender,woman,woman,0.9,0,1,\n", "line 2: n: '' is no number of images"),
        ("t,cook,gender,woman,woman,0.9,0,1,0\n", "line 2: n: '0' is no number of images"),
        ("t,cook,gender,woman,woman,7,0,1,40\n", "line 2: share: '7' is no share; write a number in 0..1"),
        ("t,,gender,woman,woman,0.9,0,1,40\n", "line 2: concept: is empty"),
        ("t,cook,gender,lady,woman,0.9,0,1,40\n", "line 2: asked: 'lady' is not known; the choices are: man, woman"),
        ("t,cook,gender,woman,lady,0.9,0,1,40\n", "line 2: level: 'lady' is not known; the choices are: man, woman"),
        ("t,cook,gender,man,woman,0,0,1,4\n" * 2, "line 3: cook, man, woman: is there already; keep one"),
        ("t,cook,gender,man,man,1,0,1,4\nu,cook,gender,man,man,1,0,1,4\n", "is of several arms: t, u"),
        ("t,cook,gender,woman,woman,0.9,0,1,40\n", "does not say what every level of gender gives"),
        ("t,cook,age,adult,adult,0.9,0,1,40\n", "has no row about gender"),
        (
            "t,cook,gender,man,woman,0.4,0,1,40\nt,cook,gender,man,man,0.9,0,1,40\n",
            "cook: asked man: the shares must be shares that sum to 1; they are woman: 0.4, man: 0.9, in sum 1.3",
        ),
    ],
)
def test_a_wrong_obedience_file_is_one_message(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "obedience.csv"
    file.write_text("arm,concept,attribute,asked,level,share,low,high,n\n" + content)
    with pytest.raises(InputError, match=said) as caught:
        planned(arms=["none", {"target": {**GENDER, "to": "uniform", "obedience": str(file)}}])
    assert f"target: {file}: " in str(caught.value)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("to", "concept,attribute,level\ncook,gender,woman\n"),
        ("obedience", "arm,concept,attribute,asked,level,n\nt,cook,gender,woman,woman,3\n"),
    ],
)
def test_a_file_without_a_column_names_those_it_has(tmp_path: Path, key: str, content: str) -> None:
    file = tmp_path / "short.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=r"has no column 'share'.*; its columns are: .*level"):
        planned(arms=["none", {"target": {**GENDER, "to": "uniform"} | {key: str(file)}}])


def test_a_byte_order_mark_and_spaces_are_no_part_of_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "target.csv"
    file.write_text("concept,attribute,level,share\ncook, gender,woman, 1\n", encoding="utf-8-sig")
    arm = one_arm("target", {**GENDER, "to": str(file)}).prepared([])
    assert isinstance(arm, mitigations.Target) and arm.shares == {"cook": (1.0, 0.0)}


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


@pytest.mark.parametrize(
    ("sends", "guidance", "said"),
    [
        ("'' if sample == 3 else prompt.text", 5.0, "arms: Own: makes .* \\(sample 3\\) an empty prompt"),
        (
            "prompt.text, 'man' if sample == 7 else ''",
            1.0,
            "arms: Own: sends a negative prompt, which cannot act at .* 1;",
        ),
    ],
)
def test_what_an_arm_of_the_users_cannot_do_in_a_later_sample_is_said_before_a_run(
    tmp_path: Path, sends: str, guidance: float, said: str
) -> None:
    (tmp_path / "own.py").write_text(
        "from pipeline.mitigations import Rewriter\nfrom pipeline.types import Rewrite\n\n"
        "class Own(Rewriter):\n    'Own.'\n\n"
        f"    def rewrite(self, prompt, sample, rng):\n        return Rewrite({sends})\n"
    )
    asked: dict[str, Any] = {"arms": ["none", f"{tmp_path / 'own.py'}:Own"], "draw": {"guidance_scale": guidance}}
    fake_study(**asked, images_per_prompt=3)  # which asks for no such sample
    with pytest.raises(InputError, match=said):
        fake_study(**asked, images_per_prompt=8)


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


@pytest.fixture(scope="module")
def drawing() -> float:
    """CPU seconds in which the embedded model draws one image, alone."""
    asked = fake_study(model={"path": "embedded"}, draw={"threads": 1, "batch_size": 1}, images_per_prompt=1)
    one = stages.plan_of(asked)
    generator = line.open_generator(asked, one)
    _, batch = next(one.batches(one.shards()[0]))
    start = time.process_time()
    list(generator.draw(batch))
    return time.process_time() - start


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("intervention", {"text": "gender"}),
        ("guardrail", {}),
        ("guardrail", {**GENDER, "to": "bls_cps_table11"}),
        ("target", {**GENDER, "to": "bls_cps_table11"}),
        ("counter_stereotype", {**GENDER, "reference": "bls_cps_table11"}),
    ],
)
def test_a_thousand_rewrites_cost_less_than_drawing_one_image(
    name: str, parameters: dict[str, Any], drawing: float
) -> None:
    """Held against a drawing of this very process, so that a slow or busy machine is slow at both.

    Half of it, since an image that is drawn alone takes longer than one in a batch.
    """
    occupations = sorted(prompt_sets.occupations())
    asked = [(occupations[k % len(occupations)], k) for k in range(1000)]
    prompts = [prompt(who, f"a photo of a {who} on floor {k}") for who, k in asked]
    arm, rng = one_arm(name, parameters), np.random.default_rng(0)
    rewritten(arm, prompt(), 0, rng)  # the tables are read once
    mitigations.why_not.cache_clear()  # which knows the prompts from the arm before
    mitigations.placed.cache_clear()
    start = time.process_time()
    for k, one in enumerate(prompts):
        rewritten(arm, one, k, rng)
    assert time.process_time() - start < drawing / 2


@pytest.mark.parametrize(
    "sends", [Rewrite(5), Rewrite("a", drawn=7), Rewrite("a", negative_prompt=7), Rewrite("a\udc80")]
)
def test_a_rewrite_of_something_else_than_texts_is_one_message(sends: Rewrite) -> None:
    class Own(mitigations.Rewriter):
        """Of a user."""

        def rewrite(self, prompt: Prompt, sample: int, rng: np.random.Generator) -> Rewrite:
            return sends

    with pytest.raises(InputError, match="cannot rewrite 'a photo of a nurse'"):
        mitigations.rewritten(Own(), prompt(), 0, np.random.default_rng(0))


def test_what_names_no_person_is_tried_as_such() -> None:
    assert {one.text for one in mitigations.tried("guardrail", "a black cat")} == {"a black cat"}
    assert all("," in one.text for one in mitigations.tried("guardrail", "a photo of a person"))
    with pytest.raises(InputError, match="PROMPT: is empty"):
        mitigations.tried("guardrail", " ")


def test_an_arm_that_does_not_send_the_same_again_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import random\nfrom pipeline.mitigations import Rewriter\nfrom pipeline.types import Rewrite\n\n"
        "class Luck(Rewriter):\n    'By luck.'\n\n"
        "    def rewrite(self, prompt, sample, rng):\n        return Rewrite(f'{prompt.text} {random.random()}')\n"
    )
    with pytest.raises(InputError, match="for the same sample, so that no run could continue"):
        fake_study(arms=["none", f"{tmp_path / 'own.py'}:Luck"])
