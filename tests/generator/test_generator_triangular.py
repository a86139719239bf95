import numpy as np
import pytest
import torch

from fairsynth.generator.triangular import Triangle, edges


def lower(rows, *, block, shift):
    return Triangle.lower(edges(rows, block=block), shift=shift), np.tri(rows, rows - 1 + shift, shift - 1, dtype=bool)


def upper(rows, *, block):
    return Triangle.upper(edges(rows, block=block), columns=rows), ~np.tri(rows, rows, -1, dtype=bool)


SHAPES = [lower(9, block=4, shift=3), lower(8, block=4, shift=1), lower(5, block=8, shift=2), upper(9, block=4)]


@pytest.mark.parametrize(("triangle", "exists"), SHAPES)
def test_packed_entries_are_those_that_exist_row_by_row_and_come_back(triangle, exists):
    packed = torch.arange(1, triangle.free + 1, dtype=torch.float64)
    dense = np.zeros(exists.shape)
    dense[exists] = packed
    flat = triangle.unpack(packed)
    np.testing.assert_array_equal(triangle.dense(flat, columns=exists.shape[1]), dense)
    assert torch.equal(triangle.pack(flat), packed)
    assert triangle.free == exists.sum()


@pytest.mark.parametrize(("triangle", "exists"), SHAPES)
def test_what_does_not_exist_is_set_to_zero(triangle, exists):
    flat = torch.ones(triangle.size)
    kept = triangle.keep(flat)
    np.testing.assert_array_equal(triangle.dense(kept, columns=exists.shape[1]), exists)
    assert bool((flat == 1).all())


@pytest.mark.parametrize(("triangle", "exists"), SHAPES)
def test_parts_are_the_views_and_give_the_same_gradient(triangle, exists):
    gradients = []
    for panels_of in (triangle.views, triangle.parts):
        flat = torch.arange(float(triangle.size), requires_grad=True)
        panels = panels_of(flat)
        sum((number + 1) * panel.square().sum() for number, panel in enumerate(panels)).backward()
        gradients.append((panels, flat.grad))
    (views, by_view), (parts, by_part) = gradients
    assert all(torch.equal(view, part) for view, part in zip(views, parts, strict=True))
    assert torch.equal(by_view, by_part)


def test_little_more_than_half_a_square_is_stored_and_exactly_the_triangle_travels():
    triangle = Triangle.lower(edges(2000, block=128), shift=256)
    assert triangle.free == sum(256 + row for row in range(2000))
    assert triangle.size < 1.06 * triangle.free


def test_edges_cut_rows_into_blocks():
    assert edges(9, block=4) == [0, 4, 8, 9]
    assert edges(8, block=4) == [0, 4, 8]
