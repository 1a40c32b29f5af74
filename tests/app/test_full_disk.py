"""A disk that takes no more: one line that names the file, exit status 1, and the result is on standard output."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep import marked

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of the size of files")

SCRIPT = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from mipnet.app.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.sweep
@pytest.mark.parametrize("words", [["--quiet"], marked(["--json"]), marked([])])
def test_a_result_that_cannot_be_saved_is_printed(words: list[str], tmp_path: Path) -> None:
    """On a disk that takes files of at most 600 bytes."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = ["solve", str(EXAMPLES / "digits.yaml"), "--set", "formulation.relu=frozen", "--output", str(tmp_path / "run"), *words]
    done = subprocess.run([sys.executable, "-B", "-c", SCRIPT, "600", *command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(tmp_path / "run") in last
    assert "file too large" in last
    assert "Traceback" not in done.stderr
    record = json.loads(done.stdout[done.stdout.index("{") :])
    assert (record["status"], record["verified"]) == ("optimal", True)
    assert list(tmp_path.iterdir()) == []
