from node.storage.standing import Standing
from tests.node.storage.indexes import item_id
from tests.node.storage.test_journal import BLOCKS, record


def test_an_item_climbs_from_local_to_the_server(index):
    standing = Standing(index.database)
    item = index.make_file("a", "four")
    assert standing.durability(item) == "local"
    assert standing.unsent_bytes() == 4
    (sent,) = index.seal()
    assert standing.durability(item) == "server"
    signed = record(1, BLOCKS[:1])
    index.database.execute("UPDATE versions SET record = ? WHERE record = ?", (signed.id, sent.id))
    index.journal.add_own(signed, BLOCKS[:1])
    assert standing.durability(item) == "local"
    assert standing.unsent_bytes() == 4
    assert standing.unsent_blocks() == 1
    index.journal.acknowledge(signed.id, 1)
    assert standing.durability(item) == "server"
    assert standing.unsent_bytes() == 0
    assert standing.unsent_blocks() == 0


def test_an_item_that_nobody_knows_waits_for_nothing(index):
    assert Standing(index.database).durability(item_id(5)) == "server"
