"""How figures look: the same on every machine, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GOLD, RED, TEAL, GREY = PALETTE = (
    "#3b6ea5", "#d95f02", "#3f9463", "#8659a5", "#b8960c", "#c0392b", "#1f9aa0", "#6b7280",
)  # fmt: skip
LINE = "#555555"
"""Of borders and edges."""


@contextmanager
def figure_style() -> Iterator[None]:
    """Fix all that enters the bytes of a figure; what is set outside is there again afterwards."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "svg.hashsalt": "openilias",
        "svg.fonttype": "path",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.framealpha": 1,
        "legend.edgecolor": "white",
        "savefig.dpi": 150,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches, and its one plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def grid(axes: Axes, axis: Any = "y") -> None:
    """Draw a light grid."""
    axes.grid(axis=axis, color="#dddddd", linewidth=0.6)
    axes.tick_params(length=0 if axis == "x" else 3)


def heading(figure: Figure, text: str) -> None:
    """Write a title over the whole figure, where one over the plot alone would not fit."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def legend_below(figure: Figure) -> None:
    """Name the series below the plot, in as many columns as the longest name leaves room for."""
    names = [str(name) for axes in figure.axes for name in axes.get_legend_handles_labels()[1]]
    column = 0.55 + 0.075 * max(map(len, names), default=0)  # inches: the sign, and letters of 9 points
    columns = max(1, min(3, int(figure.get_figwidth() / column)))
    lines = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * max(0, lines - 1))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)


def from_zero(axes: Axes) -> None:
    """Let the y axis begin at 0, with some room above what was drawn so far."""
    axes.set_ylim(0, 1.06 * max(axes.dataLim.y1, 1e-9))


def apart(places: Sequence[float], least: float) -> list[float]:
    """Move places apart until no two are nearer than this; their order stays."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    moved = [places[n] for n in order]
    for _ in range(len(moved)):
        for n in range(1, len(moved)):
            missing = least - (moved[n] - moved[n - 1])
            if missing > 0:
                moved[n - 1] -= missing / 2
                moved[n] += missing / 2
    found = [0.0] * len(places)
    for n, place in zip(order, moved, strict=True):
        found[n] = place
    return found


def colour(number: int) -> str:
    """Return the colour of a series; they repeat after eight."""
    return PALETTE[number % len(PALETTE)]


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, without the time; to be called within :func:`figure_style`."""
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "OpenILIAS"})


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; likewise."""
    figure.savefig(path, format="png", metadata={"Software": "OpenILIAS"})


def short(name: str, most: int = 28) -> str:
    """Return a name that fits beside a figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
