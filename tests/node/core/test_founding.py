"""A new account's logs verify, and exactly the right keys open what they carry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.core.account_keys import (
    DeviceKeyPair,
    GenerationKeys,
    RootKeys,
    open_device_names,
    open_epochs,
    open_generations,
    open_generations_by_root,
)
from node.core.founding import FoundingSecrets, enrol_device, found_account, found_namespace
from protocol.crypto.keys import EpochKeys
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.errors import RemoteProtocolError
from protocol.ids import AccountId
from protocol.logs import AccountLog, Epoch, NamespaceLog, Role, events_from_wire

SECRETS = FoundingSecrets(b"r" * 32, b"g" * 32, b"e" * 32, b"a" * 16, b"n" * 16)
ROOT = RootKeys.from_secret(SECRETS.root)
TIME_US = 1_700_000_000_000_000


def device(seed: int) -> DeviceKeyPair:
    return DeviceKeyPair(SigningKey(bytes([seed]) * 32), BoxKey(bytes([seed + 100]) * 32))


LAPTOP, PHONE = device(1), device(2)
FOUNDING = found_account(SECRETS, LAPTOP, "Läptop", TIME_US)


def test_both_logs_verify_from_their_wire_form_alone():
    wire = [event.to_wire() for event in FOUNDING.account_events]
    account = AccountLog.from_events(events_from_wire(wire))
    assert (account.id, account.head, account.length) == (
        FOUNDING.account.id,
        FOUNDING.account.head,
        3,
    )
    wire = [event.to_wire() for event in FOUNDING.namespace_events]
    namespace = NamespaceLog.from_events(events_from_wire(wire), lambda _: account)
    assert namespace.id == FOUNDING.namespace.id
    assert namespace.members == {account.id: Role.OWNER}
    assert [epoch.number for epoch in namespace.epochs] == [1]


def test_the_device_opens_the_epoch_that_was_drawn():
    generations = open_generations(FOUNDING.account, LAPTOP.id, LAPTOP.box)
    assert {n: keys.secret for n, keys in generations.items()} == {1: SECRETS.generation}
    epochs = open_epochs(FOUNDING.namespace, FOUNDING.account.id, generations)
    assert epochs == {1: EpochKeys.from_secret(FOUNDING.namespace.id, 1, SECRETS.epoch)}


def test_a_second_device_opens_the_same_after_the_root_enrolled_it():
    generations = open_generations_by_root(FOUNDING.account, ROOT)
    event = enrol_device(FOUNDING.account, ROOT, PHONE, "phone", generations, TIME_US)
    account = FOUNDING.account.append(event)
    opened = open_generations(account, PHONE.id, PHONE.box)
    assert open_epochs(FOUNDING.namespace, account.id, opened)[1].number == 1
    assert open_device_names(account, opened) == {LAPTOP.id: "Läptop", PHONE.id: "phone"}


def test_a_stranger_opens_nothing():
    with pytest.raises(RemoteProtocolError, match="not enrolled"):
        open_generations(FOUNDING.account, PHONE.id, PHONE.box)
    with pytest.raises(RemoteProtocolError, match="does not open"):
        open_generations(FOUNDING.account, LAPTOP.id, PHONE.box)
    with pytest.raises(RemoteProtocolError, match="another root key"):
        open_generations_by_root(FOUNDING.account, RootKeys.from_secret(b"x" * 32))
    assert open_epochs(FOUNDING.namespace, AccountId(b"x" * 32), {}) == {}


def test_a_device_of_one_name_and_another_account_is_not_confused():
    other = found_account(replace(SECRETS, account_salt=b"b" * 16), LAPTOP, "x", TIME_US)
    assert other.account.id != FOUNDING.account.id
    grafted = replace(
        FOUNDING.account,
        devices={LAPTOP.id: other.account.devices[LAPTOP.id]},
    )
    with pytest.raises(RemoteProtocolError, match="not made as generation-to-device"):
        open_generations(grafted, LAPTOP.id, LAPTOP.box)


def test_a_generation_that_opens_to_another_key_is_refused():
    generation = replace(FOUNDING.account.generations[0], box_public=PHONE.box.public)
    forged = replace(FOUNDING.account, generations=(generation,))
    with pytest.raises(RemoteProtocolError, match="another key than the log names"):
        open_generations(forged, LAPTOP.id, LAPTOP.box)


def test_an_epoch_that_does_not_match_its_commitment_is_refused():
    generations = open_generations(FOUNDING.account, LAPTOP.id, LAPTOP.box)
    (epoch,) = FOUNDING.namespace.epochs
    forged = replace(FOUNDING.namespace, epochs=(replace(epoch, commitment=b"c" * 32),))
    with pytest.raises(RemoteProtocolError, match="committed"):
        open_epochs(forged, FOUNDING.account.id, generations)


def test_an_epoch_sealed_to_an_unknown_generation_is_refused():
    (epoch,) = FOUNDING.namespace.epochs
    account = FOUNDING.account.id
    later: Epoch = replace(epoch, wraps={account: (2, epoch.wraps[account][1])})
    with pytest.raises(RemoteProtocolError, match="generation 2"):
        open_epochs(replace(FOUNDING.namespace, epochs=(later,)), account, {})


def test_a_name_that_does_not_open_is_shown_as_the_id_and_controls_are_made_visible():
    strange = GenerationKeys.from_secret(1, b"z" * 32)
    (name,) = open_device_names(FOUNDING.account, {1: strange}).values()
    assert name.startswith("dev-")
    nasty = found_account(SECRETS, LAPTOP, "a\x1b[31m/b\n", TIME_US).account
    opened = open_generations(nasty, LAPTOP.id, LAPTOP.box)
    assert open_device_names(nasty, opened) == {LAPTOP.id: "a?[31m?b?"}


def test_another_namespace_of_the_account_has_another_id_and_other_keys():
    log, events = found_namespace(FOUNDING.account, LAPTOP, b"m" * 16, b"f" * 32, TIME_US)
    assert log.id != FOUNDING.namespace.id
    assert len(events) == 2
    generations = open_generations(FOUNDING.account, LAPTOP.id, LAPTOP.box)
    assert open_epochs(log, FOUNDING.account.id, generations)[1].namespace == log.id
