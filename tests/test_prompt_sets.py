"""Prompt sets: what ships, what a file may say, and what a broken one is answered."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prompt_sets
from pipeline import checks, study
from pipeline.errors import InputError
from prompt_sets.prompts import article

GOOD = {
    "description": "d",
    "source": "s",
    "licence": "l",
    "status": "verified",
    "templates": {"face": "a photo of {a_concept}"},
    "concepts": ["cook"],
}


def written(tmp_path: Path, content: object) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


def refusal(tmp_path: Path, content: object) -> str:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        prompt_sets.load(path)
    assert path in str(caught.value)
    return str(caught.value)


# -- what ships --------------------------------------------------------------------------------------


def test_the_papers_sets_have_the_papers_numbers_of_prompts() -> None:
    """DALL-Eval: 83 professions, 252 prompts. Fair Diffusion: 153. Stable Bias: 21 variants per profession."""
    sets = {name: prompt_sets.load(name) for name in prompt_sets.names()}
    assert len(sets["dalleval"].prompts) == 252
    assert len({p.concept for p in sets["dalleval"].prompts} - {"person"}) == 83
    assert len(sets["fair_diffusion"].prompts) == 153
    assert len(sets["emoji_occupations"].prompts) == 20
    assert len(sets["identities"].prompts) == 1 + 2 * 5
    portraits = [p for p in sets["stable_bias"].prompts if p.concept != "person"]
    assert len({p.template for p in portraits}) == 21 and len(portraits) == 21 * 153


@pytest.mark.parametrize("name", prompt_sets.names())
def test_what_ships_states_its_source_and_leaves_no_placeholder(name: str) -> None:
    loaded = prompt_sets.load(name)
    assert loaded.source and loaded.licence and loaded.description
    assert len(loaded.statuses) == len(loaded.prompts) == len({p.key for p in loaded.prompts})
    for prompt in loaded.prompts:
        assert not set("{}") & set(prompt.text) and "  " not in prompt.text
        assert prompt.prompt_set == name


def test_bianchi_asks_as_the_paper_is_quoted_and_marks_what_is_only_remembered() -> None:
    loaded = prompt_sets.load("bianchi2023")
    status = {p.concept: s for p, s in zip(loaded.prompts, loaded.statuses, strict=True)}
    texts = {p.text for p in loaded.prompts}
    assert {"A photo of the face of an attractive person", "A photo of the face of a person stealing"} <= texts
    assert [concept for concept, found in status.items() if found != "verified"] == ["software developer"]
    assert len(status) == 10 + 11


def test_the_adjectives_of_stable_bias_are_not_passed_off_as_read() -> None:
    loaded = prompt_sets.load("stable_bias")
    found = dict(zip([p.template for p in loaded.prompts], loaded.statuses, strict=True))
    assert found["stubborn"] == "remembered" and found["ambitious"] == "secondary" and found["plain"] == "secondary"
    at_work = [s for p, s in zip(loaded.prompts, loaded.statuses, strict=True) if p.identity == "non-binary person"]
    assert at_work == ["verified"]
    assert "verified" not in {s for p, s in zip(loaded.prompts, loaded.statuses, strict=True) if p.concept == "nurse"}


def test_fair_diffusion_keeps_the_wrong_article_of_the_published_images() -> None:
    assert "A photo of the face of a accountant" in {p.text for p in prompt_sets.load("fair_diffusion").prompts}


def test_every_study_that_ships_can_be_planned() -> None:
    for name in prompt_sets.studies():
        loaded = study.load_import(name)[0] if study.is_import(name) else study.load(name)
        assert loaded.name == name and loaded.prompts()
    demo = study.load("emoji")
    assert len(demo.prompts()) * demo.images_per_prompt == 1000


def test_the_readme_counts_the_prompts_of_every_set() -> None:
    readme = (prompt_sets.FOLDER / "README.md").read_text(encoding="utf-8")
    for name in prompt_sets.names():
        assert f"| `{name}` | {len(prompt_sets.load(name).prompts):,} |" in readme


# -- what a file may say -----------------------------------------------------------------------------


def test_a_template_is_crossed_with_what_it_names(tmp_path: Path) -> None:
    templates = {"both": "{an_identity} as {a_concept}", "who": "{identity}", "bare": "someone"}
    content = GOOD | {
        "templates": templates,
        "concepts": ["cook", {"concept": "artist", "phrase": "old artist", "status": "secondary"}],
        "identities": {"w": "woman", "e": {"phrase": "elderly man", "status": "remembered"}},
    }
    loaded = prompt_sets.load(written(tmp_path, content))
    assert [
        (p.concept, p.template, p.identity, p.text, s) for p, s in zip(loaded.prompts, loaded.statuses, strict=True)
    ] == [
        ("cook", "both", "w", "a woman as a cook", "verified"),
        ("cook", "both", "e", "an elderly man as a cook", "remembered"),
        ("artist", "both", "w", "a woman as an old artist", "secondary"),
        ("artist", "both", "e", "an elderly man as an old artist", "remembered"),
        ("person", "who", "w", "woman", "verified"),
        ("person", "who", "e", "elderly man", "remembered"),
        ("person", "bare", "", "someone", "verified"),
    ]


def test_the_readmes_example_is_a_prompt_set(tmp_path: Path) -> None:
    readme = (prompt_sets.FOLDER / "README.md").read_text(encoding="utf-8")
    example = readme.split("```yaml\n")[1].split("```")[0]
    loaded = prompt_sets.load(written(tmp_path, example))
    texts = [p.text for p in loaded.prompts]
    assert texts[0] == "A photo of the face of a cook" and "a woman who works as an MRI technologist" in texts
    assert len(texts) == 3 * (1 + 2) + 2 + 1


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(GOOD).encode())
    assert prompt_sets.load(str(path)).prompts[0].text == "a photo of a cook"


SOUNDS = (
    "a cook, an artist, a European, an hour, an honest cook, a university, an unskilled cook, a user, an usher, "
    "a unicyclist, an IT specialist, a one-armed man, a Ukrainian, an ugly man, a house, an heir"
)


@pytest.mark.parametrize("phrase", SOUNDS.split(", "))
def test_the_article_follows_the_sound(phrase: str) -> None:
    expected, _, words = phrase.partition(" ")
    assert article(words) == expected


# -- what a broken file is answered ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"concept": ["cook"]}, ["concept: not a known key (did you mean 'concepts'?)", "left_out", "templates"]),
        ({"status": "verfied"}, ["status", "'verfied'", "verified, secondary, remembered"]),
        ({"concepts": ["cook", False]}, ["concepts.1", "False", "quote it"]),
        ({"concepts": [42]}, ["concepts.0", "42", "the number 42", "quote it"]),
        ({"concepts": [None]}, ["concepts.0", "found nothing"]),
        ({"concepts": [{"concept": "cook", "article": "the"}]}, ["concepts.0.article", "'the'", "a, an"]),
        ({"concepts": ["cook", "nurse", "cook"]}, ["concept (cook), template (face)"]),
        ({"concepts": "cook"}, ["concepts", "'cook'", "a list"]),
        ({"concepts": []}, ["templates.face names {concept}", "no concepts"]),
        ({"templates": {}, "concepts": []}, ["no prompts"]),
        ({"templates": {}}, ["no prompts"]),
        ({"templates": {"face": "nobody"}}, ["concepts are given", "{concept}"]),
        ({"templates": {"face": "a {occupation}"}}, ["templates.face", "{occupation}", "{a_concept}, {identity}"]),
        ({"templates": {"face": "a {concept!r}"}}, ["templates.face", "placeholder"]),
        ({"templates": {"face": "a {concept.__class__}"}}, ["templates.face", "placeholder"]),
        ({"templates": {"face": "a {concept"}}, ["templates.face", "{a_concept}"]),
        ({"templates": {"Full Face": "a {concept}"}}, ["templates", "'Full Face'", "short word"]),
        ({"identities": {"w": "woman"}}, ["identities are given", "{identity}"]),
        ({"templates": {"face": "{identity} {concept}"}}, ["templates.face names {identity}", "no identities"]),
        ({"source": "  "}, ["source", "not empty"]),
        ({"prompts": [{"text": "x"}]}, ["prompts.0.concept", "missing", "text, concept"]),
    ],
)
def test_a_wrong_entry_is_answered_with_its_key_and_the_right_answers(
    tmp_path: Path, change: dict[str, object], says: list[str]
) -> None:
    message = refusal(tmp_path, GOOD | change)
    assert [part for part in says if part not in message] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3", "'a'", "twice"]),
        ("a: 1\non: 2\n", ["line 2", "'on'", "true", "quotes"]),
        ("a: 1\nb: [1\nc: 2\n", ["line 3"]),
        ("a: &x 1\nb: *x\n", ["line 2", "alias"]),
        ("a: !!python/object:os.system x\n", ["line 1", "tag"]),
        ("a: 2020-13-45\n", ["month"]),
        ("", ["nothing", "a mapping"]),
        ("- a\n", ["a list", "a mapping"]),
        ("[" * 1000, ["YAML"]),
    ],
)
def test_broken_yaml_is_answered_with_its_line(tmp_path: Path, text: str, says: list[str]) -> None:
    message = refusal(tmp_path, text)
    assert [part for part in says if part not in message] == []


def test_text_that_is_not_utf8_is_answered_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        prompt_sets.load(str(path))


@pytest.mark.parametrize("name", ["emoji_ocupations", "x" * 5000, "a\0b", "nowhere/set.yaml"])
def test_a_missing_set_is_answered_with_what_ships(name: str) -> None:
    with pytest.raises(InputError, match=r"(?s)no such.*dalleval, emoji"):
        prompt_sets.load(name)


def test_a_folder_is_no_prompt_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        prompt_sets.load(str(tmp_path))


def test_a_study_is_explained_without_the_names_of_pydantics_branches() -> None:
    raw = {"name": "a", "prompt_sets": ["emoji_occupations"], "arms": [3], "draw": {"dtype": "float63", "guidence": 3}}
    with pytest.raises(InputError) as caught:
        study.parse(raw, where="s.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("s.yaml: ") for line in lines) and len(lines) == 3
    assert "s.yaml: draw.guidence: not a known key (did you mean 'guidance_scale'?)" in str(caught.value)
    assert (
        "draw.dtype: found 'float63' (did you mean 'float32'?); it should be one of: float32, float16, bfloat16"
        in lines[0]
    )
    assert any(line.startswith("s.yaml: arms.0: found 3") and "a mapping" in line for line in lines)


SIGNS = (
    "prompts: identities: left_out: text phrase: article no on ~ 1 1:30 .nan {concept} '{a_concept}' !!int !!set "
    "!!binary &a *a << | > # % @ --- ... [ ] { }"
)
SPACED = ["!!timestamp x", "? ", ": ", "\n- ", "\n  ", "\n", "\t", "\0", '"\\ud800"', "\ufeff"]
YAML_WORDS = st.sampled_from([*SIGNS.split(), *SPACED, *GOOD])
KEYS = st.sampled_from([*GOOD, "a", "text"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.lists(YAML_WORDS | st.text(max_size=4), max_size=30).map("".join) | st.binary(max_size=40))
def test_no_document_gives_anything_but_prompts_or_an_input_error(tmp_path: Path, document: str | bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass"))
    try:
        assert prompt_sets.load(str(path)).prompts
    except InputError as error:
        assert str(path) in str(error)
        str(error).encode()  # and it can be printed


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*GOOD, "prompts", "identities", "left_out"]), value=VALUES)
def test_no_value_gives_anything_but_prompts_or_an_input_error(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | {key: value}), encoding="utf-8")
    try:
        assert prompt_sets.load(str(path)).prompts
    except InputError as error:
        assert f"{path}: " in str(error)


def test_reading_what_was_written_gives_it_back(tmp_path: Path) -> None:
    assert checks.read_yaml(written(tmp_path, GOOD)) == GOOD
