"The law of chapter 27: its fit on laws that are known, its errors, and the record that it reads."

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scaling
from gpt2edu.model.gpt import IGNORE
from gpt2edu.plan.scaling import STARTS, Law, bootstrap, fit, improve, misfit
from gpt2edu.text.tokenizer import Tokenizer

TRUE = Law(E=0.62, A=60.0, alpha=0.5, B=8000.0, beta=0.7)
SIZES = np.array([2e4, 5e4, 1e5, 2e5, 4e5])
TOKENS = np.array([2.5e5, 5e5, 1e6, 2e6, 4e6])
N, D = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS))
RECORD = Path(scaling.LOG)


def test_a_law_without_noise_is_found_again():
    for true in (TRUE, Law(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)):  # the published one
        found = fit(N, D, true.loss(N, D), best=3)
        assert np.allclose(
            [found.E, found.alpha, found.beta], [true.E, true.alpha, true.beta], rtol=1e-3
        )
        assert np.allclose(found.loss(1e6, 1e7), true.loss(1e6, 1e7), rtol=1e-5)


def test_one_broken_run_does_not_move_the_law():
    "A square instead of the Huber loss would give it all the weight."
    losses = TRUE.loss(N, D)
    losses[7] *= 1.5
    found = fit(N, D, losses, best=3)
    assert abs(found.E - TRUE.E) < 0.01
    squares = fit(N, D, losses, best=3, delta=10.0)
    assert abs(squares.E - TRUE.E) > 3 * abs(found.E - TRUE.E)


def test_the_misfit_is_that_of_its_definition_and_is_summed():
    p = np.array([0.5, 0.7, np.log(60), np.log(8000), np.log(0.62)])
    off = np.full(len(N), 5e-4)
    off[3] = 0.1  # beyond delta: a straight line
    want = (len(N) - 1) * 5e-4**2 / 2 + 1e-3 * (0.1 - 5e-4)
    assert misfit(p[None], N, D, TRUE.loss(N, D) * np.exp(-off))[0] == pytest.approx(want)
    assert STARTS.shape == (4500, 5)
    value, found = improve(p + 0.01, N, D, TRUE.loss(N, D))
    assert value < 1e-10 and np.allclose(found, p, atol=1e-3)


def test_the_error_is_about_that_of_repeated_experiments():
    rng = np.random.default_rng(0)
    start = np.array([[0.5, 0.7, np.log(60), np.log(8000), np.log(0.62)]])

    def runs():
        return TRUE.loss(N, D) * np.exp(rng.normal(0, 0.01, len(N)))

    repeated = np.std([fit(N, D, runs(), start).E for _ in range(12)])
    losses = runs()
    law = fit(N, D, losses, start)
    resampled = np.std([other.E for other in bootstrap(law, N, D, losses, times=12)])
    assert 0.4 < resampled / repeated < 2.5
    again = bootstrap(law, N, D, losses, times=3)
    assert again == bootstrap(law, N, D, losses, times=3) != bootstrap(law, N, D, losses, 3, seed=1)


@pytest.mark.parametrize("flops", [1e10, 1e12, 1e15])
def test_the_frontier_is_the_bottom_of_its_valley(flops):
    n, d = TRUE.frontier(flops)
    assert 6 * n * d == pytest.approx(flops)
    for factor in (0.9, 1.1):
        assert TRUE.loss(n * factor, d / factor) > TRUE.loss(n, d)


def test_what_cannot_be_fitted_is_refused_in_one_line():
    losses = TRUE.loss(N, D)
    with pytest.raises(ValueError, match=r"^got 4 runs for the five numbers of a law; train more$"):
        fit(N[:4], D[:4], losses[:4])
    for broken in (np.nan, np.inf, 0.0):
        wrong = losses.copy()
        wrong[2] = broken
        with pytest.raises(
            ValueError, match=r"^losses: expected 25 numbers above 0; leave the runs"
        ):
            fit(N, D, wrong)
    with pytest.raises(ValueError, match=r"^n: expected 25 numbers above 0"):
        fit(N[:-1], D, losses)


# the script


def test_rows_hold_every_story_once_and_none_is_cut():
    texts = [s.text for s in scaling.stories(300, seed=5)]
    tokenizer = Tokenizer.train(texts, 600, "stories")
    ids = tokenizer.encode_batch(texts)
    rows = scaling.pack(ids, tokenizer.eot)
    assert rows.shape[1] == scaling.T + 1 and (rows[:, 0] == tokenizer.eot).all()
    found = []
    for row in rows.tolist():
        row = [i for i in row if i != IGNORE]
        assert row[-1] == tokenizer.eot
        found += [s for s in tokenizer.decode(row).split("<|endoftext|>") if s]
    assert sorted(found) == sorted(texts)
    assert (rows != IGNORE).mean() > 0.8  # of the places hold a token
    x, y = scaling.batch(rows)
    assert (y[x == tokenizer.eot] != IGNORE).sum() == len(texts)  # each story's first token counts
    assert (y == tokenizer.eot).sum() == len(texts)  # and its end


def test_a_trunk_that_was_left_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "VAL_STORIES", 20)
    monkeypatch.setattr(scaling, "CHUNK", 500)
    info = scaling.write_data(tmp_path, 20_000)
    assert 0.5 < info["floor"] < 0.8
    job = {"size": (1, 1, 8), "lr": 0.01}
    first = scaling.train(scaling.job(tokens=10_000, **job), tmp_path, info["vocabulary"])
    kept = scaling.train(scaling.job(tokens=20_000, **job), tmp_path, info["vocabulary"])
    for trunk in tmp_path.glob("trunk*"):
        trunk.unlink()
    whole = scaling.train(scaling.job(tokens=20_000, **job), tmp_path, info["vocabulary"])
    assert kept["loss"] == whole["loss"] < first["loss"]
    assert whole["seen"] == pytest.approx(20_000, rel=0.1)


def test_the_page_shows_the_record():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    page = Path(scaling.HERE).parent / "book" / "tough" / "ch27_scaling.md"
    assert scaling.page(record) in page.read_text(encoding="utf-8")
    grid = [r for r in record["runs"] if r["kind"] == "grid"]
    assert len({(*r["size"], r["tokens"]) for r in grid}) >= 30
    assert all(r["loss"] > record["floor"] for r in record["runs"])
