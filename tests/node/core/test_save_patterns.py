import pytest

from node.core.save_patterns import is_temporary_name


@pytest.mark.parametrize(
    "name",
    [
        b"notes.txt~",
        b"#notes.txt#",
        b".#notes.txt",
        b".~lock.letter.odt#",
        b".notes.txt.swp",
        b".notes.txt.swx",
        b".notes.txt.swpx",
        b"4913",
        b".goutputstream-X1Y2Z3",
        b"download.part",
        b"download.crdownload",
        b"letter.tmp",
        b".notes.txt.Ab3dE9",
        b"sedAb3dE9",
        b"tmp_obj_Ab3dE9",
        b"tmp_pack_Ab3dE9",
        b"index.lock",
        b"\xff\n~",
    ],
)
def test_names_on_the_way_to_another_wait(name):
    assert is_temporary_name(name)


@pytest.mark.parametrize(
    "name",
    [
        b"notes.txt",
        b".bashrc",
        b".gitignore",
        b"4913.txt",
        b"Makefile",
        b"sedan",
        b"sedate.txt",
        b"locksmith",
        b"package-lock.json",
        b"tmp",
        b"template",
        b"#1 hit.mp3",
        b"\xff\xfe",
        b"a~b",
    ],
)
def test_names_of_files_that_stay_do_not(name):
    assert not is_temporary_name(name)
