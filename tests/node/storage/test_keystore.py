"""The keys of a device: complete or not at all, and nobody else's to read."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node.errors import SettingsError, StorageError
from node.storage.keystore import FILE_NAME, Keystore
from protocol.ids import AccountId, NamespaceId

KEYS = Keystore(
    signing_seed=b"s" * 32,
    box_private=b"b" * 32,
    index_key=b"i" * 32,
    staging_key=b"t" * 32,
    server="https://example.org:1#sha256=00",
    email="ann@example.org",
    device_name="Laptop of Ann",
)
ENROLLED = replace(KEYS, account=AccountId(b"a" * 32), namespace=NamespaceId(b"n" * 32))


@pytest.mark.parametrize("keys", [KEYS, ENROLLED])
def test_what_is_saved_is_loaded(tmp_path: Path, keys: Keystore):
    assert not Keystore.exists(tmp_path)
    keys.save(tmp_path)
    assert Keystore.exists(tmp_path)
    assert Keystore.load(tmp_path) == keys
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_file_is_for_its_owner_only_whatever_the_umask(tmp_path: Path):
    former = os.umask(0)
    try:
        KEYS.save(tmp_path)
    finally:
        os.umask(former)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_printing_shows_no_secret():
    text = repr(ENROLLED)
    assert "ann@example.org" in text
    for secret in (b"s", b"b", b"i", b"t"):
        assert (secret * 32).decode() not in text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int):
    KEYS.save(tmp_path)
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        Keystore.load(tmp_path)


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    KEYS.save(tmp_path / "elsewhere")
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere" / FILE_NAME)
    with pytest.raises(StorageError):
        Keystore.load(tmp_path)


def test_without_keys_it_says_how_to_get_some(tmp_path: Path):
    with pytest.raises(SettingsError, match="atoll login"):
        Keystore.load(tmp_path)


def test_every_cut_and_every_other_version_is_named_as_damage(tmp_path: Path):
    ENROLLED.save(tmp_path)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\0"]:
        path.write_bytes(damaged)
        with pytest.raises(SettingsError, match="damaged"):
            Keystore.load(tmp_path)
    path.write_bytes(whole.replace(b"\x9a\x01", b"\x9a\x02", 1))
    with pytest.raises(SettingsError, match="version"):
        Keystore.load(tmp_path)


def test_a_save_that_fails_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    KEYS.save(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError):
        ENROLLED.save(tmp_path)
    assert Keystore.load(tmp_path) == KEYS
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
