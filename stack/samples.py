"""The demo's archive: about forty real files of many kinds, made on the spot, a few of them wearing the wrong name.

Nothing is shipped: Python sources come from the standard library, the rest is written by the libraries that write such
files anyway. The same Python makes the same bytes each time.
"""

import argparse as a_source
import base64 as b_source
import colorsys as c_source
import gzip
import inspect
import io
import json
import marshal
import sqlite3
import struct
import sys
import textwrap
import wave
import zipfile
import zlib
from collections.abc import Callable
from datetime import datetime
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import ModuleType

import xlsxwriter

DISGUISED = frozenset(
    {
        "outbox/report.txt",  # a PNG picture
        "outbox/photo.jpg",  # a program for this machine
        "outbox/invoice.pdf",  # a Python script
        "outbox/holiday.gif",  # a SQLite database
        "outbox/song.wav",  # a workbook
        "outbox/readme.docx",  # a web page
    }
)
"""The members whose names contradict their content; every other member is what it says."""

_WHEN = (2025, 9, 1, 12, 0, 0)  # one moment for everything that carries a date


def make_archive(path: Path | None = None) -> bytes:
    """A ZIP of about 40 members in folders, about 110 KB; also written to ``path`` when one is given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _members().items():
            member = zipfile.ZipInfo(name, date_time=_WHEN)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
    data = buffer.getvalue()
    if path is not None:
        path.write_bytes(data)
    return data


def _members() -> dict[str, bytes]:
    return {**_sources(), **_texts(), **_tables(), **_media(), **_documents(), **_programs(), **_disguises()}


def _source(module: ModuleType) -> bytes:
    return inspect.getsource(module).encode()


def _sources() -> dict[str, bytes]:
    modules = (a_source, b_source, c_source, textwrap, wave, gzip)
    return {
        **{f"src/{module.__name__}.py": _source(module) for module in modules},
        "src/package/__init__.py": b"",
        "src/build.sh": _SHELL.encode(),
        "src/site/style.css": _CSS.encode(),
        "src/site/app.js": _JAVASCRIPT.encode(),
        "src/site/index.html": _HTML.encode(),
    }


def _texts() -> dict[str, bytes]:
    return {
        "docs/readme.txt": textwrap.fill(_PROSE * 6, 78).encode(),
        "docs/notes.md": _MARKDOWN.encode(),
        "docs/отчёт за сентябрь.txt": _RUSSIAN.encode(),
        "docs/old style.txt": _RUSSIAN.encode("cp1251"),
        "docs/example in a text.txt": _source(c_source),  # a text may hold code: no contradiction
        "logs/server.log": "".join(_log_line(number) for number in range(120)).encode(),
        "config/settings.json": json.dumps({"mill": {"stones": 2, "speed": 117.5}, "open": True}, indent=2).encode(),
        "config/settings.ini": b"[mill]\nstones = 2\nspeed = 117.5\n\n[door]\nopen = yes\ncolour = green\n",
        "config/settings.toml": b'[mill]\ndays = ["mon", "tue"]\n\n[[sacks]]\nname = "rye"\nkg = 25\n',
        "config/compose.yaml": _YAML.encode(),
        "config/catalogue.xml": _xml().encode(),
    }


def _log_line(number: int) -> str:
    return f"2025-09-01T12:{number // 60:02}:{number % 60:02}Z INFO mill turn {number} took {number * 7 % 31} ms\n"


def _xml() -> str:
    sacks = "".join(f'  <sack id="{number}"><grain>rye</grain><weight>25</weight></sack>\n' for number in range(30))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<catalogue>\n{sacks}</catalogue>\n'


def _tables() -> dict[str, bytes]:
    rows = [(number, ("rye", "wheat", "oats")[number % 3], 20 + number * 7 % 13 / 10) for number in range(80)]
    lines = "\n".join(f"{number},{grain},{weight}" for number, grain, weight in rows)
    objects = "\n".join(json.dumps({"id": number, "grain": grain}) for number, grain, _ in rows)
    return {
        "data/sacks.csv": f"id,grain,weight\n{lines}\n".encode(),
        "data/sacks.jsonl": f"{objects}\n".encode(),
        "data/sacks.sqlite": _database(rows),
        "data/sacks.xlsx": _workbook(rows),
        "data/sacks.csv.gz": gzip.compress(f"id,grain,weight\n{lines}\n".encode(), mtime=0),
    }


def _database(rows: list[tuple[int, str, float]]) -> bytes:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE TABLE sacks (id INTEGER PRIMARY KEY, grain TEXT NOT NULL, weight REAL)")
        connection.executemany("INSERT INTO sacks VALUES (?, ?, ?)", rows)
        connection.commit()
        return connection.serialize()
    finally:
        connection.close()


def _workbook(rows: list[tuple[int, str, float]]) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        book.set_properties({"created": datetime(*_WHEN)})
        sheet = book.add_worksheet("sacks")
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return buffer.getvalue()


def _media() -> dict[str, bytes]:
    return {
        "media/gradient.png": _png(96, 64, lambda x, y: (x * 255 // 95, y * 255 // 63, 128)),
        "media/checks.png": _png(64, 64, lambda x, y: (230, 230, 230) if (x // 8 + y // 8) % 2 else (40, 60, 90)),
        "media/dot.gif": _gif(64, 64),
        "media/tone.wav": _tone(),
        "media/wheel.svg": _SVG.encode(),
    }


def _png(width: int, height: int, colour: Callable[[int, int], tuple[int, int, int]]) -> bytes:
    """PNG, third edition: signature, IHDR, one IDAT, IEND; 8-bit RGB, filter 0 on every line."""
    lines = b"".join(b"\0" + b"".join(bytes(colour(x, y)) for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def _gif(width: int, height: int) -> bytes:
    """GIF89a in two colours. A clear code before every second pixel keeps LZW's codes at three bits."""
    codes: list[int] = []
    for y in range(height):
        for x in range(width):
            inside = (x - width // 2) ** 2 + (y - height // 2) ** 2 < 24**2
            codes += [4, int(inside)] if (y * width + x) % 2 == 0 else [int(inside)]
    codes.append(5)
    bits = sum(code << 3 * place for place, code in enumerate(codes))
    packed = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = b"".join(bytes([len(part)]) + part for at in range(0, len(packed), 255) if (part := packed[at : at + 255]))
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([250, 245, 235, 160, 60, 40])
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + blocks + b"\0"
    return b"GIF89a" + screen + image + b";"


def _tone() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        # a triangle wave of 200 Hz for half a second: no trigonometry, so the same bytes on every machine
        sound.writeframes(b"".join(struct.pack("<h", abs(n % 40 - 20) * 800 - 8000) for n in range(4000)))
    return buffer.getvalue()


def _documents() -> dict[str, bytes]:
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inside.txt", date_time=_WHEN), _PROSE * 3)
        archive.writestr(zipfile.ZipInfo("again.txt", date_time=_WHEN), _PROSE * 2)
    return {
        "documents/letter.pdf": _pdf(),
        "documents/more.zip": nested.getvalue(),
    }


def _pdf() -> bytes:
    """One page with one line (ISO 32000-1, 7.5): objects, cross-reference table, trailer."""
    text = b"BT /F1 24 Tf 72 760 Td (Good day from the mill) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
    ]
    out, offsets = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size, start = len(objects) + 1, len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\n" % (size, table, size)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)


def _programs() -> dict[str, bytes]:
    return {"programs/colorsys.pyc": _bytecode(), "programs/textwrap.pyc": _bytecode(textwrap)}


def _bytecode(module: ModuleType = c_source) -> bytes:
    code = compile(_source(module), f"{module.__name__}.py", "exec", dont_inherit=True)
    # marshal's version 2 knows no references, whose flags would depend on who else holds an object just now
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(code, 2)


def _disguises() -> dict[str, bytes]:
    rows = [(number, "rye", 25.0) for number in range(20)]
    with Path(sys.executable).open("rb") as program:
        excerpt = program.read(64 * 1024)
    return {
        "outbox/report.txt": _png(64, 48, lambda x, y: (200, 3 * x, 5 * y)),
        "outbox/photo.jpg": excerpt,
        "outbox/invoice.pdf": _source(b_source),
        "outbox/holiday.gif": _database(rows),
        "outbox/song.wav": _workbook(rows),
        "outbox/readme.docx": _HTML.encode(),
    }


_PROSE = """\
The mill stands where the race meets the river. In spring the water is high and both stones turn from dawn; in August
the miller waits for rain, mends the sluice and keeps the sacks dry. Whoever brings grain gets a number and may watch.
"""
_MARKDOWN = f"# Notes\n\n{_PROSE}\n## Next\n\n- weigh the grain\n- mend the *wheel*\n- read the [plan](plan.md)\n"
_RUSSIAN = """\
ОТЧЁТ ЗА СЕНТЯБРЬ

Мельница стоит там, где лоток встречается с рекой. Весной вода высока, и оба жёрнова вертятся с рассвета; в августе
мельник ждёт дождя, чинит шлюз и бережёт мешки от сырости. Кто привёз зерно, получает номер и может смотреть.

1. Смолото 420 мешков ржи и 95 мешков пшеницы, больше, чем в прошлом году.
2. Починены колесо и шлюз; новый жёрнов привезут в октябре, когда просохнет дорога.
3. Жалоб не было. Два мешка овса до сих пор никто не забрал.

Мельник Иван Петров
"""
_SHELL = """\
#!/usr/bin/env bash
set -euo pipefail
for source in src/*.c; do
    cc -O2 -o "build/$(basename "${source}" .c)" "${source}" || exit 1
done
"""
_CSS = (
    "body { margin: 0; font: serif; }\n.mill > .wheel:hover { color: #a03c28; }\n@media print { nav { display: none } }"
)
_JAVASCRIPT = """\
const wheel = document.querySelector("#wheel");
let turns = 0;
function turn(event) {
  wheel.textContent = `turn ${++turns}`;
  if (turns > 10) { window.removeEventListener("click", turn); }
}
window.addEventListener("click", turn);
export default turn;
"""
_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>The mill</title><link rel="stylesheet" href="style.css"></head>
<body><h1>The mill</h1><p>Both stones turn from <em>dawn</em>.</p>
<script src="app.js"></script>
</body>
</html>
"""
_YAML = """\
services:
  mill:
    image: mill:1.0
    ports:
      - "8000:8000"
    restart: unless-stopped
"""
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 64 64">
  <circle cx="32" cy="32" r="24" fill="none" stroke="#a03c28" stroke-width="4"/>
</svg>
"""
