"""What the options of local volumes mean: rows of Docker's texts, flags of mount(2), addresses, secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidParameter
from holdfast.volumes.drivers import mounting
from holdfast.volumes.drivers.mounting import Call, Source, plan, source_of, validate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": "1"}, 'invalid option: "foo"'),
        ({"o": "ro", "foo": "1"}, 'invalid option: "foo"'),
        ({"device": "tmpfs"}, 'missing required option: "type"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"o": "ro", "device": "/x"}, 'missing required option: "type"'),
        ({"o": "ro", "type": "nfs"}, 'missing required option: "device"'),
        ({"size": "x"}, "invalid size: 'x'"),
        ({"size": "-1"}, "invalid size: '-1'"),
        ({"size": "10zb"}, "invalid suffix: 'zb'"),
        ({"size": "10m"}, "quota size requested but no quota support"),
        (
            {"type": "cifs", "device": "//host:445/share", "o": "addr=h"},
            "port not allowed in CIFS device URL, include 'port' in 'o='",
        ),
        (
            {"type": "cifs", "device": "//host:x/share"},
            'error parsing mount device url: parse "//host:x/share": invalid port ":x" after host',
        ),
        (
            {"type": "cifs", "device": "//host/a%zz"},
            'error parsing mount device url: parse "//host/a%zz": invalid URL escape "%zz"',
        ),
        (
            {"type": "cifs", "device": "//host/a\nb"},
            'error parsing mount device url: parse "//host/a\\nb": net/url: invalid control character in URL',
        ),
        ({"type": "cifs", "device": "//u:pw@host:1/s", "foo": ""}, 'invalid option: "foo"'),
    ],
)
def test_options_that_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        validate(options)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"type": "", "device": ""},
        {"type": "tmpfs", "device": "tmpfs"},
        {"type": "none", "device": "/nonexistent", "o": "bind"},
        {"type": "nosuchfs", "device": "nowhere", "o": "whatever"},
        {"size": "0"},
        {"size": "0b"},
        {"type": "cifs", "device": "//host:/share"},
        {"type": "cifs", "device": "//[fe80::1]/share"},
        {"type": "cifs", "device": ""},
    ],
)
def test_options_that_are_accepted(options: dict[str, str]) -> None:
    validate(options)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("1", 1), ("1b", 1), ("1k", 1024), ("1.5K", 1536), ("2 MB", 2 << 20), ("1GiB", 1 << 30), (".5k", 512)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert mounting.parse_size(text) == size_bytes


def test_what_needs_no_mount() -> None:
    assert source_of(None) is None
    assert source_of({"size": "0"}) is None
    assert source_of({"type": "", "device": ""}) is None
    assert source_of({"type": "tmpfs", "device": "tmpfs"}) == Source("tmpfs", "tmpfs", "")


@pytest.mark.parametrize(
    ("o", "flags", "data"),
    [
        ("", 0, ""),
        ("ro", 1, ""),
        ("ro,rw", 0, ""),
        ("rw,ro", 1, ""),
        ("rw,async", 0, ""),
        ("noexec,nosuid,nodev", 0xE, ""),
        ("noexec,exec,sync", 0x10, ""),
        ("size=100m,uid=1000", 0, "size=100m,uid=1000"),
        ("size=1m,noexec,uid=1000,foo=bar", 0x8, "size=1m,uid=1000,foo=bar"),
        ("noatime,dirsync,mand", 0x4C0, ""),
        ("nodiratime,relatime,strictatime", 0x800 | 1 << 21 | 1 << 24, ""),
        ("defaults", 0, ""),
        ("a,,b", 0, "a,,b"),
        ("RO", 0, "RO"),
    ],
)
def test_words_become_flags_and_data(o: str, flags: int, data: str) -> None:
    assert plan(Source("tmpfs", "tmpfs", o)) == (Call("mount", "tmpfs", "tmpfs", flags, data),)


def test_binds_are_restricted_and_propagated_afterwards() -> None:
    assert plan(Source("none", "/x", "bind")) == (Call("mount", "/x", "none", 0x1000, ""),)
    assert plan(Source("none", "/x", "rbind,ro")) == (
        Call("mount", "/x", "none", 0x5001, ""),
        Call("remount-ro", "", "", 0x5021, ""),
    )
    assert plan(Source("none", "/x", "bind,rslave,ro")) == (
        Call("mount", "/x", "none", 0x5001, ""),
        Call("remount", "", "", 0x84000, ""),
        Call("remount-ro", "", "", 0x5021, ""),
    )
    assert plan(Source("tmpfs", "tmpfs", "private")) == (
        Call("mount", "tmpfs", "tmpfs", 0, ""),
        Call("remount", "", "", 1 << 18, ""),
    )


@pytest.mark.parametrize(
    ("kind", "o", "flags", "data"),
    [
        ("nfs", "addr=10.0.0.10,vers=4,soft,timeo=180,bg,tcp,rw", 0, "addr=10.0.0.10,vers=4,soft,timeo=180,tcp"),
        ("nfs", "addr=10.0.0.10,rw,nfsvers=4,async", 0, "addr=10.0.0.10,nfsvers=4"),
        ("nfs", "fg,retry=0,_netdev,nofail,x-systemd.automount,addr=1.2.3.4", 0, "addr=1.2.3.4"),
        ("nfs4", "auto,comment=mine,addr=1.2.3.4,ro", 1, "addr=1.2.3.4"),
        ("cifs", "addr=1.2.3.4,username=u,password=a,,b,file_mode=0777", 0,
         "addr=1.2.3.4,username=u,password=a,,b,file_mode=0777"),
        ("ext4", "_netdev,retry=0", 0, "_netdev,retry=0"),
    ],
)  # fmt: skip
def test_words_that_only_mount_programs_know(kind: str, o: str, flags: int, data: str) -> None:
    assert plan(Source(kind, "d", o)) == (Call("mount", "d", kind, flags, data),)


@pytest.mark.parametrize(
    ("kind", "device", "o", "host", "device_after", "o_after"),
    [
        ("nfs", ":/x", "addr=h.example,rw", "h.example", ":/x", "addr=9.9.9.9,rw"),
        ("nfs", ":/x", "clientaddr=h.example,addr=h.example", "h.example", ":/x",
         "clientaddr=h.example,addr=9.9.9.9"),
        ("nfs", "srv:/x", "mountaddr=h,soft", "srv", "srv:/x", "mountaddr=h,soft,addr=9.9.9.9"),
        ("nfs4", ":/x", "addr=h", "h", ":/x", "addr=9.9.9.9"),
        ("cifs", "//h.example/s", "addr=h.example,username=u", "h.example", "//h.example/s",
         "addr=9.9.9.9,username=u"),
        ("cifs", "//h.example/my%20share/a+b", "username=u", "h.example", "//9.9.9.9/my share/a+b", "username=u"),
        ("cifs", "//h.example/s", "addr=1.2.3.4", "h.example", "//9.9.9.9/s", "addr=1.2.3.4"),
    ],
)  # fmt: skip
def test_host_names_become_addresses(
    kind: str, device: str, o: str, host: str, device_after: str, o_after: str
) -> None:
    source = Source(kind, device, o)
    assert mounting.host_to_resolve(source) == host
    assert mounting.with_address(source, "9.9.9.9") == Source(kind, device_after, o_after)


@pytest.mark.parametrize(
    ("kind", "device", "o"),
    [
        ("nfs", ":/x", "addr=10.0.0.1"),
        ("nfs", ":/x", "addr=fe80::1"),
        ("nfs", ":/x", ""),
        ("nfs", "10.0.0.1:/x", ""),
        ("nfs", "[fe80::1]:/x", ""),
        ("cifs", "//10.0.0.1/s", "username=u"),
        ("cifs", "//[fe80::1]/s", ""),
        ("ext4", "/dev/sda", "addr=name"),
        ("none", "host:/x", "bind"),
    ],
)
def test_nothing_to_resolve(kind: str, device: str, o: str) -> None:
    assert mounting.host_to_resolve(Source(kind, device, o)) == ""


def test_nfs_learns_the_address_that_its_device_names() -> None:
    assert mounting.with_known_address(Source("nfs", "10.0.0.1:/x", "soft")).o == "soft,addr=10.0.0.1"
    assert mounting.with_known_address(Source("nfs", "[fe80::1]:/x", "")).o == "addr=fe80::1"
    for unchanged in (Source("nfs", ":/x", "soft"), Source("nfs", "1.1.1.1:/x", "addr=2.2.2.2")):
        assert mounting.with_known_address(unchanged) == unchanged


@pytest.mark.parametrize(
    ("kind", "device", "o", "server"),
    [
        ("nfs", ":/x", "addr=10.0.0.1", ("10.0.0.1", 2049)),
        ("nfs4", "srv:/x", "port=20049", ("srv", 20049)),
        ("cifs", "//h/s", "", ("h", 445)),
        ("cifs", "//h/s", "ip=1.1.1.1,port=4450", ("1.1.1.1", 4450)),
        ("nfs", ":/x", "port=abc", ("", 2049)),
    ],
)
def test_servers(kind: str, device: str, o: str, server: tuple[str, int]) -> None:
    assert mounting.server_of(Source(kind, device, o)) == server


def test_credentials_files() -> None:
    source = Source("cifs", "//h/s", "credentials=/etc/secret,file_mode=0600")
    assert mounting.credentials_file(source) == "/etc/secret"
    filled = mounting.with_credentials(source, "username=me\n# note\npassword=a,b=c\nuser=other\ndomain=D\n")
    assert filled.o == "file_mode=0600,username=me,password=a,,b=c,username=other,domain=D"
    assert mounting.credentials_file(Source("nfs", ":/x", "credentials=/x")) == ""


SECRET = "s3cret"


@pytest.mark.parametrize(
    ("o", "shown"),
    [
        (f"password={SECRET}", "password=********"),
        (f"username=u,password={SECRET},vers=3", "username=u,password=********,vers=3"),
        (f"pass={SECRET},passwd={SECRET},PASSWORD2={SECRET}", "pass=********,passwd=********,PASSWORD2=********"),
        (f"password={SECRET},,{SECRET},vers=3", "password=********,vers=3"),
        (f"password={SECRET}={SECRET}", "password=********"),
        (f"credentials=/{SECRET},ro", "credentials=********,ro"),
        ("addr=1.2.3.4,passthrough=1", "addr=1.2.3.4,passthrough=1"),
    ],
)
def test_secrets_are_masked(o: str, shown: str) -> None:
    assert mounting.mask(o) == shown
    text = Call("mount", f"//u:{SECRET}@h/s", "cifs", 1, o).describe("/mp", "permission denied")
    assert text == f"mount //u:********@h/s:/mp, flags: 0x1, data: {shown}: permission denied"


def test_texts_of_failures() -> None:
    assert (
        Call("mount", ":/x", "nfs", 0, "addr=127.0.0.1,nolock").describe("/v/_data", "no such device")
        == "mount :/x:/v/_data, data: addr=127.0.0.1,nolock: no such device"
    )
    assert (
        Call("mount", "/nonexistent", "none", 0x1000, "").describe("/v/_data", "no such file or directory")
        == "mount /nonexistent:/v/_data, flags: 0x1000: no such file or directory"
    )
    assert (
        Call("remount-ro", "", "", 0x1021, "").describe("/v/_data", "invalid argument")
        == "remount-ro /v/_data, flags: 0x1021: invalid argument"
    )


words = st.one_of(
    st.sampled_from([*mounting._FLAGS, "size=1m", "addr=1.2.3.4", "defaults", "bg", "", "x-y"]),
    st.text(alphabet=st.characters(exclude_characters=",", codec="utf-8"), max_size=12),
)


@given(st.lists(words, max_size=8), st.sampled_from(["tmpfs", "nfs", "cifs", "none", "ext4"]))
def test_any_words_make_a_plan(chosen: list[str], kind: str) -> None:
    first, *more = plan(Source(kind, "d", ",".join(chosen)))
    assert first.flags & mounting._PROPAGATION == 0
    assert all(call.source == call.fstype == call.data == "" for call in more)
    assert not set(first.data.split(",")) & set(mounting._FLAGS)


@given(st.text(alphabet="abc,=0", max_size=10), st.sampled_from(["password", "pass", "passwd", "password2"]))
def test_no_secret_is_ever_shown(tail: str, key: str) -> None:
    secret = "S" + tail.replace(",", ",,") + "S"
    text = Call("mount", "d", "cifs", 0, f"username=u,{key}={secret},vers=3").describe("/mp", "why")
    assert secret not in text
    assert "vers=3" in text


@given(st.dictionaries(st.sampled_from(["type", "o", "device", "size", "foo"]), st.text(max_size=12)))
def test_any_options_are_accepted_or_refused(options: dict[str, str]) -> None:
    try:
        validate(options)
    except InvalidParameter:
        return
    assert "foo" not in options
