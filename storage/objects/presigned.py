"""Presigned URLs: signed locally, nothing is sent."""

from typing import Any

from domain.files import attachment
from storage.objects.connection import bucket, client


def presign_get(
    key: str,
    seconds: int,
    download_name: str | None = None,
    content_type: str | None = None,
    *,
    public: bool = False,
) -> str:
    """A URL that reads the object for ``seconds``.

    With ``download_name`` the store is asked to answer with that name as an attachment (RFC 6266), so that a browser
    saves the file and never shows it; with ``content_type`` to answer with that one.
    ``public`` signs for S3_PUBLIC_ENDPOINT_URL, where clients outside reach it.
    """
    params = {"Bucket": bucket(), "Key": key}
    if download_name is not None:
        params["ResponseContentDisposition"] = attachment(download_name)
    if content_type is not None:
        params["ResponseContentType"] = content_type
    return client(public=public).generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)


def presign_put(key: str, seconds: int, content_type: str | None = None, *, public: bool = False) -> str:
    """A URL that writes the object within ``seconds``; with ``content_type`` the PUT must carry that very header.

    It cannot limit the size: check ``size_of`` afterwards.
    """
    params = {"Bucket": bucket(), "Key": key} | ({"ContentType": content_type} if content_type else {})
    return client(public=public).generate_presigned_url("put_object", Params=params, ExpiresIn=seconds)


def presign_part(
    key: str, upload_id: str, number: int, seconds: int, size: int | None = None, *, public: bool = False
) -> str:
    """A URL that writes part ``number`` (from 1) of a multipart upload.

    With ``size`` its Content-Length is signed too. Not every server looks at that: check ``parts_of`` afterwards.
    """
    params: dict[str, Any] = {"Bucket": bucket(), "Key": key, "UploadId": upload_id, "PartNumber": number}
    if size is not None:
        params["ContentLength"] = size
    return client(public=public).generate_presigned_url("upload_part", Params=params, ExpiresIn=seconds)
