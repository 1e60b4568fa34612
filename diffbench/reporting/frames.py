"""The frame of a picture: where its panels are, in inches; what is drawn in them becomes a PNG file.

The places follow from a few lengths, not from what is drawn: to measure all labels takes matplotlib longer than to
draw them.  The same drawing gives the same bytes: no date, no version, no user's matplotlib style.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
#: The level of grey above which a colour becomes white: 256 colours are means of like ones, as of white and its shades.
NEARLY_WHITE = 252
#: Inches from a panel's axes down to the x axis' label, and from its left end to the end of the y axis' label.
X_LABEL, Y_LABEL = 0.24, 0.19
#: Height in inches of the title, and of a line of a note below the panels.
TITLE_INCHES, LINE_INCHES = 0.3, 0.13
#: What all panels share, in matplotlib's words; given before axes are made, which takes less time than to change them.
STYLE: Mapping[Any, Any] = {
    "axes.labelsize": "small",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "small",
    # No title has to make room for ticks above its panel: to look for them takes as long as to draw.
    "axes.titley": 1.0,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
}


@dataclass(frozen=True)
class Frame:
    """Panels of one size in rows, between a title and a foot.

    Attributes:
        title: the words above the panels.
        panels: the number of panels.
        columns: how many of them are side by side.
        panel: width and height of each in inches, with what is around its axes.
        left, right, bottom, top: inches around the axes of each, here of seven digits and a line above them.
        foot: inches below the panels, for a note or a legend.
    """

    title: str
    panels: int
    columns: int
    panel: tuple[float, float]
    left: float = 0.64
    right: float = 0.15
    bottom: float = 0.48
    top: float = 0.28
    foot: float = 0.1

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        rows = max(1, -(-self.panels // self.columns))
        width, height = self.panel
        return width * self.columns, height * rows + TITLE_INCHES + self.foot

    def png(self, draw: Callable[[Figure, Sequence[Axes]], None]) -> bytes:
        """Return the bytes of a PNG file; ``draw`` fills the panels, and draws what is below them."""
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        content = io.BytesIO()
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            canvas = FigureCanvasAgg(Figure(self.size, dpi=DPI))
            draw(canvas.figure, self.grid(canvas.figure))
            # Drawn once, by the canvas: to save a figure draws it twice.
            canvas.draw()
        whole = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
        # In 256 colours a picture has a third of the bytes, and is packed in half the time.
        few = whole.convert("RGB").quantize(
            method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        few.putpalette([255 if level > NEARLY_WHITE else level for level in few.getpalette() or ()])
        few.save(content, "png", dpi=(DPI, DPI))
        return content.getvalue()

    def grid(self, figure: Figure) -> list[Axes]:
        """Return the axes of the panels, added to a figure that has the title."""
        width, height = self.size
        figure.text(0.5, 1 - 0.07 / height, self.title, ha="center", va="top", fontsize="medium")
        found = []
        across, down = self.panel
        inner = across - self.left - self.right, down - self.top - self.bottom
        for index in range(self.panels):
            row, column = divmod(index, self.columns)
            left = column * across + self.left
            bottom = height - TITLE_INCHES - row * down - self.top - inner[1]
            place = left / width, bottom / height, inner[0] / width, inner[1] / height
            axes = figure.add_axes(place)
            axes.yaxis.set_label_coords((Y_LABEL - self.left) / inner[0], 0.5)
            axes.xaxis.set_label_coords(0.5, -X_LABEL / inner[1])
            found.append(axes)
        return found


def annotate(figure: Figure, lines: Sequence[str]) -> None:
    """Write a note at the bottom of a figure."""
    at = 0.05 / figure.get_figheight()
    figure.text(0.5, at, "\n".join(lines), ha="center", va="bottom", fontsize="x-small")
