import pytest

from cli import gossipctl, gossipd
from daemon.version import VERSION


@pytest.mark.parametrize("program", [gossipd, gossipctl])
def test_the_version_is_told(program, capsys):
    with pytest.raises(SystemExit) as ended:
        program.parser().parse_args(["--version"])
    assert ended.value.code in (None, 0)
    assert capsys.readouterr().out == f"{program.__name__.removeprefix('cli.')} {VERSION}\n"
