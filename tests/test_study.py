"""Study files: what is accepted, and the one clear message for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import prompt_sets
from pipeline import study
from pipeline.errors import InputError, TypecastError

GOOD = {"name": "mine", "prompt_sets": ["emoji_occupations"], "reference": [{"table": "taught_shares"}]}


def written(folder: Path, content: object) -> str:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("name", sorted(prompt_sets.studies()))
def test_every_study_that_ships_is_valid_and_survives_its_own_dump(name: str) -> None:
    one, parse = (
        (study.load_import(name)[0], study.parse_import) if study.is_import(name) else (study.load(name), study.parse)
    )
    assert one.name == name
    assert parse(yaml.safe_load(study.dump(one)), where="dump") == one


@pytest.mark.parametrize(
    ("perceive", "name"),
    [
        ({"probe": "probes/mine/"}, "embedded-mine"),
        ({"clip": "models/tiny", "probe": "/far/away/mine", "people": "exactly_one"}, "tiny-mine-exactly_one"),
        ({"clip": "ViT-B/32", "pretrained": "openai"}, "ViT-B-32-openai-zero_shot"),
        ({"clip": "hf-hub:apple/MobileCLIP-S2"}, "apple-MobileCLIP-S2-zero_shot"),
    ],
)
def test_the_name_of_a_perceiver_is_of_what_is_written_and_not_of_what_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, perceive: dict[str, str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert study.Perceive(**perceive).name == name
    for folder in ("probes/mine", "models/tiny", "apple/MobileCLIP-S2", "ViT-B/32", "openai", "zero_shot"):
        (tmp_path / folder).mkdir(parents=True)
    assert study.Perceive(**perceive).name == name


def test_an_arm_whose_table_knows_no_concept_of_the_study_is_one_message(tmp_path: Path) -> None:
    """Every image would be drawn as without it; a prompt that names a group is left alone rightly."""
    target = tmp_path / "target.csv"
    target.write_text("concept,attribute,level,share\nsurgeon,gender,woman,0.5\nsurgeon,gender,man,0.5\n")
    asked = [
        {"target": {"attribute": "gender", "to": str(target)}},
        {"guardrail": {"attribute": "gender", "to": str(target)}},
        {"counter_stereotype": {"attribute": "skin_tone", "reference": "bls_cps_table11"}},
    ]
    perceived = {"perceive": {"attributes": ["gender", "skin_tone"]}}
    for arm, why in zip(
        asked, ["no row for 'mechanic'", "no row for 'mechanic'", "says nothing about skin_tone"], strict=True
    ):
        with pytest.raises(InputError, match=f"arms: {next(iter(arm))}: would leave every prompt alone; .*{why}"):
            study.parse(GOOD | perceived | {"arms": ["none", arm]}, where="mine")
    target.write_text(target.read_text().replace("surgeon", "pilot"))
    study.parse(GOOD | perceived | {"arms": ["none", *asked[:2]]}, where="mine")
    study.parse(GOOD | {"prompt_sets": ["emoji_identities"], "arms": ["none", "guardrail"]}, where="mine")


@pytest.mark.parametrize("value", ["2020-13-45", '!!int ""', "&a [*a, {b: *a}]", "[" * 1000, "{a: 1, a: 2}"])
def test_what_is_no_plain_yaml_under_set_is_one_message(value: str) -> None:
    with pytest.raises(InputError, match="--set description="):
        study.load("emoji", (f"description={value}",))


def test_an_arm_whose_rewrites_are_still_to_be_made_can_act() -> None:
    study.parse(GOOD | {"arms": ["none", {"llm": {"model": "no/model"}}]}, where="mine")


OWN = {
    "description": "d",
    "source": "s",
    "licence": "none",
    "status": "verified",
    "templates": {"one": "a photo of {a_concept}"},
    "concepts": ["pilot", {"concept": "nurse", "phrase": "night nurse"}],
}


def test_a_study_keeps_what_its_own_prompt_sets_say(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(OWN))
    raw = GOOD | {"prompt_sets": ["emoji_occupations", str(file)]}
    here = study.parse(raw, where="mine")
    assert here == study.parse(raw | {"prompt_sets": ["emoji_occupations", {"own": OWN}]}, where="mine")
    file.unlink()
    again = study.parse(yaml.safe_load(study.dump(here)), where="mine")
    assert again == here and again.prompt_sets[0] == "emoji_occupations"
    assert [prompt.text for prompt in again.prompts()[-2:]] == ["a photo of a pilot", "a photo of a night nurse"]
    assert {prompt.prompt_set for prompt in again.prompts()} == {"emoji_occupations", "own"}


def test_a_file_of_ones_own_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Else the results would look like those of the set that ships, which may be named by its path too."""
    ships = prompt_sets.FOLDER / "emoji_occupations.yaml"
    kept = study.parse(GOOD | {"prompt_sets": [str(ships)]}, where="mine")
    assert kept == study.parse(GOOD, where="mine") and kept.prompt_sets == ("emoji_occupations",)
    mine = tmp_path / "emoji_occupations.yaml"
    mine.write_text(yaml.safe_dump(OWN))
    with pytest.raises(InputError, match=r"has the name of a prompt set that ships.*rename"):
        study.parse(GOOD | {"prompt_sets": [str(mine)]}, where="mine")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"own": OWN, "other": OWN}, "own, other: one that is written out is a name.* with what its file would say"),
        ({}, "one that is written out is a name"),
        ({"own": {**OWN, "statsu": "verified"}}, "prompt_sets: own: statsu: not a known key"),
        (
            {"emoji_occupations": OWN},
            "emoji_occupations: one that is written out is a name, other than those of the sets",
        ),
    ],
)
def test_a_prompt_set_that_is_written_out_wrongly_is_one_message(wrong: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        study.parse(GOOD | {"prompt_sets": [wrong]}, where="mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"guidence": 5}, ["guidence"]),
        ({"draw": {"guidence_scale": 5}}, ["draw.guidence_scale", "guidance_scale"]),
        ({"draw": {"dtype": "int8"}}, ["draw.dtype", "bfloat16"]),
        ({"draw": {"num_inference_steps": "many"}}, ["draw.num_inference_steps", "many"]),
        ({"draw": {"quantization": "int4"}}, ["draw.quantization", "float8"]),
        ({"draw": {"cache": "attention", "compile": "whole"}}, ["draw", "compile goes with neither cache nor"]),
        ({"draw": {"cache": "attention"}, "model": {"path": "fake"}}, ["draw.cache: the model fake has no network"]),
        ({"images_per_prompt": 0}, ["images_per_prompt"]),
        ({"images_per_prompt": 2.5}, ["images_per_prompt"]),
        ({"images_per_prompt": True}, ["images_per_prompt", "a whole number"]),
        ({"seed": "16"}, ["seed", "a whole number"]),
        ({"draw": {"threads": 10**21}}, ["draw.threads", "less than or equal to 1024"]),
        ({"draw": {"guidance_scale": True}}, ["draw.guidance_scale", "a number"]),
        ({"perceive": {"threshold": "0.5"}}, ["perceive.threshold", "a number"]),
        ({"prompt_sets": []}, ["prompt_sets"]),
        ({"prompt_sets": ["nowhere"]}, ["nowhere", "emoji_occupations"]),
        ({"prompt_sets": ["emoji_occupations"] * 2}, ["prompt_sets", "twice"]),
        (
            {"prompt_sets": ["bianchi2023", "fair_diffusion"]},
            ["'A photo of the face of a cook'", "bianchi2023 and in fair_diffusion", "counted twice"],
        ),
        ({"reference": [{"table": "nowhere"}]}, ["nowhere", "taught_shares"]),
        ({"reference": [{"table": "bls_cps_table11", "year": 1999}]}, ["1999", "2023"]),
        (
            {"reference": [{"table": "bls_cps_table11"}, {"table": "bls_cps_table11", "year": 2023}]},
            ["bls_cps_table11, 2023", "named twice"],
        ),
        ({"perceive": {"attributes": ["mood"]}}, ["perceive.attributes", "mood", "gender"]),
        ({"perceive": {"threshold": 2}}, ["perceive.threshold"]),
        ({"arms": ["guardrails"]}, ["guardrails", "none"]),
        ({"grown_from": [90]}, ["images_per_prompt may only grow"]),
        ({"name": "../up"}, ["name"]),
    ],
)
def test_a_wrong_study_names_file_key_and_right_answers(
    tmp_path: Path, change: dict[str, object], said: list[str]
) -> None:
    path = written(tmp_path, GOOD | change)
    with pytest.raises(InputError) as caught:
        study.load(path)
    for words in [path, *said]:
        assert words in str(caught.value)


def test_a_study_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt_sets"):
        study.load(written(tmp_path, {"name": "mine"}))


def test_a_missing_study_lists_those_that_ship() -> None:
    with pytest.raises(InputError, match=r"no such study file.*emoji"):
        study.load("emojy")


def test_a_key_is_set_by_its_dotted_path() -> None:
    one = study.load("emoji", ("draw.guidance_scale=5", "arms=[none, {suffix: {text: ', smiling'}}]"))
    assert one.draw.guidance_scale == 5.0
    assert [arm.name for arm in one.rewriters()] == ["none", "suffix"]


@pytest.mark.parametrize("change", ["draw.guidance_scale", "name.first=x", "seed={", "draw.steps=3"])
def test_a_wrong_change_is_refused(change: str) -> None:
    with pytest.raises(InputError):
        study.load("emoji", (change,))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([*study.Study.model_fields, "nonsense"])


WRONG = st.booleans() | st.text(max_size=8) | st.lists(st.integers(), max_size=2) | st.just({"a": 1})
NUMBERS = [
    (where, name)
    for where, part in (("draw", study.Draw), ("perceive", study.Perceive), ("", study.Study))
    for name, about in part.model_fields.items()
    if about.annotation in (int, float, float | None)
]


@given(st.sampled_from(NUMBERS), WRONG)
def test_what_is_no_number_is_never_taken_for_one(place: tuple[str, str], value: object) -> None:
    where, name = place
    with pytest.raises(InputError, match=rf"mine\.yaml: .*{name}"):
        study.parse(GOOD | ({where: {name: value}} if where else {name: value}), where="mine.yaml")


@given(st.dictionaries(keys, json_like, max_size=4))
def test_a_malformed_study_is_never_more_than_one_clear_message(change: dict[str, object]) -> None:
    try:
        study.parse(GOOD | change, where="mine.yaml")
    except TypecastError as error:
        assert str(error).startswith("mine.yaml")
