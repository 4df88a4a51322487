"""Who may import whom, read from the source with `ast`, and what `import gmrm_gpu` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gmrm_gpu

ROOT = Path(gmrm_gpu.__file__).parent
# Every layer may import `errors` and itself. The longest key that matches a module's dotted path holds for it.
ALLOWED = {
    "errors": set(),
    "durable": set(),
    "claim": {"durable"},
    "config": set(),
    "archives": set(),
    "results": {"config", "archives"},
    "limits": set(),
    "backend": {"limits"},
    "philox": {"backend"},
    "engines": {"config", "results", "backend", "philox", "sampling", "mixture", "classify", "correct", "quantify"},
    "engines.fused": {
        *("backend", "config", "results", "philox", "sampling", "mixture", "classify", "correct"),
        *("engines.source", "engines.device", "engines.generic"),
    },
    "engines.device": {"backend", "engines.source", "engines.nvrtc", "engines.fused.launch"},
    "engines.nvrtc": {"durable", "engines.source"},
    "engines.source": set(),
    "engines.compiled": {
        *("config", "backend", "results", "philox", "sampling", "classify", "correct"),
        *("engines.source", "engines.nvrtc", "engines.generic", "engines.fused"),
    },
    "frames": {"config", "durable", "archives"},
    "sampling": {"philox", "backend", "config"},
    "visited": {"philox", "backend", "config", "frames", "sampling"},
    "mixture": {"backend", "config", "results", "philox"},
    "classify": {"backend", "config", "results", "mixture"},
    "channels": {"config", "results", "backend", "philox", "frames", "sampling", "survey", "mixture", "classify"},
    "trendcheck": {"config", "results", "backend", "frames", "survey", "mixture", "classify", "visited"},
    "correct": {"backend", "config", "results", "classify"},
    "quantify": {"config", "results"},
    "estimate": {"backend", "config", "results"},
    "tally": {"backend", "config", "results", "classify", "correct", "estimate", "recorder", "sampling"},
    "thinning": {"config", "backend", "frames", "visited"},
    "synthetic": {"philox", "backend", "config", "frames"},
    "survey": {"config", "frames"},
    "recorder": {"config", "results", "backend", "classify", "correct", "engines", "frames"},
    "runs": {
        *("config", "results", "backend", "engines", "sampling", "recorder", "classify", "correct", "tally"),
        *("runner", "visited"),
    },
    "runner": {
        *("config", "results", "backend", "philox", "engines", "frames", "sampling", "recorder", "survey"),
        *("classify", "correct", "quantify", "tally", "runs", "visited"),
    },
    "pipeline": {"config", "results", "frames", "recorder", "runner"},
    "selection": {"config", "results", "backend", "philox", "frames", "sampling", "survey", "mixture", "visited"},
    "planning": {"config", "results", "backend", "frames", "runner", "recorder", "synthetic"},
    "throughput": {"config", "results", "backend", "frames", "runner", "study"},
    "study": {
        *("runner", "results", "config", "frames", "backend", "recorder", "engines", "claim", "durable"),
    },
    "live": {
        *("config", "results", "backend", "philox", "frames", "sampling", "survey", "synthetic", "mixture"),
        *("classify", "correct", "quantify", "estimate", "engines", "tally", "recorder", "runner", "pipeline"),
        *("output", "folders", "report", "visited", "archives", "claim", "durable"),
    },
    "napari": {"config", "results", "frames", "pipeline", "output", "report"},
    "report": {"results", "config"},
    "folders": {"claim", "durable"},
    "output": {"results", "config", "report", "folders"},
    "cli": {
        *("config", "results", "pipeline", "runner", "selection", "planning", "study", "live", "report", "output"),
        *("frames", "synthetic", "backend", "sampling", "trendcheck", "throughput", "engines.device", "engines.nvrtc"),
        *("visited", "thinning", "claim", "folders"),
    },
    "examples": set(),
    "__main__": {"cli"},
    "__init__": set(),
}
# Heavy or optional packages, and the only places that may name them.
ONLY_IN = {
    "array_api_compat": ("backend",),
    "cupy": ("backend", "engines"),
    "cuda": ("engines.nvrtc",),
    "numba": ("engines.compiled",),
    "llvmlite": ("engines.compiled",),
    "matplotlib": ("report",),
    "jinja2": ("report",),
    "av": ("frames",),
    "PIL": ("frames", "report"),
    "tifffile": ("frames", "output"),
    "h5py": ("frames",),
    "rsciio": ("frames",),
    "pyarrow": ("frames",),
    "pims": ("frames",),
    "zmq": ("live", "examples"),
    "dask": ("study.cluster", "frames"),
    "distributed": ("study.cluster",),
    "napari": ("napari",),
    "qtpy": ("napari",),
}
OPTIONAL = {*ONLY_IN, "xarray", "dask", "distributed", "zmq", "sklearn"} - {"array_api_compat"}


def module_of(path):
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


MODULES = {module_of(p): p for p in sorted(ROOT.rglob("*.py"))}


def package_of(module, path):
    parts = module.split(".")
    return parts if path.name == "__init__.py" and module != "__init__" else parts[:-1]


def imported(node, package):
    """Dotted names that an import statement names, those of the package as ('gmrm_gpu', ...)."""
    if isinstance(node, ast.Import):
        return [tuple(a.name.split(".")) for a in node.names]
    base = list(node.module.split(".")) if node.module else []
    if node.level:
        base = ["gmrm_gpu", *package[: len(package) - node.level + 1], *base]
    return [(*base, a.name) for a in node.names]


def imports(module, path):
    """(node, dotted name) of every import, those inside functions too."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported(node, package_of(module, path)):
                yield node, name


def dynamic_imports(path):
    """Names given to import_module or __import__ as a literal."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__"):
                yield tuple(str(node.args[0].value).lstrip(".").split("."))


def within(name, prefix):
    return name == prefix or name.startswith(prefix + ".")


def rule_of(module):
    keys = [key for key in ALLOWED if within(module, key)]
    return max(keys, key=len) if keys else None


def violations(module, path):
    rule = rule_of(module)
    allowed = ALLOWED[rule] | {"errors", rule, "__version__"}
    out = []
    for _, name in imports(module, path):
        if name[0] != "gmrm_gpu":
            continue
        target = ".".join(name[1:])
        if not any(within(target, a) for a in allowed):
            out.append(target or "gmrm_gpu itself")
    return out


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_layer_may(module):
    assert rule_of(module) is not None, f"{module} is in no layer: add it to the table and to DESIGN"
    assert violations(module, MODULES[module]) == []


@pytest.mark.parametrize("module", MODULES)
def test_optional_packages_are_named_only_where_they_belong(module):
    named = {n[0] for _, n in imports(module, MODULES[module])} | {n[0] for n in dynamic_imports(MODULES[module])}
    for package in named & set(ONLY_IN):
        assert any(within(module, place) for place in ONLY_IN[package]), f"{module} imports {package}"


@pytest.mark.parametrize("module", MODULES)
def test_optional_packages_are_imported_inside_functions(module):
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    lazy = {
        n.lineno
        for f in ast.walk(tree)
        if isinstance(f, (ast.FunctionDef, ast.Lambda))
        for n in ast.walk(f)
        if hasattr(n, "lineno")
    }
    typing = {
        n.lineno
        for f in ast.walk(tree)
        if isinstance(f, ast.If) and "TYPE_CHECKING" in ast.dump(f.test)
        for n in ast.walk(f)
        if hasattr(n, "lineno")
    }
    eager = [
        name[0]
        for node, name in imports(module, MODULES[module])
        if name[0] in OPTIONAL and node.lineno not in lazy | typing
    ]
    # A compiled function needs Numba where it is written; the modules of this package are imported at first use.
    if module.startswith("engines.compiled."):
        eager = [name for name in eager if name not in ("numba", "llvmlite")]
    # So does a Qt widget its base class; napari imports these modules when the panel is opened.
    if module in ("napari.curve", "napari.widget"):
        eager = [name for name in eager if name not in ("napari", "qtpy")]
    assert eager == []


def test_the_checks_above_see_a_violation(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("from .. import pipeline\nfrom ..backend import x\ndef f():\n    from ..study.run import y\n")
    assert sorted(violations("frames.bad", path)) == ["backend.x", "pipeline", "study.run.y"]


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


SHOW = "import sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"


def test_import_loads_no_heavy_package():
    loaded = set(run(f"import gmrm_gpu; {SHOW}"))
    assert "gmrm_gpu" in loaded
    assert not loaded & {*OPTIONAL, "scipy", "numpy"}


def test_every_public_name_loads_no_optional_package():
    loaded = set(run(f"import gmrm_gpu; [getattr(gmrm_gpu, n) for n in gmrm_gpu.__all__]; {SHOW}"))
    assert "numpy" in loaded
    assert not loaded & OPTIONAL
