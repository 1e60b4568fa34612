"""What ``config/tables.yaml`` may say: the metrics' heads, each table's layout, each figure's kind.

Layouts and figures are registered like everything else that configuration chooses by name.  The
class of a layout is built from its spec and has ``make(results, metrics, published) -> Table``;
the class of a figure has ``make(results, metrics) -> Drawing``, a ``Chart`` or a ``Gallery``.
"""

from diffbench.reporting.layout.cell import (
    BITS,
    CellSpec,
    Metrics,
    MetricSpec,
    Named,
    Steps,
    listed,
)
from diffbench.reporting.layout.figure import (
    CurveFigureSpec,
    CurvePointSpec,
    CurveSeriesSpec,
    FigureSpec,
    GradientNoiseFigureSpec,
    LearningFigureSpec,
    NFEFigureSpec,
    ReconstructionFigureSpec,
    RestorationsFigureSpec,
    SchedulesFigureSpec,
    SeriesSpec,
    TermsFigureSpec,
    TrajectoriesFigureSpec,
)
from diffbench.reporting.layout.table import (
    ComparisonSpec,
    Facets,
    ListingSpec,
    PaperRowSpec,
    PaperTableSpec,
    ProtocolSpec,
    PublishedCellSpec,
    RowSpec,
    TableSpec,
)
from diffbench.reporting.layout.wanted import (
    CLAIMS_TABLE,
    EXPORT,
    PUBLISHED,
    TABLES,
    TablesSpec,
    of_plan,
    read_tables,
    refuse_known,
    written,
)

__all__ = [
    "BITS",
    "CLAIMS_TABLE",
    "EXPORT",
    "CellSpec",
    "ComparisonSpec",
    "CurveFigureSpec",
    "CurvePointSpec",
    "CurveSeriesSpec",
    "Facets",
    "FigureSpec",
    "GradientNoiseFigureSpec",
    "LearningFigureSpec",
    "ListingSpec",
    "MetricSpec",
    "Metrics",
    "NFEFigureSpec",
    "Named",
    "PUBLISHED",
    "PaperRowSpec",
    "PaperTableSpec",
    "ProtocolSpec",
    "PublishedCellSpec",
    "ReconstructionFigureSpec",
    "RestorationsFigureSpec",
    "RowSpec",
    "SchedulesFigureSpec",
    "SeriesSpec",
    "Steps",
    "TABLES",
    "TableSpec",
    "TablesSpec",
    "TermsFigureSpec",
    "TrajectoriesFigureSpec",
    "listed",
    "of_plan",
    "read_tables",
    "refuse_known",
    "written",
]
