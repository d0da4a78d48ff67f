"""The hash tree of RFC 6962 §2.1: roots, proofs, and checking them. Pure: the broker and the command line share it.

A tree is read through `Subtrees`, which answers the hash of any complete aligned subtree; where those hashes are kept
is not this module's business. See docs/decisions/0043-merkle-log.md for why this is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

Subtrees = Callable[[int, int], bytes]
"""`(level, index)` -> the hash of the complete subtree of 2**level leaves that begins at leaf index * 2**level."""

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of one leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def joined(hashes: Sequence[bytes]) -> bytes:
    """The root above 2**n neighbouring hashes of one level."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[place], hashes[place + 1]) for place in range(0, len(hashes), 2)]
    return hashes[0]


def root(subtrees: Subtrees, size: int) -> bytes:
    """The root of the first `size` leaves."""
    return _root(subtrees, 0, size) if size else EMPTY_ROOT


def inclusion(subtrees: Subtrees, index: int, size: int) -> list[bytes]:
    """The audit path of one leaf (RFC 6962 §2.1.1), from the leaf upwards."""
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    return _path(subtrees, index, 0, size)


def consistency(subtrees: Subtrees, first: int, size: int) -> list[bytes]:
    """The proof that a tree of `first` leaves is the beginning of one of `size` (RFC 6962 §2.1.2)."""
    if not 0 < first <= size:
        raise ValueError("no such tree")
    return [] if first == size else _subproof(subtrees, first, 0, size, known=True)


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether a path proves a leaf's place in a tree (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf_hash(leaf)
    for sibling in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == expected_root


def consistent(first: int, size: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Whether a proof shows that one tree is the beginning of another (RFC 9162 §2.1.4.2)."""
    if first == size:
        return not proof and first_root == second_root
    if not 0 < first < size or not proof:
        return False
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    place, last = first - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    one = two = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            one, two = node_hash(sibling, one), node_hash(sibling, two)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            two = node_hash(two, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and one == first_root and two == second_root


def _split(count: int) -> int:
    """The largest power of two below a number of leaves."""
    return 1 << ((count - 1).bit_length() - 1)


def _root(subtrees: Subtrees, start: int, end: int) -> bytes:
    count = end - start
    if count & (count - 1) == 0:
        return subtrees(count.bit_length() - 1, start // count)
    middle = start + _split(count)
    return node_hash(_root(subtrees, start, middle), _root(subtrees, middle, end))


def _path(subtrees: Subtrees, index: int, start: int, end: int) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(subtrees, index, start, middle), _root(subtrees, middle, end)]
    return [*_path(subtrees, index, middle, end), _root(subtrees, start, middle)]


def _subproof(subtrees: Subtrees, first: int, start: int, end: int, *, known: bool) -> list[bytes]:
    if first == end:
        return [] if known else [_root(subtrees, start, end)]
    middle = start + _split(end - start)
    if first <= middle:
        return [*_subproof(subtrees, first, start, middle, known=known), _root(subtrees, middle, end)]
    return [*_subproof(subtrees, first, middle, end, known=False), _root(subtrees, start, middle)]
