"""The service's own settings, read once from the environment; it shares nothing with Millrace but the token."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from domain.errors.neighbours import BadSetting

Count = Annotated[int, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A field's name in upper case is its variable's name; only the token has no default. Sizes are in bytes."""

    ml_service_token: Annotated[str, msgspec.Meta(min_length=16)]
    ml_profiles: str = "default"  # comma-separated
    ml_workers: Count = 2  # jobs at once; onnxruntime uses every core for one file already
    ml_queue: Count = 64  # accepted and waiting; one more is answered 429
    ml_remembered: Count = 4096  # idempotency keys, and with them the outcomes GET /jobs tells
    ml_max_input: Count = 6 * 1024**3  # above MAX_UPLOAD_BYTES, so the backend's limit is the one people meet
    ml_max_member: Count = 32 * 1024**2  # unpacked of one member; the model wants 4 KiB from either end
    ml_max_unpacked: Count = 16 * 1024**3  # of all members together, counted as really read
    ml_max_members: Count = 100_000
    ml_job_seconds: Seconds = 1800.0  # download and analysis of one job; a stalled peer must not keep a worker

    @property
    def profiles(self) -> tuple[str, ...]:
        return tuple(word for part in self.ml_profiles.split(",") if (word := part.strip()))


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables; empty values count as absent.

    Raises:
        BadSetting: a variable is missing or cannot be read; the message begins with its name.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        name = field.name.upper()
        if raw := environ.get(name, ""):
            try:
                values[field.name] = msgspec.convert(raw, field.type, strict=False)
            except msgspec.ValidationError as error:
                raise BadSetting(name=name, reason=str(error)) from None
        elif field.required:
            raise BadSetting(name=name, reason="is not set; the ML service takes no request without it")
    settings = Settings(**values)
    if not settings.profiles:
        raise BadSetting(name="ML_PROFILES", reason="names no profile")
    if settings.ml_remembered < settings.ml_queue + settings.ml_workers:
        # a key forgotten while its job runs would let the same work start twice
        raise BadSetting(name="ML_REMEMBERED", reason="must not be smaller than ML_QUEUE and ML_WORKERS together")
    return settings
