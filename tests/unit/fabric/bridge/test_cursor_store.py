from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.bridge.cursor_store import StateFolder


def test_a_position_is_found_again(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "new" / "state")
    cursor = folder.cursor("a-to-b")
    assert cursor.position is None
    cursor.save({"parsl-task": "1-0"})
    cursor.save({"parsl-task": "2-0"})
    folder.close()
    again = StateFolder(tmp_path / "new" / "state")
    assert again.cursor("a-to-b").position == {"parsl-task": "2-0"}
    assert sorted(path.name for path in folder.path.iterdir()) == ["a-to-b.json", "lock"]
    again.close()


def test_a_second_bridge_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from diaspora_parsl.fabric.bridge.cursor_store import StateFolder\n"
        "folder = StateFolder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match=rf"Another bridge works .* \(process {other.pid}\)"):
            StateFolder(tmp_path)
        other.kill()
        other.wait(10)
    StateFolder(tmp_path).close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"position": 3}', "{}", "\udcff"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "a-to-b.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    folder = StateFolder(tmp_path)
    with pytest.raises(ConfigurationError, match="Remove it"):
        folder.cursor("a-to-b")
    folder.close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Write another folder"):
        StateFolder(tmp_path / "file" / "state")
