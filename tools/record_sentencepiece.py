"""Record what SentencePiece makes of texts, for tests that do not have it.

    pip install sentencepiece && python -m tools.record_sentencepiece

Writes `tests/fixtures/sentencepiece.json`: a small BPE model with byte fallback, as Llama 2 and
Mistral have, and the tokens of texts in many scripts, with and without the space in front.
"""

import io
import json
from typing import Any

import sentencepiece
from tests.head.test_gguf_language import FIXTURE, SCRIPTS

# In the order of the format: normal, unknown, control, (user defined), (unused), byte.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def kind(model: sentencepiece.SentencePieceProcessor, id: int) -> int:
    if model.IsUnknown(id):
        return UNKNOWN
    if model.IsControl(id):
        return CONTROL
    return BYTE if model.IsByte(id) else NORMAL


def train(texts: list[str], prefix: bool) -> sentencepiece.SentencePieceProcessor:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type="bpe",
        vocab_size=520,
        byte_fallback=True,
        add_dummy_prefix=prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def main() -> None:
    # Newlines are no part of what it trains on, and special tokens are not its business.
    texts = [text for name, text in SCRIPTS.items() if name != "specials"]
    # The rest of the scripts falls back to bytes.
    known = [SCRIPTS[name] for name in ("Latin", "Cyrillic", "Greek", "code", "whitespace")]
    lines = [line for text in known for line in text.splitlines() if line] * 3
    record: dict[str, Any] = {"sentencepiece": sentencepiece.__version__, "texts": texts}
    for name, prefix in (("with_prefix", True), ("without_prefix", False)):
        model = train(lines, prefix)
        ids = range(model.GetPieceSize())
        record[name] = {
            "pieces": [model.IdToPiece(id) for id in ids],
            "scores": [model.GetScore(id) for id in ids],
            "kinds": [kind(model, id) for id in ids],
            "ids": [model.EncodeAsIds(text) for text in texts],
        }
    FIXTURE.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{FIXTURE}: SentencePiece {sentencepiece.__version__}")


if __name__ == "__main__":
    main()
