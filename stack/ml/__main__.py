"""``python -m stack.ml --port N``: the reference ML service under uvicorn. ML_SERVICE_TOKEN must be set."""

import argparse
import logging
import os
import signal
import sys
import time

import uvicorn

from domain.errors.neighbours import BadSetting
from stack.ml.configuration import from_environ
from stack.ml.service import create_app

log = logging.getLogger("stack.ml")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stack.ml", description="The reference ML service (magika).")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    _log_lines()
    try:
        settings = from_environ(os.environ)
    except BadSetting as error:
        sys.exit(str(error))
    # uvicorn hands the signal on once it has shut down; without a handler the process would end as "killed by 15"
    signal.signal(signal.SIGTERM, lambda *_: None)
    log.info("starting on %s:%d with profiles %s", arguments.host, arguments.port, ", ".join(settings.profiles))
    uvicorn.run(
        create_app(settings),
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    log.info("stopped")
    logging.shutdown()
    # not sys.exit: a thread still inside onnxruntime or a slow socket must neither be waited for nor meet an
    # interpreter that is being taken down
    os._exit(0)


def _log_lines() -> None:
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # httpx logs every URL whole, and a presigned URL's query is a key to the object
    for name in ("httpx", "httpcore", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
