"""One member of an archive, read from the storage by its own range and unpacked on the way to the client."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, PathParameter
from litestar.response import Stream

from api.downloads import Opened, matches, read_part
from api.jobs.reading import found_with_keys
from api.objects import blocking
from api.openapi.operation import BINARY, Content, documented
from domain.accounts import Principal
from domain.archives import Member, Unpacking
from domain.errors.archives import MemberDamaged, MemberIsFolder, MemberNotLocated
from domain.errors.jobs import JobNotReady
from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import NotFound
from domain.files import UNKNOWN_TYPE, attachment, clean_name
from domain.jobs import Status
from storage import archives, objects
from storage.configuration import settings
from storage.database import autocommit

_INDEX = PathParameter(ge=0, le=2**31 - 1, description="The entry's `index` in the listing")


@get(
    "/jobs/{job_id:uuid}/zip-contents/{entry:int}",
    operation_id="download_archive_entry",
    tags=["archives"],
    summary="One file of the archive",
    **documented(
        NotFound(what="entry in this archive"),
        JobNotReady(what="archive listing", status=Status.QUEUED),
        MemberNotLocated(),
        MemberIsFolder(entry="scans/"),
        MemberDamaged(entry="scans/0001.dcm", reason="its checksum is wrong"),
        ObjectMissing(),
        StorageUnavailable(),
        gives={"*/*": Content(schema=BINARY, description="The file, unpacked")},
        headers={
            "Content-Disposition": "`attachment` under its own name (RFC 6266, Cyrillic included)",
            "Content-Length": "Bytes of the unpacked file",
            "ETag": "Changes with the content; for `If-None-Match`",
        },
        asks={"If-None-Match": ("header", "`ETag`s that are known already")},
        also={304: "`If-None-Match` names what is there: nothing is sent again"},
    ),
)
async def download_entry(
    request: Request[Any, Any, Any],
    job_id: FromPath[UUID],
    entry: Annotated[int, _INDEX],
    principal: NamedDependency[Principal],
) -> Response[Any]:
    """Only this member's bytes are read from the storage. Its size and checksum are checked: of a small one
    (`MEMBER_CHECKED_BYTES`) before the first byte is sent, of a larger one before the last; the connection is cut
    when it is damaged, so a client that counts bytes never takes it for whole."""
    member, key, size = await blocking(_located, job_id, entry, principal)
    tag = f'"{job_id}-{entry}-{member.crc32:08x}"'
    caching = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if matches(request.headers.get("if-none-match", ""), tag):
        return Response(None, status_code=304, headers=caching)
    headers = caching | {
        "Content-Disposition": attachment(clean_name(member.name) or f"entry-{entry}"),
        "Content-Length": str(member.size),
        # what a user sent is never shown as a page of ours, whatever it says it is
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    kind = member.content_type or UNKNOWN_TYPE
    head = await blocking(objects.read_range, key, member.header_offset, member.head_bytes)
    start = member.data_offset(head)
    if start + member.compressed_size > size:
        raise member.damaged("its data are cut")
    if member.size <= settings().member_checked_bytes:
        content = await blocking(_whole, member, key, start)
        return Response(content, media_type=kind, headers=headers)
    pieces = _unpacked(member, key, start)
    return Stream(Opened(await anext(pieces), pieces), media_type=kind, headers=headers)


def _located(job_id: UUID, index: int, principal: Principal) -> tuple[Member, str, int]:
    """The member with the key and the size of the archive it is in."""
    job, key, _ = found_with_keys(job_id, principal)
    if key is None or job.file is None:
        raise NotFound(what="archive in this job")
    with autocommit() as connection:
        if archives.summary(connection, job_id) is None:
            if job.file.type != "zip":  # one that has a summary extracts itself
                raise NotFound(what="archive in this job")
            raise JobNotReady(what="archive listing", status=job.status)
        member = archives.member(connection, job_id, index)
    if member is None:
        raise NotFound(what="entry in this archive")
    if member.is_folder:
        raise MemberIsFolder(entry=member.name)
    return member, key, job.file.size


def _whole(member: Member, key: str, start: int) -> bytes:
    unpacking = Unpacking(member)
    packed = objects.read_range(key, start, member.compressed_size)
    content = b"".join(unpacking.feed(packed))
    unpacking.close()
    return content


async def _unpacked(member: Member, key: str, start: int) -> AsyncGenerator[bytes, None]:
    unpacking, held = Unpacking(member), b""
    async for packed in read_part(key, start, member.compressed_size):
        pieces = unpacking.feed(packed)
        # in a thread: a piece of bzip2 or LZMA takes some 20 ms, for which nobody else should wait
        while (piece := await blocking(next, pieces, b"")) != b"":
            if held:
                yield held
            held = piece
    # the last piece is sent when all was found right: without it the answer is visibly incomplete
    unpacking.close()
    yield held


routes = [download_entry]
