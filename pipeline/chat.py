"""Questions -> answers by a chat model on this machine: the only door to the language models of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.progress import progress

REASON_LENGTH = 300


class ChatModel:
    """Any causal language model with a chat template, in safetensors, without remote code."""

    def __init__(self, path: str, revision: str | None = None) -> None:
        """Load a folder or the name of a hub model. `revision` is a branch, tag or commit of the latter."""
        import torch
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        transformers.utils.logging.disable_progress_bar()
        here = Path(path).expanduser()
        if here.is_dir() and revision:
            raise ModelError(
                f"revision: {revision!r} names a version on the hub, and {path} is a folder; leave it null"
            )
        source = str(here) if here.is_dir() else path
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.bfloat16 if device == "cuda" else torch.float32,
            )
        except Exception as error:  # whatever a folder, a cache or a network does not have
            said = type(error).__name__
            if here.is_dir():  # the hub's own words may hold a token: none is kept
                said = (str(error).strip().splitlines() or [said])[0][:REASON_LENGTH]
            raise ModelError(
                f"model: {path!r} cannot be loaded as a chat model ({said}); the right answers are: a folder with "
                "config.json, a tokenizer and safetensors, or the name of such a model on the hub"
            ) from None
        if not self._tokenizer.chat_template:
            raise ModelError(f"model: {path!r} is no chat model: its tokenizer has no chat template")
        self._model = model.eval().to(device)
        self.made_by = f"{path}@{_digest(here) if here.is_dir() else _commit(path, revision)}"
        """The model and its commit on the hub, or the sha256 of a folder's weights."""
        # of its own settings only where an answer ends: the others are for sampling. Nothing is padded
        end = model.generation_config.eos_token_id
        end = self._tokenizer.eos_token_id if end is None else end
        self._model.generation_config = GenerationConfig(do_sample=False, eos_token_id=end, pad_token_id=0)
        self._ends = {end} if isinstance(end, int) else {*(end or ())}

    def answers(self, instruction: str, questions: Sequence[str], *, max_new_tokens: int) -> list[str | None]:
        """The most probable answer to each question, token by token, each asked alone: a neighbour changes nothing.

        `None` of an answer that had not ended after `max_new_tokens`. The instruction stands before the question: not
        every chat template knows a system's part.
        """
        import torch

        found: list[str | None] = []
        with torch.inference_mode(), progress("rewriting", total=len(questions), unit="prompts") as advance:
            for question in questions:
                said = [{"role": "user", "content": f"{instruction}\n\n{question}"}]
                asked = self._tokenizer.apply_chat_template(
                    said, add_generation_prompt=True, return_tensors="pt", return_dict=True
                ).to(self._model.device)
                written = self._model.generate(**asked, max_new_tokens=max_new_tokens)
                answer = written[0, asked["input_ids"].shape[1] :]
                ended = int(answer[-1]) in self._ends
                found.append(str(self._tokenizer.decode(answer, skip_special_tokens=True)) if ended else None)
                advance(1, "")
        return found


def _commit(name: str, revision: str | None) -> str:
    """The commit of a hub model that was just loaded, from where it lies in the cache."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else str(revision)


def _digest(folder: Path) -> str:
    """The sha256 over the names and contents of a folder's weights and configuration."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json")):
        with file.open("rb") as content:
            total.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
