"""Packed weights live as long as the weights, and are never those of others."""

import weakref

import torch

from kernelevolve.runtime.packing import Packs


def pack_of(packs: Packs, *weights: torch.Tensor) -> torch.Tensor:
    return packs.get(packs.form(weights), weights)


def test_the_same_weights_are_packed_once_whatever_view_shows_them():
    packs, w = Packs(torch.clone), torch.randn(2, 8)
    assert pack_of(packs, w[0]) is pack_of(packs, w[0])
    assert pack_of(packs, w[0]) is not pack_of(packs, w[1])
    assert pack_of(packs, w.view(16)).shape == (16,)
    assert pack_of(packs, w).shape == (2, 8)


def test_each_of_several_constants_counts():
    packs, a, b = Packs(torch.add), torch.ones(8), torch.ones(8)
    assert torch.equal(pack_of(packs, a, b), torch.full((8,), 2.0))
    b.add_(1)
    assert torch.equal(pack_of(packs, a, b), torch.full((8,), 3.0))


def test_a_pack_is_let_go_when_its_weights_have_changed_or_are_gone():
    packs, w, gone = Packs(torch.clone), torch.ones(8), torch.ones(8)
    old, lost = weakref.ref(pack_of(packs, w)), weakref.ref(pack_of(packs, gone))
    w.add_(1)
    del gone
    assert torch.equal(pack_of(packs, w), torch.full((8,), 2.0))
    assert old() is None
    assert lost() is None
