from node.core.read_pattern import NEARNESS_BYTES, ReadPattern

MIB = 1024 * 1024


def test_the_first_read_of_a_file_is_no_run():
    assert not ReadPattern().is_sequential("a", 0, MIB)


def test_a_read_that_goes_on_where_the_one_before_ended_is_a_run():
    pattern = ReadPattern()
    pattern.is_sequential("a", 0, MIB)
    assert pattern.is_sequential("a", MIB, MIB)
    assert pattern.is_sequential("a", 2 * MIB, 4096)


def test_reads_of_another_file_do_not_disturb_a_run():
    pattern = ReadPattern()
    pattern.is_sequential("a", 0, MIB)
    assert not pattern.is_sequential("b", MIB, MIB)
    assert pattern.is_sequential("a", MIB, MIB)


def test_requests_that_arrive_out_of_order_keep_the_run():
    pattern = ReadPattern()
    for block in (0, 1, 3, 2):
        pattern.is_sequential("a", block * MIB, MIB)
    assert pattern.is_sequential("a", 5 * MIB, MIB)
    assert pattern.is_sequential("a", 4 * MIB, MIB)


def test_a_read_far_away_starts_over():
    pattern = ReadPattern()
    pattern.is_sequential("a", 0, MIB)
    pattern.is_sequential("a", MIB, MIB)
    far = 2 * MIB + NEARNESS_BYTES + 1
    assert not pattern.is_sequential("a", far, MIB)
    assert pattern.is_sequential("a", far + MIB, MIB)


def test_reading_the_same_place_again_does_not_become_a_run():
    pattern = ReadPattern()
    assert not any(pattern.is_sequential("a", 0, 4096) for _ in range(10))


def test_only_so_many_files_are_remembered():
    pattern = ReadPattern(streams=2)
    for name in ("a", "b", "c"):
        pattern.is_sequential(name, 0, MIB)
    assert not pattern.is_sequential("a", MIB, MIB)
    assert pattern.is_sequential("c", MIB, MIB)
