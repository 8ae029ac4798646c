"""Train the demo chat model: write the corpus, make the tokenizer, train, export.

    python -m tools.train_demo --output src/gangline/demo_model

Needs PyTorch, tokenizers and safetensors; the program itself needs no PyTorch. One seed, one
fixed number of steps and one schedule make the run repeatable. The exported folder is in the
Hugging Face format (Llama architecture, bfloat16).
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from tools import demo_cases
from tools import demo_corpus as corpus
from tools.demo_network import SHORT, Model, Muon, Shape
from tools.demo_text import is_held_out_word

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
DIGIT = r"\p{N}"
BLANK = "Ġ"  # how the byte-level alphabet writes a blank
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Recipe:
    """How the model is trained. `batches` are (sequences, length, share of the steps)."""

    seed: int = 5454
    steps: int = 5400
    warmup: int = 40
    decay_from: float = 0.4
    matrix_rate: float = 0.02
    vector_rate: float = 0.004
    momentum: float = 0.95
    batches: tuple[tuple[int, int, float], ...] = (
        (40, 128, 0.70),
        (20, 256, 0.22),
        (3, 1024, 0.08),
    )


# Tokenizer -----------------------------------------------------------------------------------


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Digits stand alone; the rest is cut into words as GPT-2 does and mapped to bytes."""
    digits = pre_tokenizers.Split(Regex(DIGIT), behavior="isolated")
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def common_words(count: int, seed: int) -> list[str]:
    """The words whose being one token shortens the corpus most, as byte-level strings.

    Words that people may want spelled, and held-out ones, are left to their letters.
    """
    cutter = pre_tokenizer()
    saved: Counter[str] = Counter()
    rng = random.Random(seed)
    for _ in range(4000):
        for message in corpus.conversation(rng, turns=10):
            for word, _ in cutter.pre_tokenize_str(message["content"]):
                saved[word] += len(word) - 1
    for role in ROLES:
        saved[role] += 10**9
    for word in list(saved):
        letters = word.removeprefix(BLANK).lower()
        if letters in corpus.CONTENT_WORDS or is_held_out_word(letters):
            del saved[word]
    return [word for word, _ in saved.most_common(count)]


def drill_words(tokenizer: Tokenizer) -> list[str]:
    """Words that are one token: the model cannot see their letters and has to learn them."""
    tokens = (token.removeprefix(BLANK) for token in tokenizer.get_vocab())
    return sorted({token for token in tokens if token.isascii() and token.isalpha()
                   and len(token) > 1})  # fmt: skip


def make_tokenizer(vocab_size: int, seed: int) -> Tokenizer:
    """All bytes, then whole common words, then three special tokens.

    There are no merges: a word is one token if it is common (`ignore_merges`), else its letters
    are tokens. So the model can spell and reverse words that it never saw.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = common_words(vocab_size - len(alphabet) - 3, seed)
    vocabulary = {token: number for number, token in enumerate([*alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (PAD, START, END)])
    assert tokenizer.get_vocab_size() == vocab_size, "the corpus has too few common words"
    return tokenizer


# Data ----------------------------------------------------------------------------------------


def render(messages: list[corpus.Message]) -> str:
    """What the chat template renders, without the generation prompt."""
    return "".join(f"{START}{row['role']}\n{row['content']}{END}\n" for row in messages)


class Batches:
    """Endless batches: each row is one conversation, cut at the length of the batch."""

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.rng = random.Random(recipe.seed)
        self.makers = corpus.makers(drill_words(tokenizer))
        self.start, self.end = (tokenizer.token_to_id(text) for text in (START, END))
        self.assistant = tokenizer.token_to_id("assistant")

    def row(self, length: int) -> list[int]:
        """The ids of one conversation, `length` + 1 of them."""
        ids: list[int] = []
        texts: list[corpus.Message] = []
        for message in corpus.conversation(self.rng, self.makers):
            texts.append(message)
            if message["role"] == "assistant":
                ids += self.tokenizer.encode(render(texts)).ids
                texts = []
            if len(ids) > length:
                return ids[: length + 1]
        raise AssertionError("a conversation has no end")

    def answered(self, ids: list[int]) -> list[bool]:
        """Which ids the model has to produce: the answers and the token that ends them."""
        inside, mask = False, []
        for position, token in enumerate(ids):
            mask.append(inside)
            if token == self.end:
                inside = False
            elif position >= 2 and ids[position - 2] == self.start:
                inside = ids[position - 1] == self.assistant
        return mask

    def batch(self, count: int, length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets; a target of -100 is not learned."""
        rows = [self.row(length) for _ in range(count)]
        ids, masks = torch.tensor(rows), torch.tensor([self.answered(row) for row in rows])
        return ids[:, :-1], ids[:, 1:].masked_fill(~masks[:, 1:], -100)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shares = [share for _, _, share in self.recipe.batches]
        while True:
            ((count, length, _),) = self.rng.choices(self.recipe.batches, shares)
            yield self.batch(count, length)


# Training ------------------------------------------------------------------------------------


def rate_factor(step: int, recipe: Recipe) -> float:
    """Rises over the warm-up, stays, then falls in a straight line to zero at the last step."""
    decay_start = recipe.decay_from * recipe.steps
    falling = (recipe.steps - step) / (recipe.steps - decay_start)
    return min(1.0, (step + 1) / recipe.warmup, falling)


@torch.no_grad()
def exact_share(model: Model, batches: Batches, cases: list[demo_cases.Case]) -> float:
    """How many answers the model would give letter for letter, all tokens guessed in one pass."""
    right = 0
    for at in range(0, len(cases), 64):
        rows = []
        for case in cases[at : at + 64]:
            text = f"{case.exact}." if case.category == "sums" else str(case.exact)
            answer: corpus.Message = {"role": "assistant", "content": text}
            rows.append(batches.tokenizer.encode(render([*case.messages, answer])).ids)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        masks = [batches.answered(row) + [False] * (longest - len(row)) for row in rows]
        asked = torch.tensor(masks)[:, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            guessed = model(ids[:, :-1]).argmax(-1)
        right += int(((guessed == ids[:, 1:]) | ~asked).all(1).sum())
    return right / len(cases)


def progress(model: Model, batches: Batches) -> str:
    """Held-out accuracy of the parts that generalise."""
    cases = demo_cases.held_out_cases(sums=400)
    names = ("sums", "spelling", "reversing")
    shares = (exact_share(model, batches, [c for c in cases if c.category == n]) for n in names)
    return ", ".join(f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True))


def train(shape: Shape, recipe: Recipe, tokenizer: Tokenizer, output: Path, *, fuse: bool) -> None:
    """Run the recipe, print how it goes, and export now and then and at the end."""
    torch.manual_seed(recipe.seed)
    model = Model(shape)
    matrices = [value for value in model.layers.parameters() if value.ndim == 2]
    others = [value for value in model.parameters() if all(value is not m for m in matrices)]
    muon = Muon(matrices, recipe.momentum)
    adam = torch.optim.AdamW(others, lr=recipe.vector_rate, betas=(0.9, 0.95), weight_decay=0.0)
    loss_of = torch.compile(model.loss, dynamic=False) if fuse else model.loss
    batches, started, n_tokens = Batches(tokenizer, recipe), time.monotonic(), 0
    for step, (ids, targets) in zip(range(recipe.steps), batches, strict=False):
        factor = rate_factor(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            loss = (loss_of if ids.shape[1] <= SHORT else model.loss)(ids, targets)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = recipe.vector_rate * factor
        muon.step(recipe.matrix_rate * factor)
        adam.step()
        model.zero_grad()
        n_tokens += ids.numel()
        seconds = time.monotonic() - started
        if step % 20 == 0:
            print(f"{step:5d} loss {loss.item():.3f} {n_tokens / seconds:6.0f} tokens/s "
                  f"{seconds:5.0f} s", flush=True)  # fmt: skip
        if step % 200 == 199:
            print(f"{step + 1:5d} {progress(model, batches)}", flush=True)
            export(model, tokenizer, output)
    export(model, tokenizer, output)
    print(f"trained on {n_tokens} tokens in {time.monotonic() - started:.0f} s, "
          f"{time.process_time():.0f} s of processor time")  # fmt: skip
    print(f"held out, bfloat16: {progress(model, batches)}")


# Export --------------------------------------------------------------------------------------

CHAT_TEMPLATE = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{% if message.content is string %}
{{ message.content }}<|im_end|>
{% else %}
{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""


def config_files(shape: Shape, tokenizer: Tokenizer) -> dict[str, dict[str, object]]:
    """The JSON files of the checkpoint format."""
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    ends: dict[str, object] = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": pad}
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **ends,
    }
    return {
        "config.json": config,
        "generation_config.json": {"do_sample": True, "temperature": 0.5, "top_p": 0.9, **ends},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.positions,
            "eos_token": END,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
        },
    }


def replace_file(path: Path, text: str) -> None:
    """Write so that a reader sees the old file or the new one, never half of one."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def export(model: Model, tokenizer: Tokenizer, output: Path) -> None:
    """Write the folder, file by file, each in one move. The model card is kept by hand."""
    output.mkdir(parents=True, exist_ok=True)
    for name, content in config_files(model.shape, tokenizer).items():
        replace_file(output / name, json.dumps(content, indent=2) + "\n")
    replace_file(output / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    replace_file(output / "chat_template.jinja", CHAT_TEMPLATE)
    draft = output / ".model.safetensors.draft"
    save_file(model.checkpoint(), draft, metadata={"format": "pt"})
    draft.replace(output / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true", help="no C++ compiler needed; slower")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape, recipe = Shape(), Recipe(seed=options.seed, steps=options.steps)
    tokenizer = make_tokenizer(shape.vocab, recipe.seed)
    train(shape, recipe, tokenizer, options.output, fuse=not options.no_compile)


if __name__ == "__main__":
    main()
