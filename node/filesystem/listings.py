"""What open folders list, and the listings of folders that were read lately.

The kernel asks for a folder's entries each time a program lists it; a listing that nothing has
changed since is given again from memory. Called by the drive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from node.filesystem.values import Attributes, FolderEntry
from node.storage.tree import ItemRow, Tree
from protocol.ids import ItemId

_PAGE_ENTRIES = 512
_WINDOW_ENTRIES = 32_768  # of one open folder; a longer one is read again after a seek far back
_KEPT_ENTRIES = 65_536  # over all kept listings, some 30 MB


@dataclass(slots=True)
class Listing:
    """The entries of one open folder, read as far as somebody asked.

    Attributes:
        first: cookie of the entry before ``entries[0]``.
        after: the last name that was read.
        revision: of the tree, when it was known last that nothing in it has changed since reading began.
        concerned: the folder and everything in it.
    """

    folder: ItemId
    revision: int
    entries: list[FolderEntry] = field(default_factory=list)
    first: int = 0
    after: bytes = b""
    is_complete: bool = False
    concerned: set[ItemId] = field(default_factory=set)


class Listings:
    """Listings of a namespace's folders.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, tree: Tree, attributes: Callable[[ItemRow, int], Attributes]) -> None:
        """``attributes`` gives what an item with so many links shows."""
        self._tree = tree
        self._attributes = attributes
        self._kept: OrderedDict[ItemId, Listing] = OrderedDict()
        self._kept_entries = 0

    def open(self, folder: ItemId) -> Listing:
        """The listing of a folder: a kept one if nothing has changed since."""
        kept = self._kept.get(folder)
        if kept is not None and self._is_as_it_was(kept):
            self._kept.move_to_end(folder)
            return kept
        return Listing(folder, self._tree.revisions.number, concerned={folder})

    def _is_as_it_was(self, listing: Listing) -> bool:
        revisions = self._tree.revisions
        if revisions.have_concerned(listing.concerned, listing.revision):
            return False
        listing.revision = revisions.number
        return True

    def read(self, listing: Listing, after_cookie: int) -> Iterator[FolderEntry]:
        """Entries after a cookie, by name."""
        if after_cookie < listing.first:
            listing.entries, listing.first, listing.after = [], 0, b""
            listing.is_complete = False
            listing.revision, listing.concerned = self._tree.revisions.number, {listing.folder}
        position = after_cookie
        while True:
            while position - listing.first < len(listing.entries):
                yield listing.entries[position - listing.first]
                position += 1
            if listing.is_complete or not self._read_page(listing):
                return

    def _read_page(self, listing: Listing) -> bool:
        page = self._tree.list_folder(listing.folder, listing.after, _PAGE_ENTRIES)
        if len(listing.entries) + len(page) > _WINDOW_ENTRIES:
            half = _WINDOW_ENTRIES // 2
            del listing.entries[:half]
            listing.first += half
            listing.concerned.clear()  # it will not be kept
        cookie = listing.first + len(listing.entries)
        for name, links, row in page:
            cookie += 1
            listing.entries.append(FolderEntry(name, cookie, self._attributes(row, links)))
            listing.concerned.add(row.item)
        if page:
            listing.after = page[-1][0]
            return True
        listing.is_complete = True
        self._keep(listing)
        return False

    def _keep(self, listing: Listing) -> None:
        if listing.first or not self._is_as_it_was(listing):
            return
        replaced = self._kept.pop(listing.folder, None)
        if replaced is not None:
            self._kept_entries -= len(replaced.entries)
        self._kept[listing.folder] = listing
        self._kept_entries += len(listing.entries)
        while self._kept_entries > _KEPT_ENTRIES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_entries -= len(oldest.entries)
