"""What an object storage holds, looked at from outside the house."""

from collections.abc import Mapping

import boto3
from botocore.config import Config


def stored(env: Mapping[str, str], url: str | None = None) -> set[str]:
    """The keys of all objects in the bucket; ``url`` is another way to the same storage."""
    client = boto3.client(
        "s3",
        endpoint_url=url or env["S3_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=env["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=env["S3_SECRET_ACCESS_KEY"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=env["S3_BUCKET"])
        return {found["Key"] for page in pages for found in page.get("Contents", [])}
    finally:
        client.close()
