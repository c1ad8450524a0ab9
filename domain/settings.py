"""All settings, as one typed struct read from environment variables.

The name of a field in upper case is the name of its variable (``database_url`` is ``DATABASE_URL``). ``.env.example``
lists every one with its meaning, and a test keeps the two the same.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from domain import addresses, signatures, webhooks
from domain.errors.neighbours import BadSetting

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Keep = Annotated[float, msgspec.Meta(ge=0)]  # seconds; 0 is for ever
Bytes = Annotated[int, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]
Limit = Annotated[int, msgspec.Meta(ge=0)]  # 0 is none
Secret = Annotated[str, msgspec.Meta(min_length=16)]
SigningKey = Annotated[str, msgspec.Meta(min_length=32)]  # RFC 7518, section 3.2: no shorter than HS256's output

# Published in .env.example so that a first try works; production refuses them.
DEFAULT_SECRETS = frozenset({"change-me-change-me-change-me-32ch", "change-me-too-change-me-too"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read once at start by ``storage.configuration.settings``; a bad value stops the process with one clear line."""

    # the process
    millrace_env: Literal["development", "production"] = "production"
    millrace_modules: str = ""  # comma-separated; empty switches every module on
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    public_url: str  # where the ML service reaches this API for its callback, without /api/v1

    # neighbours
    database_url: str
    database_pool_size: Count = 10
    redis_url: str
    celery_broker_url: str = ""  # empty: the same Redis
    s3_endpoint_url: str
    s3_public_endpoint_url: str = ""  # empty: the same; what presigned URLs for clients start with
    s3_region: str = "us-east-1"
    s3_bucket: str = "millrace"
    s3_access_key_id: str
    s3_secret_access_key: str
    # boto3 >= 1.36 sends checksums by default, which several S3-compatible servers refuse (botocore #3352)
    s3_checksums: Literal["when_required", "when_supported"] = "when_required"

    s3_answer_seconds: Seconds = 30.0  # until a store that says nothing counts as unavailable

    # accounts
    jwt_secret: SigningKey
    access_token_seconds: Count = 3600
    admin_username: str = ""  # both set: an account with the role `admin` is made at migration
    admin_password: str = ""

    # files
    max_upload_bytes: Bytes = 5 * 1024**3
    presigned_url_seconds: Count = 900
    downloads: Literal["stream", "redirect"] = (
        "stream"  # through the API, or by a presigned URL straight from the store
    )
    deduplicate_files: bool = False  # equal bytes of one owner are one object
    direct_upload_seconds: Annotated[int, msgspec.Meta(gt=0, le=7 * 24 * 3600)] = (
        6 * 3600
    )  # S3 signs for a week at most
    upload_min_bytes_per_second: Limit = 512  # while the client is waited for; slower is cut off
    owner_uploads_at_once: Limit = 100
    owner_max_bytes: Limit = 0  # of all an owner's files
    owner_max_files: Limit = 0
    upload_leftover_seconds: Seconds = 24 * 3600.0  # what nothing names is swept at this age; longer than any upload
    upload_expires_seconds: Seconds = 24 * 3600.0  # a resumable upload, after the last byte of it that was kept
    upload_sweep_seconds: Seconds = 5.0  # between two looks for uploads that expired, or whose process died at the end
    reconcile_seconds: Seconds = 60.0  # between two bounded looks at the object storage

    # the ML service
    ml_service_url: str
    ml_service_token: Secret
    ml_profiles: str = "default"  # comma-separated
    ml_default_profile: str = "default"
    ml_decision_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    ml_signing_secret: str = ""  # whsec_...: completions may come signed (Standard Webhooks); empty: none may
    ml_request_seconds: Seconds = 10.0  # of one request in all, from connecting to the last byte of the answer
    ml_deadline_seconds: Seconds = 3600.0  # from acceptance to completion; then the service is asked
    ml_max_wait_seconds: Seconds = 4 * 3600.0  # from acceptance, however often the service says that it is at it
    ml_circuit_failures: Count = 5  # passing failures in a row after which the service is left alone
    ml_circuit_seconds: Seconds = 15.0  # until one job may try; doubled each time that fails, up to four times as long
    ml_give_up_seconds: Seconds = 24 * 3600.0  # a job that could not be submitted for so long fails

    # archives and results
    archive_max_entries: Count = 100_000
    archive_max_unpacked_bytes: Bytes = 50 * 1024**3
    archive_max_ratio: Count = 200
    archive_max_directory_bytes: Bytes = 32 * 1024**2
    archive_max_depth: Count = 32  # folders within folders; judging the worst archive takes longer with each
    archive_refuse: str = ""  # comma-separated words of warnings that are refusals in this installation
    archive_deep_reads: Annotated[int, msgspec.Meta(ge=0)] = (
        0  # ranged reads to compare all local headers with; 0: none
    )
    archive_deep_reads_on_request: Count = 5000  # the same for a job ordered with `inspection=deep`
    member_checked_bytes: Bytes = 1024**2  # members up to this size are checked whole before their first byte is sent
    dicom_max_members: Annotated[int, msgspec.Meta(ge=0)] = 1000  # whose headers are read for the summary; 0: none
    result_max_rows: Count = 100_000
    result_max_bytes: Bytes = 256 * 1024**2

    # the engine
    owner_running_jobs: Count = 100  # of one owner at once, waiting for the ML service included; more wait their turn
    owner_streams: Count = 100  # of one account open at once in one API process
    lease_seconds: Seconds = 6.0
    sweep_seconds: Seconds = 1.0
    step_memory_bytes: Limit = 2 * 1024**3  # of a process that runs steps; one that wants more ends
    step_seconds: Seconds = 300.0  # a step that runs longer counts as hanging; a pipeline's step may have its own
    redispatch_seconds: Seconds = 30.0  # a published job nobody has claimed for so long is published again
    retry_attempts: Count = 6  # of a step that fails for a passing reason; a pipeline's step may have its own policy
    retry_base_seconds: Seconds = 1.0  # before the second attempt at most; doubled each time, with full jitter
    retry_cap_seconds: Seconds = 60.0
    retry_deadline_seconds: Seconds = 3600.0  # after the first attempt began; no attempt begins later
    storage_give_up_seconds: Seconds = 24 * 3600.0  # a step the object storage is away for so long fails
    pending_expires_seconds: Seconds = 24 * 3600.0
    idempotency_seconds: Seconds = 24 * 3600.0  # for how long an answered Idempotency-Key gives its answer again

    # webhooks
    owner_webhooks: Count = 10
    webhook_request_seconds: Seconds = 15.0  # of one request in all, from the name's resolution to the answer
    webhook_retries: str = "5,300,1800,7200,18000,36000,50400,72000,86400"  # seconds between attempts
    webhook_disable_seconds: Seconds = 3 * 24 * 3600.0  # an endpoint that only failed for so long is switched off
    webhook_concurrency: Count = 32  # requests at once; endpoints that fail share half of the places
    webhook_ports: str = "443,8443"  # or any
    webhook_allowed_networks: str = ""  # comma-separated: may be called though they are not public
    webhook_encryption_keys: str = ""  # comma-separated, the first encrypts; empty: JWT_SECRET
    webhook_log_retention_seconds: Keep = 30 * 24 * 3600.0  # of a delivery, from its end

    # recordings
    mailbox_ports: str = "143,993"  # or any
    mailbox_allowed_networks: str = ""  # comma-separated: may be connected to though they are not public
    mailbox_plaintext: bool = False  # whether a mailbox may do without TLS
    mailbox_encryption_keys: str = ""  # comma-separated, the first encrypts; empty: JWT_SECRET
    mailbox_seconds: Seconds = 30.0  # for which a mail server may keep silent
    mailbox_sweep_seconds: Seconds = 5.0  # between two looks for mailboxes that are due
    recording_max_bytes: Bytes = 256 * 1024**2  # of one attachment, as encoded
    recording_listen_seconds: Seconds = 10.0  # between two bounded runs that listen to new recordings
    recording_speech_seconds: Keep = 600.0  # of a recording are listened to for speech; 0: none
    recording_retention_seconds: Keep = 0.0  # of a recording, from its arrival

    # calls
    mango_api_key: str = ""  # this and the salt: of the exchange's API; without both its notifications are refused
    mango_api_salt: str = ""
    # comma-separated: addresses and networks it may send from; the vendor's own
    mango_allowed_ips: str = "81.88.80.132,81.88.80.133,81.88.82.36,81.88.82.44,81.88.82.45"
    recording_match_seconds: Seconds = 300.0  # between a recording and the call it is of, at most
    recording_match_days: Count = 7  # for which a recording without a call is tried again
    call_retention_seconds: Keep = 0.0  # of a call without a recording, from its first notification
    mango_retention_seconds: Keep = 0.0  # of the notifications of a call, from the last one
    call_sweep_seconds: Seconds = 15.0  # between two looks for what was not applied, or not matched

    # retention, counted from the end of the job
    retention_sweep_seconds: Seconds = 60.0  # between two bounded runs
    job_retention_seconds: Keep = 90 * 24 * 3600.0  # with everything that belongs to it
    event_retention_seconds: Keep = 30 * 24 * 3600.0  # but the last event stays with the job
    attempt_retention_seconds: Keep = 30 * 24 * 3600.0

    # operators
    flower_user: str = "millrace"
    flower_password: Secret

    @property
    def broker_url(self) -> str:
        return self.celery_broker_url or self.redis_url

    @property
    def ml_probe_seconds(self) -> float:
        """How long a job that tries the ML service on behalf of all has to say how it went, its way to a worker
        included."""
        return self.ml_request_seconds + 15.0

    @property
    def webhook_delays(self) -> tuple[float, ...]:
        return webhooks.delays_of(self.webhook_retries)

    @property
    def webhook_rules(self) -> addresses.Rules:
        return addresses.rules_of(
            https_only=self.millrace_env == "production",
            ports=self.webhook_ports,
            networks=self.webhook_allowed_networks,
        )

    @property
    def webhook_keys(self) -> tuple[str, ...]:
        """What endpoints' secrets are encrypted with; the first for new ones, every one for reading."""
        return (*_words(self.webhook_encryption_keys), self.jwt_secret)

    @property
    def mailbox_rules(self) -> addresses.Rules:
        return addresses.rules_of(https_only=False, ports=self.mailbox_ports, networks=self.mailbox_allowed_networks)

    @property
    def mailbox_keys(self) -> tuple[str, ...]:
        """What mailboxes' passwords are encrypted with; the first for new ones, every one for reading."""
        return (*_words(self.mailbox_encryption_keys), self.jwt_secret)

    @property
    def mango_networks(self) -> tuple[addresses.Network, ...]:
        return addresses.networks_of(self.mango_allowed_ips)

    @property
    def profiles(self) -> tuple[str, ...]:
        return _words(self.ml_profiles)

    @property
    def refused_warnings(self) -> frozenset[str]:
        return frozenset(_words(self.archive_refuse))

    @property
    def modules(self) -> tuple[str, ...]:
        return _words(self.millrace_modules)


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables; empty values count as absent.

    Raises:
        BadSetting: a variable is missing or cannot be read; the message begins with the variable's name.
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
            raise BadSetting(name=name, reason="is not set; name a real server or secret, or start with `millrace up`")
    settings = Settings(**values)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.ml_default_profile not in settings.profiles:
        raise BadSetting(name="ML_DEFAULT_PROFILE", reason=f"is not one of ML_PROFILES ({settings.ml_profiles})")
    if settings.ml_signing_secret:
        try:
            signatures.key_of(settings.ml_signing_secret)
        except ValueError as error:
            raise BadSetting(name="ML_SIGNING_SECRET", reason=str(error)) from None
    for name, read in (
        ("webhook_retries", webhooks.delays_of),
        ("webhook_ports", addresses.ports_of),
        ("webhook_allowed_networks", addresses.networks_of),
        ("mailbox_ports", addresses.ports_of),
        ("mailbox_allowed_networks", addresses.networks_of),
        ("mango_allowed_ips", addresses.networks_of),
    ):
        try:
            read(getattr(settings, name))
        except ValueError as error:
            raise BadSetting(name=name.upper(), reason=str(error)) from None
    for name, keys in (
        ("WEBHOOK_ENCRYPTION_KEYS", settings.webhook_keys),
        ("MAILBOX_ENCRYPTION_KEYS", settings.mailbox_keys),
    ):
        if any(len(key) < 32 for key in keys):
            raise BadSetting(name=name, reason="has a key of less than 32 characters")
    for name, other in (("mango_api_key", "mango_api_salt"), ("mango_api_salt", "mango_api_key")):
        if getattr(settings, name) and not getattr(settings, other):
            raise BadSetting(name=other.upper(), reason=f"is not set, but {name.upper()} is")
    if settings.millrace_env == "production":
        for name in ("jwt_secret", "ml_service_token", "flower_password", "s3_secret_access_key", "admin_password"):
            if getattr(settings, name) in DEFAULT_SECRETS:
                raise BadSetting(name=name.upper(), reason="is the published default; production needs one of its own")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))
