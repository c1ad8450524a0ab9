"""The demo on a stack of its own: everything is shown, and what stays behind is nobody's but the demo's."""

from pathlib import Path

import psycopg
import pytest

from stack import demo
from stack.up import running


def test_the_demo_leaves_no_admin_and_no_mailbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "DATA_DIR", tmp_path / "data")
    demo.main()
    shown = capsys.readouterr().out
    assert "matched by rule" in shown, shown
    with (
        running(tmp_path / "data", servers_only=True) as stack,
        psycopg.connect(stack.env["DATABASE_URL"]) as rows,
    ):
        assert rows.execute("SELECT username FROM accounts WHERE role = 'admin'").fetchall() == []
        assert rows.execute("SELECT count(*) FROM mailboxes").fetchone() == (0,)
        owners = rows.execute("SELECT username FROM recordings JOIN accounts ON accounts.id = owner_id").fetchall()
        assert [name.startswith("demo-") for (name,) in owners] == [True]
