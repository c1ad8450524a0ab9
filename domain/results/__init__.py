"""Result files of ML services: read from XLSX, CSV or JSON, and written as XLSX."""

from domain.results.parsing import CellWarning, Parsed, Row, parse
from domain.results.summary import Summary, summarise
from domain.results.workbook import to_xlsx

__all__ = ["CellWarning", "Parsed", "Row", "Summary", "parse", "summarise", "to_xlsx"]
