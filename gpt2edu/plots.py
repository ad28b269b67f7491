"""One plotting style: legible on white and on black, and for the colour-blind."""

# Made by tools/book.py from ../book/easy/ch02a_plots.md: edit that, then `make book`.

# %% auto #0
__all__ = ['PALETTE', 'GREY', 'use_style']

# %% ../nbs/easy/ch02a_plots.ipynb #57d3fc9b
import matplotlib as mpl

# %% ../nbs/easy/ch02a_plots.ipynb #0408071b
PALETTE = [
    "#0b84c6",  # blue
    "#e69f00",  # orange
    "#009e73",  # green
    "#d55e00",  # red
    "#cc79a7",  # pink
    "#56b4e9",  # sky
]
GREY = "#808080"  # about 4:1 on white and on the dark theme's background


def use_style():
    "Set matplotlib's style for a notebook: SVG, transparent, grey axes, `PALETTE`."
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.4),
            "figure.facecolor": "none",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "none",
            "axes.edgecolor": GREY,
            "axes.labelcolor": GREY,
            "axes.titlecolor": GREY,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.prop_cycle": mpl.cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": GREY,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "legend.labelcolor": GREY,
            "text.color": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "savefig.facecolor": "none",
            "svg.hashsalt": "gpt2edu",  # the same figure gives the same bytes
        }
    )
    # comes with the notebook, not with the library
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg", metadata={"Date": None})
