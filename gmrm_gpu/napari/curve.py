"""A growth curve drawn by Qt alone, with the frame that is shown; a click on it goes to a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from ..report.style import FOREGROUND
from .layers import Curve

_BAND_ALPHA = 70
_N_TICKS = 4


class CurveView(QWidget):
    """Shows a `Curve`: line, interval as a band, and a mark at one frame. `picked` tells which frame was clicked."""

    picked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(240, 240)
        self.setMaximumHeight(420)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._curve: Curve | None = None
        self._mark = 0

    @property
    def curve(self) -> Curve | None:
        """What is shown."""
        return self._curve

    def show_curve(self, curve: Curve | None) -> None:
        """Show another curve, or none."""
        self._curve, self._mark = curve, 0
        self.update()

    def mark(self, t: int) -> None:
        """Mark the frame at index `t`."""
        if self._curve is not None and t != self._mark and 0 <= t < len(self._curve.x):
            self._mark = t
            self.update()

    def paintEvent(self, event: Any) -> None:
        """Draw it all; called by Qt."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        curve = self._curve
        if curve is None or not np.isfinite(curve.y).any():
            painter.setPen(ink)
            text = "the growth curve appears here" if curve is None else "no usable fit"
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, text)
            return
        _Drawing(painter, curve, ink, self._area(), self.height()).draw(self._mark)

    def mousePressEvent(self, event: Any) -> None:
        """Tell which frame was clicked; called by Qt."""
        if self._curve is None:
            return
        area, (low, high) = self._area(), limits(self._curve.x)
        x = low + (event.position().x() - area.left()) / area.width() * (high - low)
        self.picked.emit(int(np.abs(self._curve.x - x).argmin()))

    def _area(self) -> QRectF:
        height = self.fontMetrics().height()
        left = self.fontMetrics().horizontalAdvance("-0.00e-00") + 6
        return QRectF(left, 1.8 * height, self.width() - left - 12, self.height() - 4.6 * height)


class _Drawing:
    """One painting of a curve into the rectangle `area`."""

    def __init__(self, painter: QPainter, curve: Curve, ink: QColor, area: QRectF, height: int) -> None:
        self._painter, self._curve, self._ink, self._area, self._height = painter, curve, ink, area, height
        self._x_limits = limits(curve.x)
        ends = [values for values in (curve.y, curve.low, curve.high) if values is not None]
        self._y_limits = limits(np.concatenate([*ends, [0.0]]))

    def draw(self, mark: int) -> None:
        self._axes()
        curve, colour = self._curve, QColor(FOREGROUND)
        if curve.low is not None and curve.high is not None:
            faint = QColor(colour)
            faint.setAlpha(_BAND_ALPHA)
            self._painter.setPen(Qt.PenStyle.NoPen)
            self._painter.setBrush(faint)
            for run in runs(np.isfinite(curve.low) & np.isfinite(curve.high)):
                ends = [*self._points(run, curve.high), *reversed(self._points(run, curve.low))]
                self._painter.drawPolygon(QPolygonF(ends))
        self._painter.setPen(QPen(colour, 2))
        for run in runs(np.isfinite(curve.y)):
            self._painter.drawPolyline(QPolygonF(self._points(run, curve.y)))
        self._mark(mark)

    def _axes(self) -> None:
        painter, area, faint = self._painter, self._area, QColor(self._ink)
        faint.setAlpha(60)
        line = painter.fontMetrics().height()
        for value in ticks(*self._y_limits):
            y = self._place(self._x_limits[0], value).y()
            painter.setPen(faint)
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(self._ink)
            box = QRectF(0, y - line, area.left() - 6, 2 * line)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{value:.4g}")
        for value in ticks(*self._x_limits):
            x = self._place(value, 0).x()
            box = QRectF(x - 40, area.bottom() + 4, 80, line)
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, f"{value:.4g}")
        painter.drawText(QRectF(4, 0, area.right(), 1.5 * line), Qt.AlignmentFlag.AlignLeft, self._curve.y_label)
        below = QRectF(area.left(), self._height - 1.6 * line, area.width(), 1.4 * line)
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, self._curve.x_label)

    def _mark(self, t: int) -> None:
        painter, area, curve = self._painter, self._area, self._curve
        place = self._place(curve.x[t], curve.y[t] if np.isfinite(curve.y[t]) else self._y_limits[0])
        painter.setPen(QPen(self._ink, 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(place.x(), area.top()), QPointF(place.x(), area.bottom()))
        if np.isfinite(curve.y[t]):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self._ink)
            painter.drawEllipse(place, 4, 4)

    def _points(self, run: slice, values: np.ndarray) -> list[QPointF]:
        return [self._place(x, y) for x, y in zip(self._curve.x[run], values[run], strict=True)]

    def _place(self, x: float, y: float) -> QPointF:
        (x_low, x_high), (y_low, y_high), area = self._x_limits, self._y_limits, self._area
        return QPointF(
            area.left() + (x - x_low) / (x_high - x_low) * area.width(),
            area.bottom() - (y - y_low) / (y_high - y_low) * area.height(),
        )


def limits(values: np.ndarray) -> tuple[float, float]:
    """The least and the largest finite value, apart even where all are equal."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def ticks(low: float, high: float) -> list[float]:
    """Some four round numbers from `low` to `high`."""
    rough = (high - low) / _N_TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = np.ceil(low / step - 1e-9)
    # + 0.0, for -0.0 would be written with its sign.
    return [float(n * step) + 0.0 for n in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def runs(usable: np.ndarray) -> list[slice]:
    """The stretches where `usable` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    return [slice(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
