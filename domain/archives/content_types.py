"""A content type for a file name.

A table of our own: ``mimetypes`` reads the system's files, so the same archive would be listed differently elsewhere.
"""

_TABLE = """
application/dicom dcm dicom ima
application/gzip gz tgz
application/java-archive jar
application/json json
application/msword doc
application/octet-stream bin dat
application/pdf pdf
application/rtf rtf
application/sql sql
application/toml toml
application/vnd.android.package-archive apk
application/vnd.apache.parquet parquet
application/vnd.ms-excel xls
application/vnd.ms-outlook msg
application/vnd.ms-powerpoint ppt
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.microsoft.portable-executable exe dll
application/vnd.rar rar
application/vnd.sqlite3 sqlite sqlite3
application/wasm wasm
application/x-7z-compressed 7z
application/x-bzip2 bz2
application/x-ndjson jsonl ndjson
application/x-sh sh
application/x-tar tar
application/x-xz xz
application/xml xml xsd
application/yaml yaml yml
application/zip zip
application/zstd zst
audio/aac aac
audio/amr amr
audio/flac flac
audio/mp4 m4a
audio/mpeg mp3
audio/ogg oga ogg opus
audio/wav wav
font/ttf ttf
font/woff2 woff2
image/avif avif
image/bmp bmp
image/gif gif
image/heic heic
image/jpeg jpeg jpg
image/png png
image/svg+xml svg
image/tiff tif tiff
image/webp webp
image/x-icon ico
message/rfc822 eml
text/calendar ics
text/css css
text/csv csv
text/html htm html
text/javascript js mjs
text/markdown md
text/plain cfg conf ini log text txt
text/tab-separated-values tsv
text/vcard vcf
text/x-python py
video/3gpp 3gp
video/mp4 m4v mp4
video/quicktime mov
video/webm webm
video/x-matroska mkv
video/x-msvideo avi
"""

_TYPES = {f".{suffix}": line.split()[0] for line in _TABLE.split("\n") if line for suffix in line.split()[1:]}


class TypesBySuffix(dict[str, str | None]):
    """``types[".CSV"]``, whatever its case; every spelling met is folded once, which counts in a million entries."""

    def __missing__(self, suffix: str) -> str | None:
        found = self[suffix] = _TYPES.get(suffix.lower())
        return found


def content_type(name: str) -> str | None:
    """The content type its extension stands for; None for folders, unknown extensions and none."""
    return _TYPES.get(name[name.rfind(".") :].lower())
