"""ZIP archives, judged from their central directory alone.

Only the end of the file and the directory are read, never the members (APPNOTE.TXT 6.3.10 is the format's source; its
section numbers stand where they matter). What is inside must not depend on who reads it, so whatever two readers could
understand differently is refused, not repaired. The sizes judged here are declared ones: whoever unpacks counts again.

=====================  ===============================================================================================
Error                  Refused
=====================  ===============================================================================================
ArchiveNotZip          no end of directory, and the file does not begin like an archive either
ArchiveTruncated       the end is missing or cut, bytes are lost before the directory, a directory entry is damaged,
                       the storage gives fewer bytes than it promised
ArchiveEncrypted       any entry with a flag of encryption, or AES
ArchiveBomb            more entries, directory bytes or unpacked bytes than the limits; an entry or the whole above the
                       ratio; members that overlap (Fifield)
ArchiveUnsafeName      absolute, drive letter, `..` (with either slash), parts of only dots and spaces, control
                       characters, empty, longer or deeper than the limits
ArchiveUnsafeEntry     symbolic links, devices, sockets, pipes
ArchiveInconsistent    two ends of directory, data after the end, counts, sizes or offsets that cannot be true, names
                       that meet after NFC, case folding and cleaning of the path, a file that is also a folder, a local
                       header or data descriptor (where visible) against the directory, hidden members (where visible),
                       a name marked as UTF-8 that is not, a Unicode name that belongs to another path
ArchiveUnsupported     several volumes, a method other than stored, deflated, bzip2 and lzma (what the unpacking side
                       can read), a signed or encrypted directory, a prefix too large to look through
=====================  ===============================================================================================

Accepted as ordinary: ZIP64 (also where it was not needed), data descriptors, comments, any order of members, padding in
extra fields, the marker of a single-volume span. Accepted with a warning in the summary, each beginning with its word:
``prefix``, ``unreferenced``, ``backslash``, ``reserved_name``, ``colon``, ``untidy_path``, ``direction``,
``repeated_folder``, ``folder_mark``, ``extra_field``.
"""

from domain.archives.layout import Peek, check_local_headers
from domain.archives.members import Member, Unpacking
from domain.archives.ranges import RangeReader
from domain.archives.reader import inspect, is_zip_name, looks_like_zip
from domain.archives.shapes import Entry, Limits, Listing, Summary

__all__ = [
    "Entry",
    "Limits",
    "Listing",
    "Member",
    "Peek",
    "RangeReader",
    "Summary",
    "Unpacking",
    "check_local_headers",
    "inspect",
    "is_zip_name",
    "looks_like_zip",
]
