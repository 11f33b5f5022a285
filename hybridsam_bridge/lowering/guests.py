"""Results that are written straight to where a padded tensor wants them, not copied there afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hybridsam_bridge.lowering.ir import Node, aligned, layout
from hybridsam_bridge.lowering.rewrite import compose
from hybridsam_bridge.lowering.strides import dense, split_axes

_WRITERS = ("ew", "sweep")  # loops and kernels that write with any strides


@dataclass(frozen=True)
class Guest:
    """Where a node lies inside ``host``, a place: its start and strides in the host's memory."""

    host: Node
    offset: int
    strides: tuple[int, ...]

    def view(self, base: Node, arg: Node) -> tuple[int, tuple[int, ...]] | None:
        """Start and strides in the host of ``arg``, a view of the guest ``base``."""
        _, offset, strides = layout(arg)
        inner = compose(offset, strides, arg.shape, base.shape, self.strides)
        return None if inner is None else (self.offset + inner[0], inner[1])


def find_guests(nodes: Sequence[Node], roots: Collection[int], is_scalar: Mapping[int, bool]) -> dict[int, Guest]:
    """The guests among ``nodes``, by index; ``roots`` are indices of nodes that go to outputs."""
    users: dict[int, list[tuple[Node, Node]]] = {}
    for node in nodes:
        for arg in node.args:
            users.setdefault(layout(arg)[0].index, []).append((node, arg))
    found: dict[int, Guest] = {}
    for host in nodes:
        if host.op != "place" or len(host.args) != 1 or is_scalar[host.index]:
            continue
        base = layout(host.args[0])[0]
        fit = base.op in _WRITERS and base.dtype != "b" and not is_scalar[base.index] and base.index not in roots
        if not fit or base.index in found or not aligned(host.args[0]):
            continue
        offset, where = host.attrs[1][0]
        strides = split_axes(host.args[0].shape, where, base.shape)
        if strides is None:
            continue
        guest = Guest(host, offset, strides)
        if _all_can_read(guest, base, users[base.index], is_scalar):
            found[base.index] = guest
    return found


def _all_can_read(guest: Guest, base: Node, users: Iterable[tuple[Node, Node]], is_scalar: Mapping[int, bool]) -> bool:
    others = [(user, arg) for user, arg in users if user is not guest.host]
    return all(not is_scalar[user.index] and guest.view(base, arg) is not None for user, arg in others)


def frame(host: Node) -> tuple[list[int], list[int], list[int]] | None:
    """Shape of a place with one piece, where that starts on each axis and how long it is there; at most four axes.

    None where the piece's elements are not next to each other.
    """
    (offset, strides), piece = host.attrs[1][0], host.args[0]
    if len(piece.shape) != len(host.shape) or tuple(strides) != _only(dense(host.shape), piece.shape):
        return None
    starts = []
    for step, length in zip(dense(host.shape), host.shape, strict=True):
        starts.append(0 if length == 1 else offset // step)
        offset -= starts[-1] * step
    axes = [list(axis) for axis in zip(host.shape, starts, piece.shape, strict=True) if axis[0] > 1]
    while len(axes) > 1 and axes[0][0] == axes[0][2] and axes[1][0] == axes[1][2]:  # axes that are whole are one
        axes[:2] = [[axes[0][0] * axes[1][0], 0, axes[0][0] * axes[1][0]]]
    if len(axes) > 4:
        return None
    axes = [[1, 0, 1]] * (4 - len(axes)) + axes
    return [a[0] for a in axes], [a[1] for a in axes], [a[2] for a in axes]


def _only(strides: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(0 if length == 1 else step for step, length in zip(strides, shape, strict=True))
