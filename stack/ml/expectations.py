"""What a file's name promises, and whether its content keeps the promise.

The promises come from magika's own knowledge base, where each content type lists its extensions. Taken literally they
would flag half of any disk: ``.txt`` holds whatever is text, ``.zip`` may hold a Word document and ``.h`` is C as often
as C++. So types that pass for each other in ordinary life are kin, and only what no kin explains is a contradiction.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

# A name with one of these says "text" and no more.
_PROSE = frozenset({"txt", "markdown", "rst", "asc", "license", "diff"})
# Nothing was detected that could contradict a name. An empty file keeps every promise.
_SILENT = frozenset({"empty", "unknown", "undefined", "symlink", "directory"})
# Extensions whose owner in the knowledge base is one among many: .lock, .cat, .sum and .dat hold anything, .snap is
# mostly Jest's, .pro Qt's, .l lex's, .pp Puppet's, .cl OpenCL's, .obj a 3D mesh, .pth Python's path files
_PROMISES_NOTHING = "aff b cat cl dat dm exp img l lock m null obj p par pp pro pth pub s snap sum svd v wad"
# What an extension may hold besides, one way only: JSON is YAML, but YAML is not JSON. And everyday extensions the
# knowledge base leaves out.
_ALSO = {
    "doc": "rtf",
    "js": "json",
    "ts": "xml",  # Qt's translations
    "yaml": "json",
    "yml": "json",
    "log": "txt",
    "text": "txt",
    "jfif": "jpeg",
    "jpe": "jpeg",
    "m4a": "mp4",
    "m4v": "mp4",
    "pyw": "python",
}

_ZIP_BUILT = (
    "3mf apk crx docx dotx epub jar maff msix npz nupkg odp ods odt ooxml pptx pytorch sh3d visio xlsb xlsx xpi"
)
_FAMILIES = [
    frozenset(line.split())
    for line in """
        c cpp h hpp objectivec
        javascript typescript jsx tsx vue
        json jsonc jsonl ipynb
        html xml svg rdf asp php jinja handlebars twig erb django mum csproj vcxproj appleplist jnlp vue mht hta sgml
        xml xsd gpx svg csproj vcxproj mum appleplist rdf
        css scss less
        csv tsv
        ini toml yaml internetshortcut winregistry gitmodules gitattributes ignorefile htaccess textproto
        ruby gemfile gemspec erb
        java groovy gradle kotlin
        shell dockerfile makefile awk m4
        python bazel
        latex latexaux bib
        lisp scheme clojure
        matlab objectivec
        perl prolog
        vba vbe asp
        sql txt
        proto textproto
        pem crt pgp asc
        exe dll pebin sys scr cpl ocx ax mui com rll mun
        elf so ko odex o object coff macho dylib
        mp4 qt 3gp
        mkv webm ebml
        wma wmv asf
        mp3 mp2
        wav riff
        ttf otf
        pdf ai postscript
        doc rtf
        pickle pytorch
        stlbinary stltext
        ar deb rlib
        """.strip().splitlines()
] + [frozenset({"zip", label}) for label in _ZIP_BUILT.split()]

# A type the model never learnt can only be contradicted by something of another nature: magika cannot say "HEIC", but
# it can say "this picture is a program".
_NATURES = {"image": "media", "audio": "media", "video": "media", "font": "media", "archive": "media"}


class Expectations:
    """Compares names with detected types. ``learnt`` are the labels the model can answer."""

    def __init__(self, learnt: Iterable[str], knowledge: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._learnt = frozenset(learnt)
        self._knowledge = knowledge if knowledge is not None else _read_knowledge()
        self._by_extension = self._extensions()

    def expected_type(self, name: str) -> str:
        """The content type the name's extension promises, as magika's label; '' when it promises none."""
        labels = self._labels(name)
        return labels[0] if labels else ""

    def contradicts(self, name: str, detected: str) -> bool:
        """Whether a file of this name should not hold content of the ``detected`` type."""
        labels = self._labels(name)
        if not labels or detected in _SILENT:
            return False
        kin = _kin(labels)
        if detected in kin:
            return False
        if self._is_text(detected) and (not _PROSE.isdisjoint(labels) or detected == "txt"):
            # prose may hold any text; and "txt" is what magika says of a text it cannot name: too short or too mixed
            return not any(self._is_text(label) for label in labels)
        if kin.isdisjoint(self._learnt):
            return self._of_another_nature(labels, detected)
        return True

    def _of_another_nature(self, labels: tuple[str, ...], detected: str) -> bool:
        natures = {self._nature(label) for label in labels}
        return "other" not in natures and self._nature(detected) not in {*natures, "other"}

    def _nature(self, label: str) -> str:
        if self._is_text(label):
            return "text"
        group = self._knowledge.get(label, {}).get("group")
        return "program" if group == "executable" else _NATURES.get(str(group), "other")

    def _is_text(self, label: str) -> bool:
        return bool(self._knowledge.get(label, {}).get("is_text"))

    def _labels(self, name: str) -> tuple[str, ...]:
        suffixes = [suffix[1:].lower() for suffix in PurePosixPath(name).suffixes]
        # .tar.gz first, then .gz
        return self._by_extension.get(".".join(suffixes[-2:])) or self._by_extension.get("".join(suffixes[-1:]), ())

    def _extensions(self) -> dict[str, tuple[str, ...]]:
        """Extension, lower case without the dot, to its labels; those the model can answer come first."""
        found: dict[str, list[str]] = {}
        for label, about in self._knowledge.items():
            for extension in about["extensions"]:
                found.setdefault(extension.lower(), []).append(label)
        for extension, label in _ALSO.items():
            found.setdefault(extension, []).append(label)
        return {
            extension: tuple(sorted(labels, key=lambda label: label not in self._learnt))
            for extension, labels in found.items()
            if extension not in _PROMISES_NOTHING.split()
        }


def _kin(labels: tuple[str, ...]) -> frozenset[str]:
    return frozenset(labels).union(*(family for family in _FAMILIES if not family.isdisjoint(labels)))


def _read_knowledge() -> dict[str, dict[str, Any]]:
    # the wheel's own data file; the library offers the same only behind a private attribute
    path = files("magika") / "config" / "content_types_kb.min.json"
    knowledge: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return knowledge
