"""Draw the card that is shown where somebody shares a link to the site: book/site/card.png.

python tools/card.py    write it; 1200 x 630 pixels, from a stored log
"""

from pathlib import Path

import diagrams
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CARD = Path(__file__).resolve().parent.parent / "book" / "site" / "card.png"


def main():
    colour = diagrams.DARK
    points, done = diagrams.run()
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor=colour["ground"])
    fig.text(0.06, 0.80, "gpt2edu", size=54, weight="bold", color=colour["ink"])
    words = "Learn how GPT-2 works,\nand train one."
    fig.text(0.06, 0.55, words, size=34, color=colour["ink"], linespacing=1.3)
    claim = "You know the loss that no model can beat."
    fig.text(0.06, 0.43, claim, size=21, color=colour["warm"])
    fig.text(
        0.06, 0.08, "A course, a library and a trainer: one text", size=18, color=colour["muted"]
    )
    ax = fig.add_axes([0.62, 0.12, 0.33, 0.72], facecolor="none")
    ax.plot(*zip(*points, strict=True), color=colour["mark"], linewidth=4)
    ax.axhline(done["floor"], color=colour["warm"], linestyle="--", linewidth=2)
    ax.text(
        points[-1][0], done["floor"] - 0.42, "the floor", size=18, color=colour["warm"], ha="right"
    )
    ax.set(ylim=(0, 6.5), xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(colour["line"])
    fig.savefig(CARD, facecolor=fig.get_facecolor(), metadata={"Software": None})


if __name__ == "__main__":
    main()
