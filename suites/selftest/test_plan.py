"""Every check can be collected and its set-up planned without a cluster: a broken fixture is found in seconds."""

import configparser
import os
import subprocess
import sys

import pytest

from clusters.paths import CHECKOUT


@pytest.mark.parametrize("mode", [[], ["--mutation"]], ids=["checks", "mutants"])
def test_the_set_up_of_every_check_can_be_planned(mode, tmp_path):
    """Planning names every fixture in order and starts none, so no run folder appears."""
    command = [
        sys.executable, "-m", "pytest", "suites", "--ignore=suites/selftest", "--setup-plan", "-q", "-p", "no:cacheprovider", *mode,
    ]

    done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "FAASMESH_RUNS": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    assert "SETUP    S testbed" in done.stdout
    assert "test_weighted_split.py" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_tox_environment_of_the_readme_runs_something():
    """A section for several environments at once would hide the commands of each: tox then succeeds without running any."""
    ini = configparser.ConfigParser()
    ini.read(CHECKOUT / "tox.ini")

    assert not [section for section in ini.sections() if "{" in section]
    for name in ("check", "conformance", "mutation", "bench"):
        assert "python -m pytest suites" in ini[f"testenv:{name}"]["commands"]
