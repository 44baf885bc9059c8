# SPDX-License-Identifier: Apache-2.0
"""Laws of the package: one version, one direction of imports, one list of executables, installed whole."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dnn_dist
from dnn_dist.executables import EXECUTABLES

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "dnn_dist"

# Who may import what of ours, besides itself. Anything may import errors. Only nodes may import ROS.
LAW = {
    "errors": set(),
    "signals": set(),
    "executables": {"signals"},
    "yamlfile": set(),
    "shipped": set(),
    "dds": set(),
    "graph": set(),
    "cut": {"graph"},
    "plan": {"settings", "cut", "graph", "yamlfile"},
    "run": {"settings", "plan", "cut", "graph"},
    "sim": {"run", "plan", "cut", "graph"},
    "detect": {"yamlfile"},
    "modelcard": {"graph", "detect"},
    "camera": set(),
    "settings": set(),
    "cluster": {"dds", "settings", "run", "yamlfile"},
    "arguments": {"cluster", "yamlfile"},
    "deploy": {"cluster", "plan"},
    "nodes": {
        *("signals", "shipped", "cluster", "dds", "settings", "modelcard"),
        *("run", "plan", "cut", "graph", "detect", "camera"),
    },
    "cli": {
        *("signals", "yamlfile", "shipped", "sim", "nodes", "cluster", "arguments", "deploy", "settings", "modelcard"),
        *("run", "plan", "cut", "graph", "detect", "camera"),
    },
}
ROS = re.compile(r"(rclpy|rosidl_\w+|launch\w*|cv_bridge|\w+_(msgs|interfaces)|dnn_dist\.(msg|srv))(\.|$)")
HEAVY = re.compile(r"(tensorflow|keras|torch|scipy|networkx)(\.|$)")
# What a function may import that not every robot has.
OPTIONAL = {"plan/minimum_cut.py": {"networkx"}, "plan/deadlines.py": {"scipy"}, "plan/delay.py": {"scipy"}}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    package = ["dnn_dist", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    allowed = LAW[part] | {part, "errors"}
    for name in imports(path):
        ours = re.match(r"dnn_dist\.(\w+)", name)
        if ours and ours[1] in LAW:
            assert ours[1] in allowed, f"{part} may import {sorted(allowed)}, not {name}"
        if part != "nodes":
            assert not ROS.match(name), f"only nodes may import ROS, not {part}: {name}"
        if name.split(".")[0] not in OPTIONAL.get(str(path.relative_to(SOURCE)), ()):
            assert not HEAVY.match(name), f"no robot has {name}"


@pytest.mark.parametrize("file", OPTIONAL)
def test_what_is_optional_is_imported_where_it_is_used(file: str) -> None:
    whole = ast.parse((SOURCE / file).read_text()).body
    at_once = [alias.name for node in whole if isinstance(node, ast.Import) for alias in node.names]
    at_once += [node.module or "" for node in whole if isinstance(node, ast.ImportFrom)]
    assert not OPTIONAL[file].intersection(name.split(".")[0] for name in at_once)


# The runtime is written once, in run/: nodes and the simulator are worlds around it, and never touch a machine.
MACHINES = {f"dnn_dist.run.{name}" for name in ("dispatcher", "gatherer", "worker")}
MOST_LINES = 400  # of a file


@pytest.mark.parametrize("part", ["nodes", "sim"])
def test_a_world_touches_no_machine(part: str) -> None:
    for path in (path for path in modules() if part_of(path) == part):
        touched = MACHINES.intersection(imports(path))
        assert not touched, f"{path.relative_to(ROOT)} imports {sorted(touched)}; ask the parts of run/ instead"
        for node in ast.walk(ast.parse(path.read_text())):
            named = node.attr if isinstance(node, ast.Attribute) else ""
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            assert named not in ("machine", "_machine"), f"{where} touches a machine; ask the part instead"


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_long() -> None:
    long = {str(path.relative_to(ROOT)): n for path in modules() if (n := lines(path)) > MOST_LINES}
    assert not long, f"files of more than {MOST_LINES} lines: {long}"


def test_no_import_goes_in_a_circle() -> None:
    """Also not one that is made when a function runs, or for types only."""
    names = {".".join(["dnn_dist", *path.relative_to(SOURCE).with_suffix("").parts]): path for path in modules()}
    uses = {name: (set(imports(path)) & names.keys()) - {name} for name, path in names.items()}
    while free := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in free:
            del uses[name]
    while ends := uses.keys() - set().union(*uses.values(), set()):  # who only leads to a circle is not in it
        for name in ends:
            del uses[name]
    assert not uses, f"these import each other: {', '.join(sorted(uses))}"


def test_command_line_needs_no_ros() -> None:
    # As after `pip install`: the command line is there, ROS and our messages are not.
    hidden = "import sys; sys.modules.update(dict.fromkeys(['rclpy', 'std_msgs', 'dnn_dist.msg', 'dnn_dist.srv']))"
    subprocess.run([sys.executable, "-c", f"{hidden}; import dnn_dist.cli.main"], check=True)


def test_every_file_names_its_licence() -> None:
    """Also messages and settings: who takes one file out must know. Files that have no comments are named here."""
    silent, made = {".tflite", ".png", ".typed"}, {"build", "install", "log", "out", "__pycache__"}
    files = [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and path.name not in ("LICENSE", "compose.yaml")  # the second is made by a command
        if not any(part in made or part.startswith(".") or "egg-info" in part for part in path.relative_to(ROOT).parts)
    ]
    assert len(files) > 300 or not (ROOT / ".git").exists()
    tag = "SPDX-License-Identifier: Apache-2.0"
    without = [
        str(path.relative_to(ROOT))
        for path in files
        if path.suffix not in silent and tag not in "".join(path.read_text().splitlines()[:4])
    ]
    assert not without, f"files without '{tag}' in their first lines: {without}"


def test_every_folder_is_a_package() -> None:
    # setup.py finds packages by it.
    assert {path.parent for path in modules()} == {path.parent for path in SOURCE.rglob("__init__.py")}


def first(pattern: str, file: str) -> str | None:
    match = re.search(pattern, (ROOT / file).read_text())
    return match and match[1]


def test_versions_are_equal() -> None:
    found = {
        "package.xml": ElementTree.parse(ROOT / "package.xml").findtext("version"),
        "Dockerfile": first(r"dnn_dist:(\d\S*)", "Dockerfile"),
        "deployment.md": first(r"dnn_dist:(\d\S*)", "doc/deployment.md"),
        "CHANGELOG.rst": first(r"\n(\d+\.\d+\.\d+) ", "CHANGELOG.rst"),
        "__init__.py": dnn_dist.__version__,
    }
    assert len(set(found.values())) == 1, found


def test_the_changelog_is_one_that_release_tools_read() -> None:
    """Each section is a version with its date, newest first; catkin_pkg's parser is that of bloom."""
    changelog = pytest.importorskip("catkin_pkg.changelog").get_changelog_from_path(str(ROOT))
    sections = re.findall(r"(?m)^(.+)\n-+$", (ROOT / "CHANGELOG.rst").read_text())
    assert sections[0] == "Forthcoming" or sections[0].startswith(f"{dnn_dist.__version__} (")
    read = [version for version, date, _ in changelog.foreach_version(reverse=True) if date]
    assert read == [section.split()[0] for section in sections if section != "Forthcoming"]


def test_each_folder_names_its_modules() -> None:
    """A table in `__init__.py` says what each file is for."""
    for folder in sorted(path.parent for path in (ROOT / "dnn_dist").glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        named = set(re.findall(r"(?<![\w/])\w+\.py", text))
        there = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        assert named == there, f"{folder.name}: not named {sorted(there - named)}, not there {sorted(named - there)}"


@pytest.mark.parametrize("name", EXECUTABLES)
def test_executable_names_a_function(name: str) -> None:
    module, function = EXECUTABLES[name].split(":")
    path = (ROOT / module.replace(".", "/")).with_suffix(".py")
    defined = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert function in defined


def prefix() -> Path:
    """The folder that colcon installed the package to."""
    for entry in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep):
        if Path(entry, "share/ament_index/resource_index/packages/dnn_dist").exists():
            return Path(entry)
    raise AssertionError("dnn_dist is not installed: run `make build`, and pytest by .venv/bin/dnn_dist-env")


def test_pip_brings_core_command_line_and_shipped_models(tmp_path: Path) -> None:
    """A wheel of what git has, in a fresh environment; what it needs is lent by this one, instead of downloaded."""
    checkout, fresh, somewhere = tmp_path / "checkout", tmp_path / "fresh", tmp_path / "somewhere"
    left_out = shutil.ignore_patterns(".*", "build", "install", "log", "out", "__pycache__", "test", "bench")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    venv.create(fresh)
    python, pip = fresh / "bin/python", [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(fresh)}))
    needed = ("setuptools", "numpy", "yaml", "cv2", "rich")
    lent = {str(Path(module.__file__).parents[1]) for module in map(import_module, needed)}
    (packages / "lent.pth").write_text("\n".join(sorted(lent)))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", checkout]
    subprocess.run([*pip, "--python", python, *install], check=True)
    somewhere.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AMENT", "DNN_DIST"))}

    def dnn_dist_says(*words: str) -> str:
        command = [fresh / "bin/dnn_dist", *words]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=somewhere, env=clean)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    where = subprocess.run(
        [python, "-c", "import dnn_dist, dnn_dist.shipped as s; print(dnn_dist.__file__, s.shipped_models())"],
        capture_output=True, text=True, check=True, cwd=somewhere, env=clean,
    ).stdout.split()  # fmt: skip
    assert all(Path(path).is_relative_to(fresh) for path in where)
    models = {path.name for path in (ROOT / "models").iterdir() if path.suffix in (".tflite", ".yaml")}
    assert {path.name for path in Path(where[1]).iterdir()} == models
    assert "CONV_2D" in dnn_dist_says("inspect", "warehouse_int8.tflite")
    assert re.search(r"holds +True", dnn_dist_says("check", "warehouse_int8.tflite", "--cut", "tiles:1x2@0..3"))


@pytest.mark.install
def test_what_runs_is_what_was_installed() -> None:
    import dnn_dist.msg

    assert Path(dnn_dist.__file__).is_relative_to(prefix())
    assert Path(dnn_dist.msg.__file__).is_relative_to(prefix())
    installed = Path(dnn_dist.__file__).parent
    for path in modules():
        copy = installed / path.relative_to(SOURCE)
        assert copy.exists() and copy.read_text() == path.read_text(), f"`make build` has not seen {path}"
    assert (installed / "py.typed").exists()


@pytest.mark.install
def test_executables_are_installed() -> None:
    folder = prefix() / "lib/dnn_dist"
    assert {path.name for path in folder.iterdir()} == set(EXECUTABLES)
    assert all(os.access(folder / name, os.X_OK) for name in EXECUTABLES)
    ran = subprocess.run([folder / "dnn_dist", "--help"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "dnn_dist" in ran.stdout


@pytest.mark.install
def test_what_launch_needs_is_installed() -> None:
    share = prefix() / "share/dnn_dist"
    wanted = ["package.xml", "launch/*.py", "config/*", "examples/*", "rviz/*", "models/*.tflite", "models/*.yaml"]
    for pattern in wanted:
        source, installed = ({p.relative_to(top) for p in top.glob(pattern)} for top in (ROOT, share))
        assert source == installed
