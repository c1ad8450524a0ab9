"""An upload as its owner sees it."""

from uuid import UUID

from sqlalchemy import text

from domain.files import File
from domain.uploads import Upload, metadata
from storage import files
from storage.database import autocommit
from storage.uploads.receiving import Standing

_job = text("""
    SELECT jobs.id FROM uploads JOIN jobs ON jobs.id = CAST(uploads.job ->> 'id' AS uuid)
    WHERE uploads.id = :id AND uploads.state = 'complete'""")


def view(standing: Standing) -> Upload:
    """With its file and its job, where they are there."""
    file: File | None = None
    job_id: UUID | None = None
    if standing.state == "complete":
        with autocommit() as connection:
            file = files.by_id(connection, standing.id, standing.owner_id)
            job_id = connection.execute(_job, {"id": standing.id}).scalar_one_or_none()
    return Upload(
        id=standing.id,
        state=standing.state,
        offset=standing.received,
        length=standing.length,
        partial=standing.partial,
        metadata=metadata(standing.metadata),
        created_at=standing.created_at,
        expires_at=standing.expires_at,
        file=file,
        job_id=job_id,
    )
