"""ZIP archives, judged from their central directory alone.

Only the end of the file and the directory are read, never the members (APPNOTE.TXT 6.3.10 is the format's source; its
section numbers stand where they matter). What is inside must not depend on who reads it, so whatever two readers could
understand differently is refused, not repaired. The sizes judged here are declared ones: whoever unpacks counts again.

The policy, code by code and warning by warning, is in docs/archives.md: what is refused, what is only told, and which
settings move the line. Warnings stand in the summary, each beginning with its word: ``prefix``, ``unreferenced``,
``backslash``, ``reserved_name``, ``colon``, ``untidy_path``, ``direction``, ``noncharacter``, ``repeated_folder``,
``folder_mark``, ``extra_field``, ``name_encoding``. ``Limits.refuse`` makes refusals of them.

==========================  ==========================================================================================
Error                       Refused
==========================  ==========================================================================================
ArchiveNotZip               no end of directory, and the file does not begin like an archive either
ArchiveTruncated            the end is missing or cut, bytes are lost before the directory, an entry is damaged, or the
                            storage gives fewer bytes than it promised
ArchiveEncrypted            any entry with a flag of encryption, or AES
ArchiveBomb                 too many entries, directory bytes or unpacked bytes, too high a ratio, overlap: by subclass
ArchiveUnsafeName           absolute, drive letter, `..`, only dots and spaces, controls, empty, too long or too deep
ArchiveUnsafeEntry          symbolic links, devices, sockets, pipes
ArchiveInconsistent         whatever depends on the reader: duplicates, contradicting local headers, hidden members, two
                            directories, data after the end (subclasses); counts, sizes and names that cannot be true
ArchiveUnsupported          unknown method, several volumes (subclasses); a signed or encrypted directory
ArchiveAgainstPolicy        a warning this installation refuses
==========================  ==========================================================================================

Accepted as ordinary: ZIP64 (also where it was not needed), data descriptors, comments, any order of members, padding in
extra fields, the marker of a single-volume span.
"""

from domain.archives.layout import Peek, check_local_headers
from domain.archives.members import Member, Unpacking
from domain.archives.ranges import RangeReader
from domain.archives.reader import ends_like_zip, inspect, is_zip_name, looks_like_zip, may_extract_itself
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
    "ends_like_zip",
    "inspect",
    "is_zip_name",
    "looks_like_zip",
    "may_extract_itself",
]
