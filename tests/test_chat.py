"""The arm `llm`: what a chat model writes is the most probable, made once, kept in the run, and held to its concept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import prompt_sets
from pipeline import chat, line, stages
from pipeline.chat import ChatModel
from pipeline.errors import ModelError
from pipeline.mitigations import DROPPED, LEFT_ALONE, Llm, one_arm, one_line, tried
from pipeline.types import Prompt
from tests.conftest import fake_study
from tests.test_cli import typecast
from tests.test_mitigations import prompt, sent

ENDS = {0, 36}
"""`</s>`, and a letter that the random model writes soon."""
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0, "<user>": 1, "<assistant>": 2} | {letter: i for i, letter in enumerate(letters, 3)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", additional_special_tokens=["<user>", "<assistant>"]
    )
    wrapped.chat_template = template
    return wrapped


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random chat model of a few thousand weights, whose own settings ask for sampling."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=2048, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    folder = tmp_path / "chat"
    made = LlamaForCausalLM(config)
    for weights in made.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    made.generation_config.update(do_sample=True, temperature=0.7, top_p=0.8, eos_token_id=[*ENDS])
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def greedy(folder: Path, text: str, n: int) -> str | None:
    """The most probable token again and again, by hand, up to one that ends an answer; `None` where none is among n."""
    model, words = LlamaForCausalLM.from_pretrained(folder).eval(), tokenizer()
    ids = words(f"<user>{text}<assistant>", return_tensors="pt", add_special_tokens=False).input_ids
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(n):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
            if int(ids[0, -1]) in ENDS:
                return str(words.decode(ids[0, start:], skip_special_tokens=True))
    return None


def test_an_answer_is_the_most_probable_one_whatever_was_asked_beside_it(model: Path) -> None:
    asked = ["a photo of a nurse", "a photo of a software developer", "x"]
    found = ChatModel(str(model)).answers("Rewrite.", asked, max_new_tokens=12)
    assert found == [greedy(model, f"Rewrite.\n\n{question}", 12) for question in asked]
    assert len(set(found)) > 1 and None in found


def test_a_run_asks_once_keeps_what_was_written_and_goes_on_without_the_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ["none", {"llm": {"model": str(model), "max_new_tokens": 4}}]
    chosen = fake_study(arms=arms, images_per_prompt=2)
    run, study, planned = line.begin(chosen, tmp_path / "run")
    arm = planned.arms[1]
    assert isinstance(arm, Llm) and set(arm.rewrites) == {p.text for p in planned.prompts}
    assert arm.made_by.startswith(f"{model}@") and len(arm.made_by.split("@")[1]) == 64
    shard = planned.shards()[1]
    line.generate((run, study, planned), perceive=False)
    ended = set()
    for row in run.read_images(shard, ["prompt", "prompt_sent", "drawn", "concept"]).to_pylist():
        answer = greedy(model, f"{arm.instruction}\n\n{row['prompt']}", 4)
        ended.add(answer is not None)
        assert row["prompt_sent"] == (row["prompt"] if answer is None else one_line(answer))
        assert row["drawn"] == (f"{LEFT_ALONE}the answer was cut off at max_new_tokens" if answer is None else DROPPED)
    assert ended == {True, False}

    monkeypatch.setattr(chat, "ChatModel", None)  # a run that continues does not open it
    assert line.begin(chosen, tmp_path / "run")[2] == planned
    assert line.resume(tmp_path / "run")[2] == planned
    grown = chosen.model_copy(update={"images_per_prompt": 3})
    assert line.begin(grown, tmp_path / "run")[2].arms == planned.arms


def test_another_instruction_is_another_study(model: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": str(model), "max_new_tokens": 2}
    opened = line.begin(fake_study(arms=[{"llm": asked}], images_per_prompt=1), tmp_path / "run")
    line.generate(opened, perceive=False)
    with pytest.raises(stages.RunError, match="arms are"):
        line.begin(fake_study(arms=[{"llm": asked | {"instruction": "Be fair."}}]), tmp_path / "run")


@pytest.mark.parametrize(
    ("written", "text", "drawn"),
    [
        ("A portrait of a NURSE of any gender", "A portrait of a NURSE of any gender", ""),
        ("Two nurses at work", "Two nurses at work", ""),
        ("a nursery in the morning", "a nursery in the morning", DROPPED),
        ("a person at work", "a person at work", DROPPED),
        ("", "a photo of a nurse", f"{LEFT_ALONE}the model wrote nothing"),
        (None, "a photo of a nurse", f"{LEFT_ALONE}the answer was cut off at max_new_tokens"),
    ],
)
def test_a_rewrite_that_drops_the_concept_is_noticed(written: str | None, text: str, drawn: str) -> None:
    assert sent("llm", model="m", rewrites={"a photo of a nurse": written}) == [(text, drawn)]


@pytest.mark.parametrize(
    ("concept", "written", "drawn"),
    [
        ("secretary", "Secretaries at work", ""),
        ("salesman", "two salesmen of any age", ""),
        ("truck driver", "a truck-driver", ""),
        ("hair-dresser", "a hair dresser", ""),
        ("truck driver", "a truck", DROPPED),
    ],
)
def test_a_concept_is_there_in_any_number_and_with_a_hyphen_or_a_space(concept: str, written: str, drawn: str) -> None:
    asked = prompt(concept, f"a photo of a {concept}")
    assert sent("llm", asked, model="m", rewrites={asked.text: written}) == [(written, drawn)]


def test_what_a_prompt_does_not_say_cannot_be_dropped() -> None:
    """Nine of ten prompts of `identities` have the concept `person` and name a woman or a man instead."""
    for name in ("identities", "dalleval", "fair_diffusion"):
        prompts = prompt_sets.load(name).prompts
        arm = Llm(name="llm", model="m", rewrites={p.text: p.text for p in prompts})
        assert {arm.rewrite(p, 0, np.random.default_rng(0)).drawn for p in prompts} == {""}


def test_what_is_not_rewritten_yet_says_so() -> None:
    assert sent("llm", model="m") == [("a photo of a nurse", f"{LEFT_ALONE}not rewritten yet")]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ('\n\n "A nurse." \nand more', "A nurse."),
        ("“A nurse”", "A nurse"),
        ("  \n", ""),
        ("a man's nurse", "a man's nurse"),
        ("Here is the new prompt for a nurse:\n\na nurse at work", "a nurse at work"),
        ("A nurse:", "A nurse:"),
        ("<think>\nWho is\na nurse?\n</think>\n\nA nurse", "A nurse"),
        ("Who is a nurse?</think>A nurse", "A nurse"),  # a template may open the thought
        ("<think>A nurse", ""),
    ],
)
def test_of_an_answer_the_first_line_that_says_something_is_sent(answer: str, line: str) -> None:
    assert one_line(answer) == line


def test_arms_try_asks_the_model(model: Path) -> None:
    found = tried("llm", "a photo of a mechanic", (f"model={model}", "max_new_tokens=6"))
    instruction = one_arm("llm", {"model": "m"}).parameters["instruction"]
    answer = greedy(model, f"{instruction}\n\na photo of a mechanic", 6)
    assert answer and [one.text for one in found] == [one_line(answer)] * 10


def test_dropped_concepts_are_counted_beside_the_verdict(model: Path, tmp_path: Path) -> None:
    arms = ["none", {"llm": {"model": str(model), "max_new_tokens": 8}}]
    opened = line.begin(fake_study(arms=arms, images_per_prompt=5, reference=[]), tmp_path / "run")
    line.generate(opened, perceive=True)
    line.estimate(opened)
    (entry, *_) = stages.read_json(tmp_path / "run" / "summary.json")["arms"]
    assert sum(entry["left_alone"].values()) == len(opened[2].prompts) * 5
    assert DROPPED in entry["left_alone"]


def test_what_is_no_chat_model_is_one_message(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the right answers are: a folder"):
        ChatModel(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="leave it null"):
        ChatModel(str(model), "main")
    tokenizer(None).save_pretrained(model)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has no chat template"):
        ChatModel(str(model))
    study = tmp_path / "s.yaml"
    study.write_text(
        f"prompt_sets: [emoji_occupations]\nmodel: {{path: fake}}\nperceive: {{clip: fake}}\n"
        f"arms: [none, llm: {{model: {tmp_path / 'no'}}}]\n"
    )
    done = typecast("run", str(study), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "cannot be loaded as a chat model" in done.stderr and "Traceback" not in done.stderr


def test_a_refusal_of_the_hub_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words may hold a token."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("401 for a token of this account: SeCrEt")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"cannot be loaded as a chat model \(OSError\)") as caught:
        ChatModel("nobody/nothing")
    assert "SeCrEt" not in str(caught.value)


def test_prompts_are_asked_once_each() -> None:
    asked = [Prompt(prompt_set="s", concept="nurse", template=t, text="a photo of a nurse") for t in "ab"]
    done = Llm(name="llm", model="m", rewrites={"a photo of a nurse": "a nurse"})
    assert done.prepared(asked) is done


def test_what_an_arm_needs_is_fetched_with_the_rest(model: Path, tmp_path: Path) -> None:
    line.fetch(fake_study(arms=["none", {"llm": {"model": str(model)}}]))
    with pytest.raises(ModelError, match="cannot be loaded as a chat model"):
        line.fetch(fake_study(arms=["none", {"llm": {"model": str(tmp_path / "no")}}]))
