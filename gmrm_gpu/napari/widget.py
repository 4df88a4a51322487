"""A small panel for napari: analyses the movie of an Image layer, adds its phases and shows its growth curve."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from threading import Event
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from ..config import METHODS, AnalysisConfig, MixtureConfig
from ..errors import GmrmError
from ..frames import Movie, open_movie
from ..output import write_analysis
from ..pipeline import analyze
from ..results import AnalysisResult
from .curve import CurveView
from .layers import KEY, Curve, FrameStack, result_layer


class AnalyzeLayer(QWidget):
    """Choose an Image layer and a few settings, press "Analyze": the work runs in a thread and can be stopped.

    Parameters
    ----------
    napari_viewer : the viewer, given by napari.
    """

    _ticked = Signal(int, int)

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.result: AnalysisResult | None = None
        self._stop, self._gone = Event(), Event()
        self._working = False
        self._shown: Any = None
        self._build()
        self._ticked.connect(self._progress)
        # With the viewer this panel is deleted, not closed: the thread must not touch it then.
        self.destroyed.connect(partial(_set, self._stop, self._gone))
        self.viewer.layers.events.inserted.connect(self._watch)
        self.viewer.layers.events.removed.connect(self._list_layers)
        self.viewer.layers.selection.events.active.connect(self._show_active)
        self.viewer.dims.events.point.connect(self._mark_frame)
        for layer in self.viewer.layers:
            layer.events.name.connect(self._list_layers)
        self._list_layers()
        self._show_active()

    def _build(self) -> None:
        self.layer, self.method = QComboBox(), QComboBox()
        self.method.addItems(METHODS)
        self.rate = QDoubleSpinBox(minimum=0.01, maximum=100, value=10, decimals=2, suffix=" %")
        self.components = QSpinBox(minimum=1, maximum=6, value=MixtureConfig().n_components)
        self.unvisited = QLineEdit(placeholderText="none")
        self.rate.setToolTip(
            "The share of the pixels that the analysis may look at; of a sub-sampled movie it takes all"
        )
        self.unvisited.setToolTip(
            "The grey level where the beam did not go: a number, or nan; none: it went everywhere"
        )
        self.start, self.save = QPushButton("Analyze"), QPushButton("Save results…")
        self.bar, self.message = QProgressBar(), QLabel(wordWrap=True)
        self.curve, self.value = CurveView(), QLabel(wordWrap=True)
        form = QFormLayout()
        form.addRow("movie", self.layer)
        form.addRow("sample", self.rate)
        form.addRow("method", self.method)
        form.addRow("components", self.components)
        form.addRow("unvisited level", self.unvisited)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for part in (self.start, self.bar, self.message):
            layout.addWidget(part)
        for part in (self.curve, self.value, self.save):
            layout.addWidget(part)
        layout.addStretch(1)
        self.save.setEnabled(False)
        self.bar.setVisible(False)
        self.start.clicked.connect(self._start_or_stop)
        self.save.clicked.connect(self._ask_where)
        self.curve.picked.connect(self._go_to_frame)

    def analyze(self) -> None:
        """Begin to analyse the chosen layer; what is wrong with it is told below the button."""
        name = self.layer.currentText()
        if not name or name not in self.viewer.layers:
            self.message.setText("open a movie first: there is no Image layer")
            return
        layer = self.viewer.layers[name]
        try:
            text = self.unvisited.text().strip()
            # A file that this plugin opened is taken itself: its visits, not a picture of them.
            source = layer.data.movie if isinstance(layer.data, FrameStack) else layer
            movie = open_movie(source, unvisited=float(text) if text else None)
            config = AnalysisConfig(
                MixtureConfig(n_components=self.components.value()), method=self.method.currentText()
            ).with_rate(1.0 if movie.sampled else self.rate.value() / 100)
        except ValueError as error:  # GmrmError of input and settings are of this kind too
            self.message.setText(str(error))
            return
        first = ["The first time, functions are compiled, which takes a minute."] if self.result is None else []
        self.message.setText(" ".join([f"Analysing {layer.name}.", *first, *movie.acquisition.sentences]))
        self._run(lambda: analyze(movie, config, progress=self._tick), lambda result: self._add(result, layer, movie))

    def write(self, folder: str) -> None:
        """Write the last result into a new folder, with its report where matplotlib and jinja2 are installed."""
        result, report = self.result, all(find_spec(name) for name in ("matplotlib", "jinja2"))
        without = "" if report else ", without a report: pip install 'gmrm-gpu[plot]'"
        if result is not None:
            self.message.setText(f"writing {folder}")
            self._run(
                lambda: write_analysis(result, folder, report=report),
                lambda path: self.message.setText(f"written: {path}{without}"),
            )

    def _run(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """`work` in a thread, `then` with what it returned; a refusal and a stop become the message."""

        def guarded() -> tuple[bool, Any]:
            try:
                return True, work()
            except (GmrmError, _StoppedError) as error:
                return False, str(error)

        def done(outcome: tuple[bool, Any]) -> None:
            if self._gone.is_set():
                return
            finished()
            good, what = outcome
            then(what) if good else self.message.setText(what)

        def finished(error: Any = None) -> None:
            self._working = False
            self.start.setText("Analyze")
            self.bar.setVisible(False)
            self.save.setEnabled(self.result is not None)
            if error is not None:
                self.message.setText(f"{type(error).__name__}: {error}")

        self._stop.clear()
        self._working = True
        self.start.setText("Stop")
        self.save.setEnabled(False)
        self.bar.setVisible(True)
        self.bar.setRange(0, 0)
        create_worker(guarded, _connect={"returned": done, "errored": finished})

    def _tick(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _StoppedError("stopped")
        self._ticked.emit(done, total)

    def _progress(self, done: int, total: int) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)

    def _add(self, result: AnalysisResult, source: Any, movie: Movie) -> None:
        self.result = result
        self.save.setEnabled(True)
        data, options, _ = result_layer(result, f"{source.name} phases")
        # Where the picture lies, whatever its axes: the scale of the source, not one computed again.
        for name in ("scale", "translate", "units"):
            if len(getattr(source, name, ())) == data.ndim:
                options[name] = getattr(source, name)
        warnings = result.provenance.get("warnings", [])
        self.viewer.layers.selection.active = self.viewer.add_labels(data, **options)
        self.message.setText("; ".join(["finished", *warnings]))

    def _start_or_stop(self) -> None:
        if self._working:
            self._stop.set()
            self.message.setText("stopping after this frame")
        else:
            self.analyze()

    def _ask_where(self) -> None:
        folder, _ = QFileDialog.getSaveFileName(self, "A new folder for the results")
        if folder:
            self.write(folder)

    def _watch(self, event: Any) -> None:
        event.value.events.name.connect(self._list_layers)
        self._list_layers()

    def _list_layers(self, event: Any = None) -> None:
        chosen = self.layer.currentText()
        self.layer.clear()
        self.layer.addItems([layer.name for layer in self.viewer.layers if hasattr(layer, "rgb")])
        self.layer.setCurrentText(chosen)

    def _show_active(self, event: Any = None) -> None:
        """The curve of the active layer, if it has one; else the last one stays."""
        active = self.viewer.layers.selection.active
        curve = None if active is None else active.metadata.get(KEY)
        if isinstance(curve, Curve) and active is not self._shown:
            self._shown = active
            self.curve.show_curve(curve)
            self._mark_frame()

    def _mark_frame(self, event: Any = None) -> None:
        if self._shown is None or self.curve.curve is None:
            return
        t = round(float(self._shown.world_to_data(self.viewer.dims.point)[0]))
        if 0 <= t < len(self.curve.curve.x):
            self.curve.mark(t)
            self.value.setText(self.curve.curve.at(t))

    def _go_to_frame(self, t: int) -> None:
        place = self._shown.data_to_world((t, *(0,) * (self._shown.ndim - 1)))
        self.viewer.dims.set_point(0, place[0])

    def closeEvent(self, event: Any) -> None:
        """Stop the work when the panel is closed; called by Qt."""
        self._stop.set()
        super().closeEvent(event)


def _set(stop: Event, gone: Event, *_: Any) -> None:
    stop.set()
    gone.set()


class _StoppedError(Exception):
    """The user pressed "Stop"."""
