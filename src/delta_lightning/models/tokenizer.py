"""A tokenizer of bytes: every text is its UTF-8 bytes, so any Unicode text round-trips and nothing needs training."""

from __future__ import annotations

from typing import Any

PAD, EOS = "<|pad|>", "<|eos|>"
PAD_ID, EOS_ID = 0, 1
NUM_SPECIAL = 2
VOCABULARY = 256 + NUM_SPECIAL


def byte_tokenizer() -> Any:
    """A `transformers` tokenizer with pad = 0, end of sequence = 1 and byte b = b + 2.

    A text that spells a special token is encoded as the bytes it is made of, never as that token.
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {PAD: PAD_ID, EOS: EOS_ID} | {char: byte + NUM_SPECIAL for byte, char in enumerate(_byte_characters())}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def _byte_characters() -> list[str]:
    """The printable character by which `tokenizers` writes each byte: itself where it prints, else from U+0100 upwards."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]
