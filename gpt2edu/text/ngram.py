"""A language model made of nothing but counts, and the number that says how good it is."""

# Made by tools/book.py from ../../book/easy/ch02_prediction.md: edit that, then `make book`.

# %% auto #0
__all__ = ['NGram', 'bigram_loss', 'perplexity', 'bits_per_byte']

# %% ../../nbs/easy/ch02_prediction.ipynb #b00d7af3
import math

import numpy as np

# %% ../../nbs/easy/ch02_prediction.ipynb #79053e0b
class NGram:
    "Predict the next token from the last n - 1 by counting; thin counts lean on shorter n-grams."

    def __init__(
        self,
        n: int,  # tokens in an n-gram: 1 unigram, 2 bigram, 3 trigram
        vocab_size: int,  # V; ids are 0 … V - 1
        alpha: float = 1.0,  # pseudo-counts borrowed from the (n - 1)-gram; larger leans more
    ):
        if n < 1 or vocab_size < 1 or vocab_size**n >= 2**63:
            raise ValueError(
                f"n={n} with vocab_size={vocab_size} cannot be counted; "
                "n must be >= 1 and V**n < 2**63"
            )
        if not alpha > 0:
            raise ValueError(
                f"alpha={alpha} must be positive, or unseen n-grams get probability 0; try 1.0"
            )
        self.n = n
        self.vocab_size = vocab_size
        self.alpha = alpha
        # for k = 1 … n: codes of the k-grams seen, counts, codes of their histories, counts
        self.tables = []

    def _ids(self, ids):
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            raise ValueError(
                f"token ids run from {ids.min()} to {ids.max()}, but vocab_size={self.vocab_size}; "
                "use the tokenizer that made them"
            )
        return ids

    def _codes(self, ids, k):
        "Write each k-gram of ids as one number in base V."  # (N,) → (N - k + 1,)
        n_grams = max(len(ids) - k + 1, 0)
        codes = np.zeros(n_grams, dtype=np.int64)
        for j in range(k):
            codes = codes * self.vocab_size + ids[j : j + n_grams]
        return codes

    def fit(
        self,
        ids: np.ndarray,  # (N,) token ids
    ) -> "NGram":  # itself
        "Count all k-grams of ids for k = 1 … n."
        ids = self._ids(ids)
        self.tables = []
        for k in range(1, self.n + 1):
            codes, counts = np.unique(self._codes(ids, k), return_counts=True)  # sorted
            histories, starts = np.unique(codes // self.vocab_size, return_index=True)
            totals = np.add.reduceat(counts, starts) if len(starts) else counts
            self.tables.append((codes, counts, histories, totals))
        return self

    def token_probs(
        self,
        ids: np.ndarray,  # (N,) token ids
    ) -> np.ndarray:  # (N,) probability of each token, given the tokens before it
        "Say how likely each token of a text was."
        ids = self._ids(ids)
        probs = np.full(len(ids), 1 / self.vocab_size)
        for k, (codes, counts, histories, totals) in enumerate(self.tables, start=1):
            # the first k - 1 tokens have no such history and keep the shorter one
            seen = self._codes(ids, k)
            both = _look_up(codes, counts, seen)
            before = _look_up(histories, totals, seen // self.vocab_size)
            probs[k - 1 :] = (both + self.alpha * probs[k - 1 :]) / (before + self.alpha)
        return probs

    def next_probs(
        self,
        history: np.ndarray,  # (T,) token ids so far; only the last n - 1 are used
    ) -> np.ndarray:  # (V,) probability of every token
        "Say how likely each token is to come next."
        history = self._ids(history)
        V = self.vocab_size
        probs = np.full(V, 1 / V)
        for k, (codes, counts, _, _) in enumerate(self.tables, start=1):
            if len(history) < k - 1:
                break
            # the last k - 1 tokens as one number
            h = int(self._codes(history[len(history) - k + 1 :], k - 1)[0])
            lo, hi = np.searchsorted(codes, [h * V, (h + 1) * V])  # this history's row
            probs *= self.alpha
            probs[codes[lo:hi] - h * V] += counts[lo:hi]
            probs /= counts[lo:hi].sum() + self.alpha
        return probs

    def sample(
        self,
        n_tokens: int,  # how many to write
        rng: np.random.Generator,  # source of chance
        start: tuple | list | np.ndarray = (),  # ids to continue; returned at the front
    ) -> np.ndarray:  # (len(start) + n_tokens,) ids
        "Write tokens, each drawn from the probabilities given those before it."
        ids = list(start)
        for _ in range(n_tokens):
            ids.append(int(rng.choice(self.vocab_size, p=self.next_probs(ids[-self.n :]))))
        return np.array(ids, dtype=np.int64)

    def loss(
        self,
        ids: np.ndarray,  # (N,) token ids, N >= 2
    ) -> float:  # cross-entropy, nats/token
        "Average the surprise over every token but the first, which has nothing before it."
        if len(ids) < 2:
            raise ValueError(f"a loss needs at least 2 tokens, got {len(ids)}; give a longer text")
        return float(-np.log(self.token_probs(ids)[1:]).mean())


def _look_up(codes, counts, wanted):
    "Find the count of each wanted code in a sorted table; 0 where it is missing."
    if not len(codes):
        return np.zeros(len(wanted), dtype=np.int64)
    at = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
    return np.where(codes[at] == wanted, counts[at], 0)

# %% ../../nbs/easy/ch02_prediction.ipynb #329e821c
def bigram_loss(
    train_ids: np.ndarray,  # (N,) token ids to count
    val_ids: np.ndarray,  # (M,) token ids to predict, M >= 2
    vocab_size: int,  # V
) -> float:  # cross-entropy on val_ids, nats/token; always finite
    "Score the bigram model; a model that looks further back than one token must beat this loss."
    return NGram(2, vocab_size).fit(train_ids).loss(val_ids)

# %% ../../nbs/easy/ch02_prediction.ipynb #82f4841d
def perplexity(
    nats: float,  # cross-entropy, nats/token
) -> float:  # equally likely choices that would surprise as much
    "Turn a loss into a number of choices."
    return math.exp(nats)


def bits_per_byte(
    nats_per_token: float,  # cross-entropy
    n_tokens: int,  # tokens predicted
    n_bytes: int,  # bytes of UTF-8 text that these tokens spell
) -> float:  # bits needed per byte of text
    "Put losses of different tokenizers on one scale."
    if n_bytes < 1:
        raise ValueError(
            f"n_bytes={n_bytes} must be at least 1; count the text with len(text.encode())"
        )
    return nats_per_token * n_tokens / (math.log(2) * n_bytes)
