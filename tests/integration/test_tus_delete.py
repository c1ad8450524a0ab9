"""DELETE of tus 1.0.0: an upload is ended; a file that was made of it stays."""

import os

from tests.tus_client import TUS, Tus

MIB = 1024**2


def test_what_is_ended_is_gone_and_the_file_of_a_complete_upload_stays(tus: Tus) -> None:
    begun = tus.create(20 * MIB)
    tus.patch(begun, 0, os.urandom(6 * MIB))
    assert tus.http.delete(f"{tus.url}{begun}", headers=TUS).status_code == 204
    assert tus.head(begun).status_code == 404
    assert tus.patch(begun, 6 * MIB, b"x").status_code == 404
    assert tus.http.delete(f"{tus.url}{begun}", headers=TUS).status_code == 404
    kept = tus.create(3)
    made = tus.patch(kept, 0, b"abc").headers["Millrace-File"]
    assert tus.http.delete(f"{tus.url}{kept}", headers=TUS).status_code == 204
    assert tus.http.get(f"/download/{made}").content == b"abc"
