"""Pictures for documents: PNGs by matplotlib. Pages have charts of their own (`common.pages`).

Drawn on matplotlib's Agg canvas through `Figure`, not pyplot: no display is needed and no global
backend is changed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


def figure_of(panels: int, share_steps: bool = False) -> tuple["Figure", list["Axes"]]:
    """A figure of panels below one another, on no display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.4 + 2.9 * panels), layout="constrained")
    return figure, list(figure.subplots(panels, 1, squeeze=False, sharex=share_steps)[:, 0])


def finish_axes(axes: "Axes", title: str, steps: str, unit: str) -> None:
    """Title, labels of both axes, a grid; a legend where there are several lines."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(steps)
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize=8, frameon=False)
