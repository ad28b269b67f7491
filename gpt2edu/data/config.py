"""One object holds the settings that say what a run reads."""

# Made by tools/book.py from ../../book/easy/ch05b_config.md: edit that, then `make book`.

# %% auto #0
__all__ = ['N_STORIES', 'TOKENIZER_CHARS', 'GPT2_VAL_TOKENS', 'MOST_IDS', 'check_vocab',
           'check_names', 'DataConfig']

# %% ../../nbs/easy/ch05b_config.ipynb #05e69c8a
from dataclasses import dataclass

from gpt2edu.text.files import EOT

N_STORIES = 24_000  # documents of the embedded corpus: two million tokens
TOKENIZER_CHARS = 1_000_000  # length of the text that a tokenizer is trained on
GPT2_VAL_TOKENS = 10_485_760  # what GPT-2's presets validate on, 20 steps of 524,288
MOST_IDS = 2**16  # as MAX_VOCAB of data.shards, which needs NumPy; a test compares them


def check_vocab(vocab_size: int):
    "Refuse a vocabulary whose ids do not fit into a shard. ValueError, one line."
    if vocab_size > MOST_IDS:
        raise ValueError(
            f"vocab_size={vocab_size} must be {MOST_IDS:,} or less: a shard holds 16 bits for "
            "an id; for example 1024"
        )


def check_names(dataset: tuple[str, ...]):
    "Refuse a name that cannot be written down in a manifest. ValueError, one line."
    for name in dataset:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"dataset={name!r} is not a name in UTF-8, so a manifest cannot hold it; "
                "rename the file"
            ) from None


@dataclass(frozen=True)
class DataConfig:
    "What a run reads: the dataset, its tokenizer, and where its shards are kept."

    # what to read

    # stories, pydocs, tinyshakespeare, or files: .txt .jsonl .parquet
    dataset: tuple[str, ...] = ("stories",)
    # a folder of .bin or .npy shards, used as they are instead of a dataset
    shards: str | None = None
    text_key: str = "text"  # field of a .jsonl line, column of a .parquet file
    # a line of a .txt file that holds this and nothing else ends a document; "" for none
    separator: str = EOT
    # train (learn one from the dataset), gpt2, or the path of a tokenizer.json
    tokenizer: str = "train"
    # ids of a tokenizer that is trained; the model's vocabulary is the next multiple of 128
    vocab_size: int = 1024
    data_dir: str = "data"  # where prepared shards are kept
    val_tokens: int = 32_768  # tokens to validate on

    def __post_init__(self):
        check_vocab(self.vocab_size)
        if not self.dataset or "" in self.dataset:
            raise ValueError(
                "dataset names nothing; expected stories, pydocs, tinyshakespeare or files"
            )
        check_names(self.dataset)
        if self.separator != "".join(self.separator.splitlines()).strip():
            raise ValueError(
                f"separator={self.separator!r} must be one line without spaces around it; "
                f"for example {EOT}"
            )
