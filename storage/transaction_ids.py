"""PostgreSQL's 64-bit transaction ids (xid8), for which SQLAlchemy has no type of its own."""

from typing import Any

from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType


class TransactionId(UserDefinedType[int]):
    """``xid8``: unlike ``xid`` it never wraps around (PostgreSQL manual, 8.19 and 9.27.7)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


ischema_names["xid8"] = TransactionId  # so that migrations and tables can be compared
