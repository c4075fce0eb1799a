from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PLUGIN = "diaspora_parsl.testing.pytest_plugin"
USERS_TEST = """
import sys
from pathlib import Path

def test_large_things_are_not_loaded_for_nothing():
    assert not {"parsl", "globus_compute_sdk", "aiohttp"} & set(sys.modules)

def test_sites(local_sites):
    alpha, beta = local_sites("alpha", "beta", workers=2)
    assert (alpha.label, beta.label, beta.endpoint.executor.max_workers_per_node) == ("alpha", "beta", 2)
    Path("folders").write_text(f"{alpha._folder}\\n{beta._folder}")

def test_they_are_gone():
    assert not any(Path(line).exists() for line in Path("folders").read_text().splitlines())

def test_globus(globus_compute_service, globus_compute_endpoint):
    client = globus_compute_service.client()
    function = client.register_function(abs)
    task = client.run(-2, endpoint_id=globus_compute_endpoint.id, function_id=function)
    while client.get_task(task)["pending"]:
        pass
    assert client.get_result(task) == 2

def test_clusters(local_clusters):
    (gamma,) = local_clusters("gamma", nodes=2)
    assert [gamma.node_state(node) for node in gamma.nodes] == ["idle", "idle"]
"""


def test_the_plugin_is_announced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"diaspora_parsl": PLUGIN}


def test_a_users_tests_have_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_workflow.py").write_text(USERS_TEST, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", PLUGIN, "test_workflow.py"],
        cwd=tmp_path,
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # metadata of an older install may be around
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout or ("4 passed, 1 skipped" in done.stdout and "no Slurm cluster" in done.stdout)


def test_what_cannot_run_is_skipped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "test_globus.py").write_text("def test_globus(globus_compute_endpoint): pass", encoding="utf-8")
    hidden = "import sys; sys.modules['aiohttp'] = None"
    (tmp_path / "conftest.py").write_text(hidden, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", PLUGIN],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "1 skipped" in done.stdout
    assert "pip install 'diaspora-parsl[globus-test]'" in done.stdout
