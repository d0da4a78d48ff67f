"""The log's hash tree against the vectors of Certificate Transparency, and signed checkpoints."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.log import merkle
from broker.log.checkpoints import BadCheckpoint, Checkpoint, Key, note, opened

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
# The tree of https://github.com/google/certificate-transparency, of 1 to 8 leaves.
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
MANY = 70


def tree_of(leaves: list[bytes]) -> merkle.Subtrees:
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    return lambda level, index: merkle.joined(hashes[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_match_the_test_vectors(size: int) -> None:
    assert merkle.root(tree_of(LEAVES), size).hex() == ROOTS[size - 1]


def test_the_empty_tree_has_a_root() -> None:
    assert hashlib.sha256(b"").digest() == merkle.root(tree_of([]), 0)


def test_inclusion_proofs_verify_only_their_leaf() -> None:
    leaves = [bytes([number]) * 3 for number in range(MANY)]
    tree = tree_of(leaves)
    for size in range(1, MANY + 1):
        root = merkle.root(tree, size)
        for index in range(size):
            path = merkle.inclusion(tree, index, size)
            assert merkle.included(leaves[index], index, size, path, root)
            assert not merkle.included(b"another", index, size, path, root)
            assert not merkle.included(leaves[index], index + 1, size, path, root)
            assert not merkle.included(leaves[index], index, size, [*path, root], root)
            if path:
                assert not merkle.included(leaves[index], index, size, path[:-1], root)


def test_consistency_proofs_verify_only_true_prefixes() -> None:
    tree = tree_of([bytes([number]) for number in range(MANY)])
    other = tree_of([bytes([number + 1]) for number in range(MANY)])
    for size in range(1, MANY + 1):
        for first in range(1, size + 1):
            proof = merkle.consistency(tree, first, size)
            before, after = merkle.root(tree, first), merkle.root(tree, size)
            assert merkle.consistent(first, size, proof, before, after)
            assert not merkle.consistent(first, size, proof, merkle.root(other, first), after)
            assert not merkle.consistent(first, size, [*proof, after], before, after)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_missing_leaf_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        merkle.inclusion(tree_of(LEAVES), index, size)


@pytest.fixture
def private() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def key_of(private: Ed25519PrivateKey, name: str = "guestkey.log/abc123") -> Key:
    return Key(name, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def test_checkpoint_verifies_only_with_its_key(private: Ed25519PrivateKey) -> None:
    key = Key.parse(str(key_of(private)))
    made = Checkpoint(key.name, 12, bytes(range(32)))
    signed = note(made, key, private.sign(made.body().encode()))
    assert opened(signed, key) == made
    for altered in (signed.replace("\n12\n", "\n13\n"), signed[:-9], signed.replace("\n\n", "\n"), "", signed * 40):
        with pytest.raises(BadCheckpoint):
            opened(altered, key)
    with pytest.raises(BadCheckpoint, match="not signed by this key"):
        opened(signed, key_of(Ed25519PrivateKey.generate()))
    with pytest.raises(BadCheckpoint, match="not signed by this key"):
        opened(signed, key_of(private, "another.log"))


def test_invalid_log_key_is_refused(private: Ed25519PrivateKey) -> None:
    text = str(key_of(private))
    for bad in ("", "x", text[:-4], text.replace("abc123", "abc124"), " +" + text, "a b+" + text.partition("+")[2]):
        with pytest.raises(BadCheckpoint):
            Key.parse(bad)
