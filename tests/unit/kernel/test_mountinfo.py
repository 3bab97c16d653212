"""The mount table's parser."""

from __future__ import annotations

import pytest

from holdfast.kernel.mountinfo import hides_nothing, mount_at, mounts_below, parse_mountinfo, read_mountinfo

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 0:26 / /run/hold\\040fast rw,nosuid shared:5 master:3 propagate_from:2 - tmpfs tmp\\134fs rw,size=64k
31 30 0:27 /sub//deleted /run/hold\\040fast/a\\012b ro unbindable - nfs4 host:/export rw
32 30 0:4 net:[4026532178] /run/hold\\040fast/net ro shared:6 future:1 - nsfs nsfs rw
33 22 0:28 / /run/holdfaster rw - tmpfs tmpfs rw
34 22 0:29 / /run/holdfaster rw - ramfs over rw
"""


def test_fields() -> None:
    root, run, bad, *_ = parse_mountinfo(TABLE)
    assert (root.mount_id, root.parent_id, root.device, root.fstype) == (22, 1, "254:0", "ext4")
    assert (root.shared, root.master, root.unbindable, root.readonly) == (None, None, False, False)
    assert (run.mount_point, run.source) == ("/run/hold fast", "tmp\\fs")
    assert (run.shared, run.master, run.propagate_from) == (5, 3, 2)
    assert run.super_options == ("rw", "size=64k")
    assert (bad.mount_point, bad.root) == ("/run/hold fast/a\nb", "/sub//deleted")
    assert (bad.unbindable, bad.readonly) == (True, True)


def test_unknown_optional_fields_are_skipped() -> None:
    assert parse_mountinfo(TABLE)[3].fstype == "nsfs"


@pytest.mark.parametrize("line", ["nonsense", "22 1 254:0 / / rw - ext4", "x 1 254:0 / / rw - ext4 a rw", "1 2 3"])
def test_not_a_line(line: str) -> None:
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        parse_mountinfo(line)


def test_below_compares_whole_components() -> None:
    below = mounts_below("/run/hold fast/", parse_mountinfo(TABLE))
    assert [entry.mount_id for entry in below] == [30, 31, 32]
    assert len(mounts_below("/", parse_mountinfo(TABLE))) == 6


def test_at_is_the_topmost() -> None:
    table = parse_mountinfo(TABLE)
    found = mount_at("/run/holdfaster", table)
    assert found is not None
    assert found.fstype == "ramfs"
    assert mount_at("/run", table) is None


def test_own_table_has_a_root() -> None:
    assert any(entry.mount_point == "/" for entry in read_mountinfo())


_ROOT = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:2 / /data rw - ext4 /dev/sdb rw\n"


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        (_ROOT + "9 1 8:1 /srv/own /srv/own rw shared:1 - ext4 /dev/sda rw\n", True),
        (_ROOT + "9 2 8:2 /own /data/own rw - ext4 /dev/sdb rw\n", True),
        (_ROOT + "9 1 8:1 /srv/other /srv/own rw - ext4 /dev/sda rw\n", False),
        (_ROOT + "9 1 8:2 /srv/own /srv/own rw - ext4 /dev/sdb rw\n", False),
        ("9 1 8:1 /srv/own /srv/own rw - ext4 /dev/sda rw\n", False),
        # Something mounted on the copy alone, and something that was there before and was copied with it.
        (_ROOT + "9 1 8:1 /srv/own /srv/own rw - ext4 /dev/sda rw\n"
         "3 9 0:9 / /srv/own/disk rw - tmpfs tmpfs rw\n", False),
        (_ROOT + "3 1 0:9 / /srv/own/disk rw - tmpfs tmpfs rw\n9 1 8:1 /srv/own /srv/own rw - ext4 /dev/sda rw\n"
         "4 9 0:9 / /srv/own/disk rw - tmpfs tmpfs rw\n", True),
        (_ROOT + "3 1 0:9 / /srv/own/disk rw - tmpfs tmpfs rw\n9 1 8:1 /srv/own /srv/own rw - ext4 /dev/sda rw\n"
         "4 9 0:9 / /srv/own/disk rw - tmpfs tmpfs rw\n5 4 0:10 / /srv/own/disk/more rw - tmpfs tmpfs rw\n", False),
    ],
)  # fmt: skip
def test_what_can_be_unmounted_unseen(table: str, answer: bool) -> None:
    entries = parse_mountinfo(table)
    entry = next(entry for entry in entries if entry.mount_id == 9)
    assert hides_nothing(entry, entries) is answer
