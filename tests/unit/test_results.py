"""The section "Result files" of the promises, sentence by sentence, and what hostile files may not do."""

import datetime
import io
import json
import re
import zipfile
from typing import Any

import msgspec
import pytest
import xlsxwriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors.inference import ResultUnreadable
from domain.results import Parsed, grid, parse, spreadsheet, to_xlsx
from domain.results.formats import MAX_COLUMNS

HEADER = ["study_uid", "probability_of_pathology", "pathology", "processing_status", "time_of_processing"]
ROWS: list[list[Any]] = [["1.2.3", 0.25, 1, "Success", 2.5], ["1.2.4", 0.75, 0, "Failure", 1.5]]


def csv_of(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def xlsx_of(*rows: list[Any], name: str = "Sheet1") -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"}) as workbook:
        sheet = workbook.add_worksheet(name)
        for line, row in enumerate(rows):
            sheet.write_row(line, 0, row)
    return buffer.getvalue()


def json_of(*rows: list[Any]) -> bytes:
    return json.dumps([dict(zip(rows[0], row, strict=True)) for row in rows[1:]]).encode()


def delimited(*rows: list[Any]) -> bytes:
    return csv_of(*(",".join(map(str, row)) for row in rows))


def one(header: str, cell: Any) -> Any:
    """The only row of a file with this one cell, read from JSON, where a cell keeps its type."""
    parsed = parse(json.dumps([{header: cell, "note": "kept"}]).encode())
    assert parsed.warnings_total == 0, parsed.warnings
    return parsed.rows[0][parsed.columns[0]]


def edited(data: bytes, **parts: bytes) -> bytes:
    """The workbook with whole parts replaced: `sheet1=b"<worksheet.../>"`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            stem = info.filename.rpartition("/")[2].removesuffix(".xml")
            new.writestr(info.filename, parts.get(stem, old.read(info)))
    return out.getvalue()


def sheet_of(rows: str) -> bytes:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<?xml version="1.0"?><worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'.encode()


def refusal(data: bytes, **limits: int) -> str:
    with pytest.raises(ResultUnreadable) as raised:
        parse(data, **limits)
    return str(raised.value)


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("write", [xlsx_of, json_of, delimited])
def test_the_same_rows_are_read_from_xlsx_csv_and_json(write: Any) -> None:
    parsed = parse(write(HEADER, *ROWS))
    assert parsed.columns == HEADER
    assert parsed.rows == [{**dict(zip(HEADER, row, strict=True)), "extra": {}} for row in ROWS]
    assert parsed.warnings == []
    assert msgspec.json.decode(msgspec.json.encode(parsed), type=Parsed) == parsed


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251"])
def test_csv_is_read_in_its_own_encoding_and_delimiter(delimiter: str, encoding: str) -> None:
    lines = [["pathology", "Заметка"], ["да", '"лёгкие; да, оба\tтоже"']]
    data = "\r\n".join(delimiter.join(line) for line in lines).encode(encoding)
    assert parse(data).rows == [{"pathology": 1, "extra": {"Заметка": "лёгкие; да, оба\tтоже"}}]


def test_a_semicolon_file_with_decimal_commas_and_quotes_is_not_taken_for_a_comma_file() -> None:
    parsed = parse(csv_of('"path";"score";"a, b, c, d"', '"x";"0,5";"1, 2"'))
    assert parsed.rows == [{"path": "x", "score": 0.5, "extra": {"a, b, c, d": "1, 2"}}]


@pytest.mark.parametrize("envelope", ["rows", "results", "data"])
def test_json_may_wrap_its_array_of_objects(envelope: str) -> None:
    data = json.dumps({"took": 3, envelope: [{"pathology": True}]}).encode()
    assert parse(b"\xef\xbb\xbf\n " + data).rows == [{"pathology": 1, "extra": {}}]


def test_json_rows_may_have_different_keys_and_bare_nan_is_nothing() -> None:
    parsed = parse(b'[{"path": "a"}, {"PATH ": "b", "score": 1}, {"score": NaN, "x": 2}]')
    assert [(row["path"], row["score"]) for row in parsed.rows] == [("a", None), ("b", 1.0), (None, None)]
    assert parsed.warnings_total == 0


def test_a_file_without_rows_is_an_empty_result() -> None:
    assert parse(b"path,score\n").summary.rows == parse(xlsx_of(["path", "score"])).summary.rows == 0
    assert parse(b"[]").rows == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf \r\n", "it is empty"),
        (b",,\n,,\n", "no header row"),
        (xlsx_of(), "no header row"),
        (b"Internal Server Error", "names no columns"),
        (b"<html><body>502</body></html>", "HTML or XML"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"\.xls or a password-protected"),
        ("path,score\n".encode("utf-16"), "UTF-16"),
        (b"path,score\nx\x00y,1\n", "binary data"),
        (b"path,score\n\x98\xff,1\n", "Windows-1251"),
        (b'path,score\n"never closed,1\nx,1\n', "damaged CSV near line 3"),
        (b'[{"path": "x",]', "damaged JSON at line 1"),
        (b'{"path": "\xff"}', "UTF-8"),
        (b'{"error": "no"}', "no array under rows, results, data"),
        (b"[1, 2]", "item 1 of the JSON array is not an object"),
        (b'[{"x": "\\ud800"}]', "UTF-8"),
        (b"[" * 100_000, "JSON cannot be read"),
        (b'[{"x": ' + b"[" * 100 + b"]" * 100 + b"}]", "nested more than"),
        (xlsx_of(HEADER, *ROWS)[:-40], "damaged or cut short"),
        (b"PK\x03\x04" + b"x" * 100, "damaged or cut short"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_why(data: bytes, reason: str) -> None:
    assert re.search(reason, refusal(data))
    assert ResultUnreadable.code == "result_unreadable"


def test_a_zip_archive_is_not_a_workbook() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("study/1.dcm", b"DICM")
    assert "without xl/workbook.xml" in refusal(buffer.getvalue())


# ---------------------------------------------------------------- rows and headers


@pytest.mark.parametrize("write", [xlsx_of, json_of, delimited])
def test_at_most_so_many_rows_are_read_and_blank_ones_do_not_count(write: Any) -> None:
    rows = [["path", "note"], *[["x", "y"]] * 3, ["", " "]]
    assert parse(write(*rows), max_rows=3).summary.rows == 3
    assert "more than 2 rows" in refusal(write(*rows), max_rows=2)


def test_100_000_rows_are_the_default_limit() -> None:
    assert parse(b"path\n" + b"x\n" * 100_000).summary.rows == 100_000
    assert "more than 100000 rows" in refusal(b"path\n" + b"x\n" * 100_001)


@pytest.mark.parametrize("write", [xlsx_of, json_of, delimited])
def test_headers_are_matched_without_regard_to_case_and_surrounding_space(write: Any) -> None:
    parsed = parse(write(["  Study_UID ", "PATHOLOGY"], ["1.2", 1]))
    assert parsed.columns == ["study_uid", "pathology"]
    assert parsed.rows == [{"study_uid": "1.2", "pathology": 1, "extra": {}}]


@pytest.mark.parametrize("write", [xlsx_of, delimited])
def test_blank_rows_are_skipped_and_keep_their_numbers(write: Any) -> None:
    parsed = parse(write(["", ""], ["path", "score"], ["", "  "], ["a", 1], ["", ""], ["b", "bad"]))
    assert [row["path"] for row in parsed.rows] == ["a", "b"]
    assert [warning.row for warning in parsed.warnings] == [6]


def test_unknown_columns_are_kept_under_extra() -> None:
    moment = datetime.datetime(2025, 9, 1, 12, 30)
    parsed = parse(xlsx_of(["path", "When", "count", "", "Path", "note"], ["a", moment, 7, "unnamed", "b", None]))
    extra = {"When": "2025-09-01T12:30:00", "count": 7, "column_4": "unnamed", "Path": "b"}
    assert parsed.rows == [{"path": "a", "extra": extra}]
    nested = {"deep": [1, {"x": None}], "big": 2**70, "nul": "a\x00b"}
    kept = parse(json.dumps([{"path": "a", "nested": nested}]).encode()).rows[0]["extra"]["nested"]
    assert kept == {"deep": [1, {"x": None}], "big": str(2**70), "nul": "ab"}


def test_no_cell_is_lost_to_a_repeated_header_or_a_row_longer_than_the_header() -> None:
    parsed = parse(csv_of("path,note,note", "a,1,2,3", "b"))
    assert parsed.rows == [
        {"path": "a", "extra": {"note": "1", "note (2)": "2", "column_4": "3"}},
        {"path": "b", "extra": {}},
    ]


def test_more_columns_than_the_limit_are_refused() -> None:
    names = [f"c{number}" for number in range(MAX_COLUMNS + 1)]
    for data in (csv_of(",".join(names)), json.dumps([{name: 1} for name in names]).encode()):
        assert f"more than {MAX_COLUMNS} columns" in refusal(data)


# ---------------------------------------------------------------- chest CT


@pytest.mark.parametrize("column", ["path_to_study", "study_uid", "series_uid"])
def test_texts_are_read_as_they_are(column: str) -> None:
    assert one(column, " 1.20 ") == "1.20"
    assert one(column, 12) == "12"


@pytest.mark.parametrize("column", ["probability_of_pathology", "probability_of_anomaly", "anom_score", "prob@anomaly"])
@pytest.mark.parametrize(
    ("cell", "value"), [(0, 0.0), (1, 1.0), (0.5, 0.5), ("0,25", 0.25), (" 0.25 ", 0.25), ("25 %", 0.25)]
)
def test_a_probability_is_from_0_to_1_and_takes_a_decimal_comma(column: str, cell: Any, value: float) -> None:
    assert one(column, cell) == value


@pytest.mark.parametrize("column", ["probability_of_pathology", "probability_of_anomaly"])
@pytest.mark.parametrize(("cell", "value"), [(87, 0.87), ("87,5", 0.875), ("0", 0.0), ("100%", 1.0)])
def test_the_percent_alias_is_divided_by_100(column: str, cell: Any, value: float) -> None:
    parsed = parse(json.dumps([{f"{column}_percent": cell}]).encode())
    assert parsed.columns == [column]
    assert parsed.rows[0][column] == pytest.approx(value)


def test_a_column_under_its_own_name_comes_before_one_under_an_alias() -> None:
    parsed = parse(csv_of("probability_of_pathology_percent,probability_of_pathology", "90,0.1"))
    assert parsed.rows == [{"probability_of_pathology": 0.1, "extra": {"probability_of_pathology_percent": "90"}}]


@pytest.mark.parametrize("cell", [1, 1.0, "1", "1.0", "1,0", True, "true", "TRUE", "Yes", "да", " Да "])
def test_pathology_is_1_however_it_is_written(cell: Any) -> None:
    assert one("pathology", cell) == 1
    assert one("flagged", cell) is True


@pytest.mark.parametrize("cell", [0, 0.0, "0", "0.0", "0,0", False, "false", "No", "нет"])
def test_pathology_is_0_however_it_is_written(cell: Any) -> None:
    assert one("pathology", cell) == 0
    assert one("flagged", cell) is False


def test_xlsx_booleans_and_floats_are_pathology_too() -> None:
    assert [row["pathology"] for row in parse(xlsx_of(["pathology"], [True], [0.0], [1], [False])).rows] == [1, 0, 1, 0]


@pytest.mark.parametrize(("cell", "value"), [("Success", "Success"), ("FAILURE ", "Failure")])
def test_processing_status_is_success_or_failure(cell: str, value: str) -> None:
    assert one("processing_status", cell) == value


@pytest.mark.parametrize("column", ["time_of_processing", "processing_time", "time_of_analysis"])
def test_processing_time_is_in_seconds_under_each_of_its_names(column: str) -> None:
    assert one(column, "12,5") == 12.5
    parsed = parse(xlsx_of([column], [3]))
    assert parsed.columns == ["time_of_processing"]
    assert parsed.rows[0]["time_of_processing"] == 3.0


def test_a_time_cell_of_a_spreadsheet_is_seconds() -> None:
    assert parse(xlsx_of(["processing_time"], [datetime.time(0, 1, 30)])).rows[0]["time_of_processing"] == 90.0


def test_the_most_dangerous_pathology_is_the_name_of_the_largest_prob_column() -> None:
    parsed = parse(csv_of("study_uid;prob@Nodule;prob@effusion;prob@anomaly", "1;0,2;0,7;0,99", "2;;;0,5"))
    assert parsed.columns == [
        "study_uid",
        "probability_of_anomaly",
        "most_dangerous_pathology_type",
        "hazard_probability",
    ]
    first, second = parsed.rows
    assert (first["most_dangerous_pathology_type"], first["hazard_probability"]) == ("effusion", 0.7)
    assert first["probability_of_anomaly"] == 0.99
    assert first["extra"] == {"prob@Nodule": 0.2, "prob@effusion": 0.7}
    assert (second["most_dangerous_pathology_type"], second["hazard_probability"]) == (None, None)
    assert parsed.warnings == []


def test_of_equally_large_prob_columns_the_first_is_named() -> None:
    assert parse(csv_of("prob@a,prob@b", "0.5,0.5")).rows[0]["most_dangerous_pathology_type"] == "a"


def test_what_the_service_itself_calls_most_dangerous_comes_first() -> None:
    head = "most_dangerous_pathology_type,hazard_probability,prob@a,prob@b"
    parsed = parse(csv_of(head, "c,0.5,0.1,0.9", ",,0.1,0.9", "d,bad,0.1,worse"))
    named = [(row["most_dangerous_pathology_type"], row["hazard_probability"]) for row in parsed.rows]
    assert named == [("c", 0.5), ("b", 0.9), ("d", None)]
    assert [warning.column for warning in parsed.warnings] == ["hazard_probability", "prob@b"]


@pytest.mark.parametrize(
    "cell",
    [
        "1,2.5,3,4,5,6",
        " 1; 2,5; 3; 4; 5; 6 ",
        "[1, 2.5, 3, 4, 5, 6]",
        [1, 2.5, 3, "4", 5, 6],
        {"z_max": 6, "z_min": 5, "y_max": 4, "y_min": 3, "x_max": 2.5, "x_min": 1},
    ],
)
def test_localization_is_a_list_of_six_numbers(cell: Any) -> None:
    assert one("pathology_localization", cell) == [1, 2.5, 3, 4, 5, 6]


def test_the_magika_service_answers_with_its_own_columns() -> None:
    header = ["path", "size", "detected_type", "mime_type", "description", "score", "expected_type", "flagged"]
    row = ["a/б.png", 120, "exe", "application/x-dosexec", "PE file", 0.99, "png", True]
    for write in (xlsx_of, json_of, delimited):
        parsed = parse(write(header, row))
        assert parsed.columns == header
        assert parsed.rows == [{**dict(zip(header, row, strict=True)), "extra": {}}]


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("probability_of_pathology", "high", "not a number"),
        ("probability_of_pathology", 1.2, "not between 0 and 1"),
        ("probability_of_pathology", True, "not a number"),
        ("probability_of_pathology", "1_0", "not a number"),
        ("probability_of_pathology_percent", 101, "not between 0 and 100"),
        ("pathology", "maybe", "not 0 or 1"),
        ("pathology", 2, "not 0 or 1"),
        ("processing_status", "Done", "not Success or Failure"),
        ("processing_status", 1, "not Success or Failure"),
        ("time_of_processing", -1, "less than 0"),
        ("time_of_processing", "inf", "not a finite number"),
        ("pathology_localization", "1,2,3", "not six numbers"),
        ("pathology_localization", "[1,2", "not a JSON array"),
        ("pathology_localization", [1, 2, 3, 4, 5, None], "not six numbers"),
        ("size", 1.5, "whole number"),
        ("size", int("9" * 400), "not a finite number"),
        ("score", {"a": 1}, "not a number"),
    ],
)
def test_a_cell_that_cannot_be_read_is_reported_and_its_row_kept(column: str, cell: Any, reason: str) -> None:
    parsed = parse(json.dumps([{"study_uid": "1", column: ""}, {"study_uid": "2", column: cell}]).encode())
    assert [row["study_uid"] for row in parsed.rows] == ["1", "2"]
    assert parsed.rows[1][parsed.columns[1]] is None
    (warning,) = parsed.warnings
    assert (warning.row, warning.column) == (2, column)
    assert reason in warning.reason


def test_a_warning_names_the_row_and_column_as_in_the_file_and_shortens_the_value() -> None:
    parsed = parse(csv_of("path, Score ", "a,1", "", "b," + "x" * 500))
    (warning,) = parsed.warnings
    assert (warning.row, warning.column, len(warning.value)) == (4, "Score", 80)
    assert warning.value.endswith("x…")


def test_an_error_of_excel_itself_is_a_cell_that_cannot_be_read() -> None:
    cells = '<row r="1"><c r="A1" t="str"><v>score</v></c></row><row r="2"><c r="A2" t="e"><v>#DIV/0!</v></c></row>'
    parsed = parse(edited(xlsx_of(["x"]), sheet1=sheet_of(cells)))
    assert parsed.rows == [{"score": None, "extra": {}}]
    assert [(warning.row, warning.value) for warning in parsed.warnings] == [(2, "#DIV/0!")]


def test_all_warnings_are_counted_but_only_a_thousand_kept() -> None:
    parsed = parse(b"score\n" + b"bad\n" * 1_500)
    assert (len(parsed.warnings), parsed.warnings_total, parsed.summary.rows) == (1_000, 1_500, 1_500)


# ---------------------------------------------------------------- summary


def test_the_summary_of_a_ct_file() -> None:
    summary = parse(delimited(HEADER, *ROWS, ["1.2.5", "", 1, "Success", ""])).summary
    assert (summary.rows, summary.succeeded, summary.failed) == (3, 2, 1)
    assert (summary.pathologies, summary.flagged) == (2, None)
    assert (summary.mean_probability, summary.total_seconds) == (0.5, 4.0)


def test_the_summary_of_a_magika_file() -> None:
    summary = parse(csv_of("path,score,flagged", "a,0.5,true", "b,0.9,false", "c,0.1,true")).summary
    assert (summary.rows, summary.flagged) == (3, 2)
    assert (summary.succeeded, summary.failed, summary.pathologies) == (None, None, None)
    assert (summary.mean_probability, summary.total_seconds) == (None, None)


# ---------------------------------------------------------------- workbooks out


def test_a_workbook_written_is_read_back_the_same() -> None:
    header = [*HEADER, "pathology_localization", "flagged", "prob@Nodule", "note"]
    rows = [[*row, [1, 2, 3, 4, 5, 6], True, 0.5, "да"] for row in ROWS]
    parsed = parse(json_of(header, *rows))
    assert parse(to_xlsx(parsed.columns, iter(parsed.rows))) == parsed


def test_text_that_looks_like_a_formula_or_a_link_stays_text() -> None:
    texts = [
        '=HYPERLINK("http://x")',
        "{=1+1}",
        "+1",
        "@SUM(A1)",
        "https://example.org",
        "mailto:a@b",
        "0012",
        "_x0041_",
        "<r>&</r>",
        "<r><t>x</t></r>",
    ]
    rows = [{"path": text, "extra": {"=cmd": text}} for text in texts]
    data = to_xlsx(["path"], rows)
    assert parse(data).rows == rows
    sheet = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml")
    assert b"<f>" not in sheet
    assert b"<hyperlink" not in sheet


def test_a_text_longer_than_a_cell_is_cut_and_a_sheet_that_is_too_long_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"path": text, "extra": {}} for text in ("x" * 40_000, "<r>" + "é" * 40_000 + "</r>")]
    cut = [len(row["path"]) for row in parse(to_xlsx(["path"], rows)).rows]
    assert cut == [32_767, 16_379]
    monkeypatch.setattr("domain.results.workbook.MAX_ROWS", 1)
    with pytest.raises(ValueError, match="at most 1 rows"):
        to_xlsx(["path"], rows)


def test_extra_columns_follow_the_known_ones_and_the_same_rows_are_the_same_bytes() -> None:
    rows = [{"path": "a", "extra": {"x": 1}}, {"path": "b", "extra": {"y": [1], "x": 10**20}}]
    data = to_xlsx(["path"], rows)
    assert to_xlsx(["path"], rows) == data
    table = list(spreadsheet.read_rows(data))
    assert table == [["path", "x", "y"], ["a", 1.0, ""], ["b", str(10**20), "[1]"]]


# What XML cannot hold is left out of the promise; everything else must survive.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1, max_size=20
)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS.map(str.strip).filter(bool), min_size=1, max_size=5))
def test_any_text_survives_a_workbook(texts: list[str]) -> None:
    rows = [{"path": text, "extra": {}} for text in texts]
    assert parse(to_xlsx(["path"], rows)).rows == rows


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    "rows",
    [
        '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>',
        '<row r="1"><c r="A1"><v>1</v></c><c r="XFD1048576"><v>2</v></c></row>',
        '<row r="1"><c s="0" r="A1"><v>1</v></c></row><row r="1048576"><c s="0" r="XFD1048576"><v>2</v></c></row>',
        '<row r="1"><c><v>1</v></c></row><row r="1048576">' + "<c/>" * 16_000 + "</row>",
        '<row r="1"><c r="A1"/></row><!--' + '<c r="A1"/>' * 900 + '--><row r="1048576">' + "<c/>" * 900 + "</row>",
        '<row r="1"><c r="A1"/></row><row r="9999999999"><c r="A9999999999"/></row>',
        '<row r="1"><c r="A1"/></row><row r="2"><c r="ZZZZZZZZZ2"/></row>',
    ],
)
def test_a_few_kilobytes_cannot_ask_for_a_huge_grid(rows: str) -> None:
    # without the guard the process is aborted here, not failed: 512 GiB are asked for
    assert "spreads over" in refusal(edited(xlsx_of(["x"]), sheet1=sheet_of(rows)))


def test_cells_may_leave_their_places_out_or_carry_a_prefix() -> None:
    bare = "<row><c><v>1</v></c></row>"
    head = '<row><c t="str"><v>path</v></c></row>'
    parsed = parse(edited(xlsx_of(["x"]), sheet1=sheet_of(head + bare * 3)))
    assert [row["path"] for row in parsed.rows] == ["1"] * 3
    assert grid.grid_of(sheet_of('<row r="3"><c/><c r="D3"/><c/></row><row><c/></row>')) == (4, 5, 4)
    main = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    prefixed = sheet_of(head + bare).replace(b"<", b"<x:").replace(b"<x:/", b"</x:").replace(b"<x:?", b"<?")
    prefixed = prefixed.replace(b'xmlns="' + main, b'xmlns:x="' + main)
    assert [row["path"] for row in parse(edited(xlsx_of(["x"]), sheet1=prefixed)).rows] == ["1"]


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    small = xlsx_of(["path"], ["x"])
    assert "packed more than" in refusal(edited(small, sheet1=sheet_of(" " * 20_000_000)))


def test_a_part_that_lies_about_its_size_is_refused() -> None:
    data = bytearray(xlsx_of(["path"], *[["x"]] * 500))
    info = zipfile.ZipFile(io.BytesIO(data)).getinfo("xl/worksheets/sheet1.xml")
    declared = info.file_size.to_bytes(4, "little")
    assert bytes(data).count(declared) >= 1
    assert "damaged" in refusal(bytes(data).replace(declared, (50).to_bytes(4, "little")))


def test_unpacking_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "MAX_UNPACKED", 2_000)
    assert "unpacks to more than" in refusal(xlsx_of(["path"], *[["x"]] * 500))


def test_one_long_shared_string_cannot_be_multiplied_by_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "MAX_TEXT", 1_000_000)
    assert "text comes to more than" in refusal(xlsx_of(["path"], *[["x" * 30_000]] * 40))
    assert parse(xlsx_of(["path"], ["x" * 30_000], *[["y"]] * 40)).summary.rows == 41


def test_two_parts_with_one_name_are_refused() -> None:
    buffer = io.BytesIO(xlsx_of(["path"], ["x"]))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("XL/worksheets/Sheet1.xml", sheet_of(""))
    assert "twice" in refusal(buffer.getvalue())


def parsed_or_refused(data: bytes) -> None:
    try:
        parsed = parse(data, max_rows=50)
    except ResultUnreadable:
        return
    assert b"\\u0000" not in msgspec.json.encode(parsed)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='a0;,\t\n"[]{}:é\\u', max_size=60).map(str.encode))
def test_random_bytes_are_parsed_or_refused(data: bytes) -> None:
    for prefix in (b"", b"path,score\n", b"[", b"PK\x03\x04"):
        parsed_or_refused(prefix + data)


KEYS = st.sampled_from([*HEADER, "pathology_localization", "size", "prob@x", "note", "NOTE "])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=7),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=5))
def test_any_json_rows_are_parsed_or_refused(rows: list[dict[str, Any]]) -> None:
    parsed_or_refused(json.dumps(rows).encode())


GENUINE = xlsx_of(HEADER, *ROWS, ["x", datetime.datetime(2025, 1, 1), True, "<&>", -1])
STORED = io.BytesIO()
with zipfile.ZipFile(io.BytesIO(GENUINE)) as _old, zipfile.ZipFile(STORED, "w") as _new:
    for _info in _old.infolist():
        _new.writestr(_info.filename, _old.read(_info))
EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EDITS, st.sampled_from([GENUINE, STORED.getvalue()]), st.integers(0, 400))
def test_a_mutated_workbook_is_parsed_or_refused(edits: list[tuple[int, bytes]], data: bytes, cut: int) -> None:
    mutated = bytearray(data)
    for place, piece in edits:
        mutated[place % len(mutated) : place % len(mutated) + len(piece)] = piece
    parsed_or_refused(bytes(mutated[: len(mutated) - (cut - 380 if cut > 380 else 0)]))


@settings(max_examples=300, deadline=None)
@given(EDITS, st.sampled_from(["sheet1", "sharedStrings", "styles", "workbook"]))
def test_a_workbook_with_mutated_xml_is_parsed_or_refused(edits: list[tuple[int, bytes]], part: str) -> None:
    # the packing stays right, so that the damage reaches the XML behind the checksums
    with zipfile.ZipFile(io.BytesIO(GENUINE)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(f"/{part}.xml"))
        mutated = bytearray(archive.read(name))
    for place, piece in edits:
        mutated[place % len(mutated) : place % len(mutated) + len(piece)] = piece
    parsed_or_refused(edited(GENUINE, **{part: bytes(mutated)}))


@pytest.mark.parametrize("said", [b"hello, this is not a spreadsheet", b"error: no series, sorry", b"a,b\n\n,\n"])
def test_a_sentence_is_no_result(said: bytes) -> None:
    with pytest.raises(ResultUnreadable, match="neither rows nor a column"):
        parse(said)


def test_a_header_that_is_known_may_stand_alone() -> None:
    assert parse(b"path,score,flagged\n").rows == []
