"""The zero-shot probe on random CLIPs that are made here: what is decided, from what, and how often it is encoded."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from classifiers.attributes import ATTRIBUTES, TEMPLATES, digest_of, prompts
from classifiers.clip import ClipModel
from classifiers.evaluation import measure_confusion, save_confusion
from classifiers.probe import CONFUSION, decide
from classifiers.zero_shot import ZeroShot, in_words
from pipeline import types
from pipeline.errors import InputError, ModelError
from tests import tiny_clip

SHAPES = types.Attribute(
    name="shape",
    title="perceived shape",
    levels=("round", "square", "flat"),
    wordings={"round": ("o", "oooo"), "square": ("x0x0", "xxxxxxxxxxxxxxxxxxx"), "flat": ("-----.....", "---")},
)
"""Words that even a random text tower tells apart."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.clip(tmp_path_factory.mktemp("clips") / "tiny")


@pytest.fixture(scope="module")
def clip(folder: Path) -> ClipModel:
    return ClipModel(str(folder), device="cpu")


@pytest.fixture(scope="module")
def probe(clip: ClipModel) -> ZeroShot:
    return ZeroShot(clip, [SHAPES, *ATTRIBUTES.values()], threshold=0.6)


def images(n: int, *, height: int = tiny_clip.SIZE, width: int = tiny_clip.SIZE, seed: int = 0) -> list[types.Pixels]:
    """Waves of random colour, direction and contrast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    waves = (np.sin(rng.normal(0, 9) * x + rng.normal(0, 9) * y)[..., None] * rng.normal(0, 90, 3) for _ in range(n))
    return [(wave + rng.uniform(0, 255, 3)).clip(0, 255).astype(np.uint8) for wave in waves]


def decisions_one_by_one(probe: ZeroShot, pictures: list[types.Pixels]) -> dict[str, list[str]]:
    seen = [probe.perceive([picture]) for picture in pictures]
    return {a.name: [one.decisions[a.name][0] for one in seen] for a in probe.attributes}


# -- attributes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ATTRIBUTES.values(), ids=lambda a: a.name)
def test_every_level_is_said_in_as_many_ways(attribute: types.Attribute) -> None:
    assert tuple(attribute.wordings) == attribute.levels
    counts = {len(set(wordings)) for wordings in attribute.wordings.values()}
    assert len(counts) == 1 and min(counts) >= 3
    assert all("{}" in template for template in TEMPLATES)
    everything = Counter(text for level in attribute.levels for text in prompts(attribute, level))
    assert set(everything.values()) == {1}, "a text that stands for two levels tells nothing"


def test_titles_say_perceived() -> None:
    assert all(attribute.title.startswith("perceived ") for attribute in ATTRIBUTES.values())


def test_a_digest_changes_with_any_wording_and_with_the_order_of_the_levels() -> None:
    def changed(levels: tuple[str, ...], **wordings: tuple[str, ...]) -> str:
        everything = {**SHAPES.wordings, **wordings}
        return digest_of(types.Attribute(name="shape", title="", levels=levels, wordings=everything))

    orders = [changed(levels) for levels in itertools.permutations(SHAPES.levels)]
    assert orders[0] == digest_of(SHAPES)
    assert len({*orders, changed(SHAPES.levels, flat=("---", "-----....."))}) == 7


# -- encoding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (48, 80), (17, 9), (32, 40)])
def test_preprocessing_is_that_of_open_clip_bit_for_bit(
    tmp_path: Path, mode: str, interpolation: str, size: tuple[int, int]
) -> None:
    folder = tiny_clip.clip(tmp_path / "clip", resize_mode=mode, interpolation=interpolation, mean=[0.4, 0.5, 0.6])
    _, theirs = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pictures = images(5, height=size[0], width=size[1])
    ours = ClipModel(str(folder), device="cpu").preprocessed(pictures)
    assert torch.equal(ours, torch.stack([theirs(Image.fromarray(picture)) for picture in pictures]))


def test_preprocessing_of_a_picture_does_not_depend_on_the_sizes_beside_it(clip: ClipModel) -> None:
    small, large = images(3), images(2, height=50, width=70)
    together = clip.preprocessed([small[0], large[0], small[1], large[1], small[2]])
    assert torch.equal(together[::2], clip.preprocessed(small))


def test_embeddings_are_those_of_open_clip_at_unit_length(clip: ClipModel, folder: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures, texts = images(70), ["a photo of a woman", "a man", ""]
    with torch.no_grad():
        seen = model.encode_image(torch.stack([preprocess(Image.fromarray(p)) for p in pictures]), normalize=True)
        read = model.encode_text(tokenize(texts), normalize=True)
    for ours, theirs in ((clip.encode_images(pictures), seen), (clip.encode_texts(texts), read)):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert clip.logit_scale == pytest.approx(np.exp(4.0))


def test_no_image_gives_no_row(clip: ClipModel, probe: ZeroShot) -> None:
    assert clip.encode_images([]).shape == (0, tiny_clip.WIDTH)
    assert clip.encode_texts([]).shape == (0, tiny_clip.WIDTH)
    seen = probe.perceive([])
    assert seen.embeddings.shape == (0, tiny_clip.WIDTH)
    assert seen.probabilities["gender"].shape == (0, 2)
    assert seen.decisions["gender"] == []


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (3, 32, 32)])
def test_what_is_no_rgb_image_is_refused(clip: ClipModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        clip.encode_images([np.zeros(shape, np.uint8)])
    with pytest.raises(ValueError, match="uint8"):
        clip.encode_images([np.zeros((32, 32, 3), np.float32)])


class Counts:
    """How many images and which texts went through the two towers."""

    def __init__(self, clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images, self.texts, self.calls = 0, Counter[str](), 0
        image_tower, tokenize = clip._model.encode_image, clip._tokenize

        def encode_image(inputs: torch.Tensor) -> Any:
            self.images += len(inputs)
            return image_tower(inputs)

        def read(texts: list[str]) -> Any:
            self.texts.update(texts)
            return tokenize(texts)

        monkeypatch.setattr(clip._model, "encode_image", encode_image)
        monkeypatch.setattr(clip, "_tokenize", read)


def test_texts_are_encoded_once_and_images_once_whatever_the_number_of_attributes(
    clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(clip, monkeypatch)
    probe = ZeroShot(clip, list(ATTRIBUTES.values()), threshold=0.5)
    texts = {text for a in ATTRIBUTES.values() for level in a.levels for text in prompts(a, level)}
    assert set(counts.texts) == texts
    assert set(counts.texts.values()) == {1}, "gender and age share wordings: they are read once for both"
    pictures = images(130)
    for repeat in (1, 2):
        probe.perceive(pictures)
        assert counts.images == 130 * repeat
    probe.from_embeddings(probe.perceive([]).embeddings)
    assert counts.texts.total() == len(texts), "perceiving reads no text"
    assert counts.images == 260


# -- decisions -----------------------------------------------------------------------------------------


def test_probabilities_are_the_formula_of_the_paper(clip: ClipModel, probe: ZeroShot) -> None:
    """Prompt ensembles and softmax, by hand: Radford et al. (2021), sections 3.1.2 and 3.1.4."""
    seen = probe.perceive(images(40))
    vectors = []
    for level in SHAPES.levels:
        texts = [template.replace("{}", wording) for wording in SHAPES.wordings[level] for template in TEMPLATES]
        mean = np.mean([clip.encode_texts([text])[0] for text in texts], axis=0)
        vectors.append(mean / np.sqrt(np.sum(mean**2)))
    cosines = seen.embeddings.astype(np.float32) @ np.array(vectors).T
    expected = softmax(np.exp(4.0) * cosines, axis=1)
    assert seen.probabilities["shape"].dtype == np.float32
    np.testing.assert_allclose(seen.probabilities["shape"], expected, atol=1e-5)
    for row, decision in zip(expected, seen.decisions["shape"], strict=True):
        best = int(np.argmax(row))
        assert decision == (SHAPES.levels[best] if row[best] >= 0.6 else types.CANNOT_TELL)


def test_an_embedding_is_rounded_before_anything_is_decided(clip: ClipModel, probe: ZeroShot) -> None:
    pictures = images(60)
    seen = probe.perceive(pictures)
    exact = clip.encode_images(pictures)
    np.testing.assert_array_equal(seen.embeddings, exact.astype(np.float16))
    rounded = in_words(probe.texts["shape"], clip.logit_scale).probabilities(exact.astype(np.float16))
    unrounded = softmax(clip.logit_scale * exact.astype(np.float64) @ probe.texts["shape"].T.astype(np.float64), axis=1)
    np.testing.assert_array_equal(seen.probabilities["shape"], rounded)
    assert (seen.probabilities["shape"] != unrounded.astype(np.float32)).mean() > 0.5


def test_decisions_do_not_depend_on_the_batch_size_or_on_one_by_one(clip: ClipModel, probe: ZeroShot) -> None:
    pictures = images(400)
    together = probe.perceive(pictures)
    assert set(together.decisions["shape"]) == {*SHAPES.levels, types.CANNOT_TELL}, "the test must see every answer"
    assert decisions_one_by_one(probe, pictures) == together.decisions
    for batch_size in (1, 7, 256):
        other = clip.encode_images(pictures, batch_size).astype(np.float16)
        assert probe.from_embeddings(other).decisions == together.decisions
        # rounding takes nearly every difference away; what remains is one step of float16, 2^-10 of a coordinate
        assert (other != together.embeddings).mean() < 0.01
        np.testing.assert_allclose(other.astype(float), together.embeddings.astype(float), rtol=2**-10, atol=1e-6)


def test_images_that_the_device_does_not_hold_together_are_read_in_parts(
    clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = images(20)
    expected, reading, asked = clip.encode_images(pictures), clip._model.encode_image, list[int]()

    def limited(inputs: torch.Tensor) -> torch.Tensor:
        asked.append(len(inputs))
        if len(inputs) > 6:
            raise torch.OutOfMemoryError("full")
        return reading(inputs)

    monkeypatch.setattr(clip._model, "encode_image", limited)
    np.testing.assert_allclose(clip.encode_images(pictures), expected, atol=1e-6)
    assert asked == [20, 20, 16, 8, 4, 4, 4, 4, 4]
    monkeypatch.setattr(clip._model, "encode_image", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        clip.encode_images(pictures)


def test_stored_embeddings_give_the_same_bits_in_any_company(probe: ZeroShot) -> None:
    """The guarantee without exceptions: the same float16 embedding, the same probabilities and decision."""
    seen = probe.perceive(images(150))
    order = np.random.default_rng(0).permutation(150)
    for rows in (order, order[:1], order[:7], np.array([3, 3, 3]), *order[:, None]):
        again = probe.from_embeddings(seen.embeddings[rows])
        for attribute in probe.attributes:
            expected = seen.probabilities[attribute.name][rows]
            np.testing.assert_array_equal(again.probabilities[attribute.name], expected)
            assert again.decisions[attribute.name] == [seen.decisions[attribute.name][row] for row in rows]


def test_everything_below_the_threshold_is_cannot_tell(clip: ClipModel) -> None:
    pictures = images(50)
    sure = ZeroShot(clip, [SHAPES], threshold=1).perceive(pictures)
    below = [row.max() < 1 for row in sure.probabilities["shape"]]
    assert any(below)
    assert [decision == types.CANNOT_TELL for decision in sure.decisions["shape"]] == below
    anything = ZeroShot(clip, [SHAPES], threshold=0).perceive(pictures)
    assert types.CANNOT_TELL not in anything.decisions["shape"]
    np.testing.assert_array_equal(anything.probabilities["shape"], sure.probabilities["shape"])


def test_a_probability_that_equals_the_threshold_is_decided() -> None:
    """0.9 is 0.89999998 in float32, where probabilities are kept."""
    shares = np.array([[0.9, 0.1], [0.1, 0.9], [0.89999, 0.10001]], np.float32)
    assert decide(shares, ("a", "b"), 0.9) == ["a", "b", types.CANNOT_TELL]


def test_equal_levels_stay_equal_and_the_first_is_named(probe: ZeroShot) -> None:
    embeddings = probe.perceive(images(50)).embeddings
    texts = np.concatenate([probe.texts["shape"], probe.texts["shape"]])
    shares = in_words(texts, probe.clip.logit_scale).probabilities(embeddings)
    np.testing.assert_array_equal(shares[:, :3], shares[:, 3:])
    assert set(decide(shares, "abcABC", 0)) <= set("abc")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(clip: ClipModel, threshold: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        ZeroShot(clip, [SHAPES], threshold=threshold)


def test_the_probe_is_a_perceiver(probe: ZeroShot) -> None:
    perceiver: types.Perceiver = probe
    assert perceiver.name == "tiny-zero_shot"
    assert [attribute.name for attribute in perceiver.attributes] == ["shape", *ATTRIBUTES]


# -- confusion -----------------------------------------------------------------------------------------


@pytest.fixture
def counted(probe: ZeroShot) -> dict[str, Any]:
    truths: dict[str, list[str | None]] = {
        "shape": [*["round"] * 20, *["flat"] * 30, *[None] * 10],
        "gender": ["man"] * 60,
    }
    return measure_confusion(probe, images(60), truths, concepts=[f"c{i % 2}" for i in range(60)], pictures="waves")


def test_confusion_counts_decisions_of_labelled_pictures(probe: ZeroShot, counted: dict[str, Any]) -> None:
    decisions = probe.perceive(images(60)).decisions["shape"]
    rows = np.array(counted["shape"]["rows"])
    assert set(counted) == {"shape", "gender"}
    assert rows.sum(axis=1).tolist() == [20, 0, 30], "unlabelled pictures count nowhere; no square was shown"
    for row, labelled in ((0, decisions[:20]), (2, decisions[20:50])):
        counts = Counter(labelled)
        assert rows[row].tolist() == [counts[answer] for answer in (*SHAPES.levels, types.CANNOT_TELL)]


def test_confusion_by_concept_adds_up_to_the_whole(counted: dict[str, Any]) -> None:
    for entry in counted.values():
        parts = np.array(list(entry["by_concept"].values()))
        assert list(entry["by_concept"]) == ["c0", "c1"]
        np.testing.assert_array_equal(parts.sum(0), entry["rows"])
        assert not np.array_equal(parts[0], parts[1])


def test_attributes_are_counted_together_as_well_as_apart(probe: ZeroShot) -> None:
    rng = np.random.default_rng(1)
    genders, tones = ATTRIBUTES["gender"], ATTRIBUTES["skin_tone"]
    labels: dict[str, list[str | None]] = {
        "gender": [str(rng.choice(genders.levels)) for _ in range(60)],
        "skin_tone": [None, *(str(rng.choice(tones.levels)) for _ in range(59))],
    }
    counted = measure_confusion(probe, images(60), labels, concepts=["c"] * 60, pictures="waves")
    both = counted["gender_x_skin_tone"]
    assert both["levels"] == [f"{g}, {t}" for g in genders.levels for t in tones.levels]
    seen = probe.perceive(images(60)).decisions
    expected = Counter[tuple[str, str]]()
    for g, t, a, b in zip(labels["gender"], labels["skin_tone"], seen["gender"], seen["skin_tone"], strict=True):
        if t is not None:
            undecided = types.CANNOT_TELL in (a, b)
            expected[f"{g}, {t}", types.CANNOT_TELL if undecided else f"{a}, {b}"] += 1
    columns = [*both["levels"], types.CANNOT_TELL]
    for level, row in zip(both["levels"], both["rows"], strict=True):
        assert row == [expected[level, answer] for answer in columns]
    assert sum(map(sum, both["rows"])) == 59, "a picture that is labelled for one attribute alone says nothing of both"


def test_a_saved_confusion_is_read_back_for_the_same_probe_alone(
    probe: ZeroShot, counted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(str(probe.clip.folder), tmp_path / "tiny")
    save_confusion(counted, folder / "confusion.json")
    assert not list(folder.glob("*.part"))
    clip = ClipModel(str(folder), device="cpu")
    same = ZeroShot(clip, probe.attributes, threshold=0.6)
    np.testing.assert_array_equal(same.confusion("shape"), counted["shape"]["rows"])
    for concept, rows in counted["shape"]["by_concept"].items():
        np.testing.assert_array_equal(same.confusion_by_concept("shape")[concept], rows)
    assert same.confusion_by_concept("age") == {}
    assert same.confusion("age") is None, "not counted"
    assert ZeroShot(clip, [SHAPES], threshold=0.7).confusion("shape") is None, "another threshold"
    assert probe.confusion("shape") is None, "no file"
    elsewhere = ZeroShot(probe.clip, [SHAPES], threshold=0.6, confusion_file=folder / "confusion.json")
    np.testing.assert_array_equal(elsewhere.confusion("shape"), counted["shape"]["rows"])
    monkeypatch.setattr("classifiers.attributes.TEMPLATES", ("{}",))
    assert same.confusion("shape") is None, "other templates"
    with pytest.raises(ValueError, match="hair"):
        same.confusion("hair")


def test_labels_that_do_not_fit_are_refused(probe: ZeroShot) -> None:
    with pytest.raises(ValueError, match="triangle"):
        measure_confusion(probe, images(1), {"shape": ["triangle"]}, concepts=["c"], pictures="")
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        measure_confusion(probe, images(2), {"shape": ["round"]}, concepts=["c"] * 2, pictures="")


@pytest.mark.parametrize(
    "change", [{"rows": [[1, 2], [3, 4]]}, {"rows": [[-1] * 4] * 3}, {"rows": [[0.5] * 4] * 3}, {"rows": None}]
)
def test_a_damaged_confusion_file_is_named(
    probe: ZeroShot, counted: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    file = tmp_path / "counts.json"
    save_confusion({"shape": counted["shape"] | change}, file)
    with pytest.raises(InputError, match=r"counts\.json: shape"):
        ZeroShot(probe.clip, [SHAPES], threshold=0.6, confusion_file=file).confusion("shape")


@pytest.mark.parametrize("content", ["", "[]", '{"shape": 1}', '{"shape": {"rows": []}}', "{"])
def test_a_confusion_file_of_another_kind_is_named(probe: ZeroShot, tmp_path: Path, content: str) -> None:
    file = tmp_path / "counts.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"counts\.json: shape"):
        ZeroShot(probe.clip, [SHAPES], threshold=0.6, confusion_file=file).confusion("shape")
    with pytest.raises(InputError, match=r"none\.json"):
        ZeroShot(probe.clip, [SHAPES], threshold=0.6, confusion_file=tmp_path / "none.json")


# -- loading -------------------------------------------------------------------------------------------


def refusal(name: str, pretrained: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        ClipModel(name, pretrained, device="cpu")
    return str(caught.value)


def test_an_unknown_model_is_one_error_with_the_right_answers() -> None:
    message = refusal("vit-l-41", "openai")
    assert "perceive.clip" in message and "'vit-l-41'" in message
    assert "ViT-L-14" in message and "embedded" in message and "hf-hub:" in message
    assert "ViT-B-32" in refusal("resemblance"), "where nothing is close, some that are well known"


def test_unknown_weights_are_one_error_with_all_that_there_are() -> None:
    for pretrained in (None, "opnai"):
        message = refusal("ViT-L-14", pretrained)
        assert "perceive.pretrained" in message
        assert all(tag in message for tag in open_clip.list_pretrained_tags_by_model("ViT-L-14"))


def test_weights_cannot_be_named_for_a_folder(folder: Path) -> None:
    assert "leave it null" in refusal(str(folder), "openai")
    assert "leave it null" in refusal("hf-hub:somebody/something", "openai")


def test_a_missing_folder_and_an_empty_one_are_errors_that_name_them(tmp_path: Path) -> None:
    missing = refusal(str(tmp_path / "missing"))
    assert str(tmp_path / "missing") in missing and "open_clip_config.json" in missing
    assert f"{tmp_path} holds no open_clip_config.json" in refusal(str(tmp_path))


def test_a_folder_without_weights_is_no_random_model(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "open_clip_model.safetensors").unlink()
    assert "bare holds no weights in safetensors" in refusal(str(bare))


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_config.json", "tokenizer_config.json"])
def test_a_damaged_folder_is_an_error_that_names_it(folder: Path, tmp_path: Path, file: str) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / file).write_bytes(b"{nothing")
    assert f"{damaged} cannot be loaded" in refusal(str(damaged))


def bomb(file: Path) -> Path:
    """A checkpoint that makes the file `exploded` when it is loaded."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (file.with_name("exploded").touch, ())

    torch.save({"state_dict": Bomb()}, file)
    return file


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_model.pth", "model.ckpt"])
def test_a_pickle_in_a_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "open_clip_model.safetensors").unlink()
    bomb(pickled / name)
    assert "holds no weights in safetensors" in refusal(str(pickled))
    assert not (pickled / "exploded").exists()


def test_a_pickle_from_the_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model has no safetensors, open_clip fetches a pickle and gives it to torch."""
    file = bomb(tmp_path / "open_clip_pytorch_model.bin")
    fetched = open_clip.factory.load_state_dict
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", lambda *_, **__: fetched(str(file)))
    load = torch.load
    assert "are a pickle, and none is loaded" in refusal("ViT-L-14", "openai")
    assert not (tmp_path / "exploded").exists() and torch.load is load


def test_weights_that_give_no_numbers_are_an_error(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = load_file(broken / "open_clip_model.safetensors")
    weights["visual.proj"].fill_(float("nan"))
    save_file(weights, broken / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        ClipModel(str(broken), device="cpu").encode_images(images(1))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What open_clip is asked for, by a machine whose network is down."""
    calls: list[dict[str, Any]] = []

    def create(source: str, pretrained: str | None, **options: Any) -> Any:
        calls.append({"source": source, "pretrained": pretrained, **options})
        logging.error("as open_clip does, before it raises")
        raise RuntimeError("Failed to download weights with token hf_secret")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    yield calls


def test_without_a_network_the_message_says_what_to_run(
    asked: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    for name, pretrained in (("ViT-L/14", "openai"), ("hf-hub:somebody/something", None)):
        message = refusal(name, pretrained)
        assert name in message and "typecast fetch STUDY" in message and "secret" not in message
    assert [call["source"] for call in asked] == ["ViT-L-14", "hf-hub:somebody/something"]
    assert all(call["weights_only"] for call in asked)
    assert not caplog.records, "one message, not two"


def test_weights_trained_with_another_activation_are_loaded_with_it(asked: list[dict[str, Any]]) -> None:
    """OpenAI's weights need QuickGELU; open_clip only warns, and every embedding would be wrong."""
    refusal("ViT-L-14", "openai")
    refusal("ViT-L-14", "laion2b_s32b_b82k")
    assert [call["force_quick_gelu"] for call in asked] == [True, False]


def test_names_are_fit_for_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = shutil.copytree(folder, tmp_path / "my own, clip")
    assert ClipModel(str(odd), device="cpu").name == "my-own-clip"
    monkeypatch.chdir(odd)
    assert ClipModel(".", device="cpu").name == "my-own-clip"
    monkeypatch.setattr("classifiers.clip.EMBEDDED", folder)
    embedded = ClipModel("embedded", device="cpu")
    assert embedded.name == "embedded" and embedded.folder == folder
    assert ZeroShot(embedded, [SHAPES], threshold=0.5).name == "embedded-zero_shot"


def test_a_confusion_file_is_json_that_a_person_can_read(counted: dict[str, Any], tmp_path: Path) -> None:
    save_confusion(counted, tmp_path / CONFUSION)
    entry = json.loads((tmp_path / "confusion.json").read_text())["shape"]
    assert entry["levels"] == list(SHAPES.levels)
    assert (entry["threshold"], entry["pictures"], entry["wordings"]) == (0.6, "waves", digest_of(SHAPES))
