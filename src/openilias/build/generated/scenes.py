"""Photographs of made-up things: alone on plain ground, or among others on a surface, a table or shelves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from openilias.build.generated.camera import photograph
from openilias.build.generated.knobs import Shot, Streams
from openilias.build.generated.layers import (
    Layer,
    cast_shadow,
    cut_by_frame,
    cut_share,
    hidden_share,
    make_layer,
    paste,
    visible_box,
)
from openilias.build.generated.surfaces import Canvas, Rng, Size, ground, shelves, table
from openilias.build.generated.textures import Pixels
from openilias.build.generated.things import Patch, Pose, Thing, extent, pose_thing, spun, turned
from openilias.build.generated.views import Manner, View, angle_between, clutter_pose, hero_pose
from openilias.images.boxes import Box

_INSIDE = 0.98  # a whole thing leaves a little of the frame free


@dataclass(frozen=True)
class Taken:
    """A picture ``(h, w, 3)`` uint8 RGB, and what was measured on it.

    Attributes:
        image: the picture.
        box: of the thing that matters, tight inside the frame; None if there is none.
        viewpoint: degrees between the directions in which the query and this picture see it.
        occlusion: share of it within the frame, by alpha, that is hidden by things in front.
        crop: share of it, by alpha, that the frame cuts off.
        manner: what sort of scene it is.
    """

    image: Pixels
    box: Box | None
    viewpoint: float = 0.0
    occlusion: float = 0.0
    crop: float = 0.0
    manner: str = "studio"


def studio(rng: Rng, size: Size) -> Canvas:
    """Paint a plain ground with a soft gradient, as for a catalogue picture."""
    first, second = rng.uniform(150, 245, 2)
    tint = rng.normal(0, 5, 3)
    y = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, size[1], dtype=np.float32)[None, :, None]
    return np.asarray(np.clip(first + (second - first) * y - 14 * x * x + tint, 0, 250), np.float32)


def take_portrait(streams: Streams, size: Size, hero: Thing, view: View) -> Taken:
    """Photograph one thing from ``view`` on plain ground, filling much of the frame.

    Args:
        streams: random numbers of the picture.
        size: height and width of the picture in pixels.
        hero: the thing.
        view: yaw and pitch from which it is seen.
    """
    canvas = studio(streams.of("room"), size)
    rng = streams.of("pose")
    turn = turned(yaw=view[0], pitch=view[1], roll=float(rng.normal(0, 0.03)))
    patches = pose_thing(hero, Pose(turn, float(rng.uniform(3, 6))), 0.8 * min(size))
    wide, tall = extent(patches)
    rng = streams.of("place")
    root = rng.uniform(0.74, 0.92) * min(size[1] / wide, size[0] / tall)
    middle = (size[1] / 2 + rng.normal(0, 0.01) * size[1], size[0] / 2 + rng.normal(0, 0.01) * size[0])
    layer = make_layer(patches, root, (float(middle[0]), float(middle[1])))
    cast_shadow(canvas, layer, float(rng.uniform(0.25, 0.5)), standing=not hero.flat)
    paste(canvas, layer)
    image = photograph(streams, canvas, illumination=0.25, blur=0.15, noise=0.3)
    return Taken(image, visible_box(layer, size))


@lru_cache(maxsize=1536)
def _solid_view(thing: Thing, yaw: float, pitch: float, root: int) -> tuple[Patch, ...]:
    """Keep the pictures of the solids that fill the scenes: they have few views, and things are equal by identity."""
    return tuple(pose_thing(thing, Pose(turned(yaw=yaw, pitch=pitch), 3.5), root))


@dataclass(frozen=True)
class _Scene:
    """What the things of one picture have in common."""

    size: Size
    manner: Manner
    pitch: float
    edge: int  # the row where the floor begins
    boards: tuple[int, ...]
    shadow: float

    def clutter(
        self, thing: Thing, rng: Rng, root: float, at: tuple[float, float], *, stands: bool, most: float = 0.45
    ) -> Layer:
        """Draw another thing of ``root ** 2`` pixels at (x, y): its middle, or its foot if it ``stands``.

        It is at most ``most`` of the picture high and wide.
        """
        pose, spin, view = clutter_pose(thing, rng, self.manner, self.pitch)
        if view is None:
            patches = pose_thing(thing, pose)
        else:
            yaw, pitch = float(np.arctan2(-pose.turn[2, 0], pose.turn[2, 2])), float(np.arcsin(pose.turn[2, 1]))
            patches = list(_solid_view(thing, yaw, pitch, int(np.clip(0.13 * max(self.size), 16, 260))))
        if spin:
            patches = spun(patches, spin)
        wide, tall = extent(patches)
        root = min(root, most * self.size[0] / tall, most * self.size[1] / wide)
        return make_layer(patches, root, (at[0], at[1] - 0.5 * tall * root) if stands else at)

    def put(self, canvas: Canvas, layer: Layer) -> None:
        cast_shadow(canvas, layer, self.shadow, standing=self.manner == "table")
        paste(canvas, layer)


def _manner(rng: Rng, hero: Thing | None, degrees: float) -> Manner:
    chances = (0.4, 0.35, 0.25)
    if hero is not None and hero.flat:  # far from the front they must lie, for a wall would be seen aslant too
        chances = (0.6, 0.2, 0.2) if degrees < 30 else (1.0, 0.0, 0.0)
    return ("above", "table", "shelf")[int(np.searchsorted(np.cumsum(chances), rng.random(), "right"))]


def _room(
    streams: Streams, size: Size, manner: Manner, pitch: float, hero: Box | None, count: int
) -> tuple[Canvas, _Scene]:
    """Paint the room around the place of the hero: its foot is on the floor or on a board."""
    height = size[0]
    free = streams.of("heights").random(4)
    shadow = float(0.25 + 0.3 * free[3])
    foot = hero.y + hero.height if hero is not None else int(height * (0.5 + 0.4 * free[0]))
    edge, boards = 0, []
    room = streams.of("room")
    if manner == "above":
        canvas = ground(room, size, pitch)
    elif manner == "table":
        floor = 0.3 + 1.15 * max(0.0, -pitch) + 0.2 * (free[1] - 0.5)
        edge = int(min(height * (1 - floor), foot - 0.04 * height))
        canvas = table(room, size, edge)
    else:
        thick = max(3, int((0.018 + 0.02 * free[1]) * max(size)))
        rows = float(np.clip(np.sqrt(max(count, 1)) / 1.5, 1.6, 5))
        step = max(int(height / rows), 4 * thick)
        above = max(step, int(1.1 * hero.height) + thick) if hero is not None else step
        boards = [foot, *range(foot - above, -step, -step), *range(foot + step, height + step // 2, step)]
        canvas = shelves(room, size, boards, thick)
    return canvas, _Scene(size, manner, pitch, edge, tuple(boards), shadow)


def _evenly(start: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return points ``(count, 2)`` of an additive recurrence in the unit square: even for every count."""
    steps = np.array([0.7548776662466927, 0.5698402909980532])
    return np.asarray((start + steps * np.arange(1, count + 1)[:, None]) % 1)


def _spread(
    streams: Streams, scene: _Scene, count: int, hero: Box | None
) -> list[tuple[tuple[float, float], float, bool]]:
    """Choose where ``count`` things go, and how large they are.

    Returns:
        of each its place (x, y), the root of its area in pixels, and whether it stands on that place. The first are
        the same for any larger count.
    """
    height, width = scene.size
    rng = streams.of("spots")
    if count == 0:
        return []
    points = _evenly(rng.random(2), 12 * count + 40)
    sizes = rng.uniform(0.6, 1.35, len(points))
    spots: list[tuple[tuple[float, float], float, bool]] = []
    top = max(scene.edge, 0) if scene.manner == "table" else 0
    # More things are smaller, but not so much that they would not fill the picture more.
    step = 0.55 * float(np.sqrt((height - 0.6 * top) * width)) / count**0.3
    low, high = 0.05 * max(scene.size), 0.34 * min(scene.size)
    for (u, v), factor in zip(points, sizes, strict=True):
        root = float(np.clip(step * factor, low, high))
        x, stands = u * width, scene.manner != "above"
        if scene.manner == "above":
            y = v * height
            root *= 1 + 0.5 * np.sin(scene.pitch) * (2 * v - 1)
        elif scene.manner == "table":
            y = top + (height * 1.06 - top) * (0.04 + 0.96 * v)
            root *= 0.55 + 0.75 * (y - top) / max(height - top, 1)
        else:
            y = scene.boards[int(v * len(scene.boards))]
            root = min(root, 0.8 * height / max(1.6, len(scene.boards)))
        if hero is not None and _hides(hero, (x, y), root, stands=stands):
            continue
        spots.append(((float(x), float(y)), float(root), stands))
        if len(spots) == count:
            return spots
    # A hero that fills the picture leaves little room: the rest look out from behind its sides.
    while len(spots) < count and hero is not None:
        x = hero.x if rng.random() < 0.5 else hero.x + hero.width
        y = hero.y + rng.random() * hero.height
        spots.append(((float(np.clip(x, 0, width)), float(np.clip(y, 0, height))), low, scene.manner != "above"))
    return spots


def _hides(hero: Box, at: tuple[float, float], root: float, *, stands: bool) -> bool:
    """Tell whether a thing would be lost behind the hero, or stand before it where it may not."""
    x, y = at
    dx = abs(x - hero.x - hero.width / 2)
    if not stands:
        dy = abs(y - hero.y - hero.height / 2)
        return max(dx / max(hero.width, 1), dy / max(hero.height, 1)) < 0.44
    aside = dx > hero.width / 2 + 0.3 * root
    before = y > hero.y + hero.height + 2  # nearer than the hero: drawn behind it all the same, so it must not meet it
    if before:
        return not aside and y - 1.1 * root < hero.y + hero.height
    return dx < hero.width * 0.46 and y - 1.3 * root > hero.y


def _hero_layer(streams: Streams, size: Size, patches: Sequence[Patch], shot: Shot, manner: Manner) -> Layer:
    """Draw the hero at its size and place, cut by the frame as asked."""
    height, width = size
    wide, tall = extent(patches)
    root = min(float(np.sqrt(shot.scale * height * width)), _INSIDE * min(width / wide, height / tall))
    rng = streams.of("place")
    at = []
    for length, frame in ((wide * root, width), (tall * root, height)):
        slack = max(0.0, frame - length) / 2
        at.append(frame / 2 + rng.uniform(-slack, slack))
    layer = make_layer(patches, root, (float(at[0]), float(at[1])))
    if shot.crop > 0:
        sides = (0, 1, 2, 3) if manner == "above" else (0, 1)
        layer = cut_by_frame(layer, size, shot.crop, sides[int(streams.of("side").integers(len(sides)))])
    return layer


def _in_front(streams: Streams, scene: _Scene, things: Sequence[Thing], hero: Layer, share: float) -> list[Layer]:
    """Move things in front of the hero until they hide ``share`` of it."""
    rng = streams.of("front")
    box = visible_box(hero, scene.size)
    if box is None:
        return []
    layers: list[Layer] = []
    first = rng.uniform(0, 2 * np.pi)
    for number, thing in enumerate(things):
        angle = first + number * 2.4
        aim = share * (number + 1) / len(things)
        side = np.array([np.cos(angle), np.sin(angle) if scene.manner == "above" else abs(np.sin(angle)) * 0.5])
        side /= np.abs(side).max()
        seed = int(rng.integers(2**32))
        middle = np.array([box.x + box.width / 2, box.y + box.height / 2])
        root = float(np.sqrt(box.width * box.height * max(1.5 * aim, 0.05)))
        layer, best = None, -1.0
        for _ in range(6):  # larger, if it cannot hide enough where it hides most
            at = (float(middle[0]), float(middle[1]))
            one = scene.clutter(thing, np.random.default_rng(seed), root, at, stands=False, most=1.4)
            most = hidden_share(hero, [*layers, one], scene.size)
            if most > best:
                layer, best = one, most
            if best >= aim:
                break
            root *= 1.25
        if layer is None:
            continue
        reach = side * (np.array([box.width, box.height]) + layer.alpha.shape[::-1]) / 2
        near, far = 0.0, 1.0
        for _ in range(10):
            half = (near + far) / 2
            moved = layer.moved(*(int(v) for v in np.round(half * reach)))
            if hidden_share(hero, [*layers, moved], scene.size) > aim:
                near = half
            else:
                far = half
        layers.append(layer.moved(*(int(v) for v in np.round((near + far) / 2 * reach))))
    return layers


def _bulky(clutter: Sequence[Thing], count: int) -> list[int]:
    """Choose ``count`` things that can hide something: the first that are not thin, else the first."""
    ranked = sorted(range(len(clutter)), key=lambda number: not 0.5 < clutter[number].aspect < 2)
    return ranked[:count]


def take_scene(
    streams: Streams, size: Size, hero: Thing | None, view: View, shot: Shot, clutter: Sequence[Thing]
) -> Taken:
    """Photograph a thing among others.

    Args:
        streams: random numbers of the picture.
        size: height and width of the picture in pixels.
        hero: the thing that matters; None for a picture of the others alone.
        view: from which the query sees it.
        shot: what is asked of the picture; ``clutter`` things are given, whatever it says of their number.
        clutter: the other things, each placed once; where ``shot`` asks for occlusion one or two lie in front.
    """
    manner = _manner(streams.of("manner"), hero, shot.viewpoint)
    layer, box, angle, pitch = None, None, 0.0, float(-streams.of("pose").uniform(0.05, 0.6))
    if manner == "above":
        pitch = abs(pitch)
    if hero is not None:
        pose, pitch = hero_pose(hero, view, shot.viewpoint, streams.of("pose"), manner)
        angle = angle_between(pose.turn, turned(yaw=view[0], pitch=view[1]))
        patches = pose_thing(hero, pose, float(np.sqrt(shot.scale * size[0] * size[1])))
        layer = _hero_layer(streams, size, patches, shot, manner)
        box = visible_box(layer, size)
    canvas, scene = _room(streams, size, manner, pitch, box, len(clutter))
    wanted = 0 if layer is None or shot.occlusion <= 0 else 1 if shot.occlusion < 0.3 else 2
    front = _bulky(clutter, wanted)
    poses = streams.of("poses").integers(2**32, size=len(clutter))
    spots = _spread(streams, scene, len(clutter), box)
    # Those in front leave their places free, and the others stay where they are.
    rest = [item for number, item in enumerate(zip(clutter, poses, spots, strict=True)) if number not in front]
    for thing, seed, (at, root, stands) in sorted(rest, key=lambda item: item[2][0][1]):
        scene.put(canvas, scene.clutter(thing, np.random.default_rng(seed), root, at, stands=stands))
    hidden = cut = 0.0
    if layer is not None:
        rng = streams.of("focus")
        if rng.random() < 0.75:  # the camera is focused on the hero
            canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.3, float(rng.uniform(0.6, 2.2)) * max(size) / 500))
        scene.put(canvas, layer)
        hiding = _in_front(streams, scene, [clutter[number] for number in front], layer, shot.occlusion)
        for one in hiding:
            scene.put(canvas, one)
        hidden, cut = hidden_share(layer, hiding, size), cut_share(layer, size)
    image = photograph(streams, canvas, illumination=shot.illumination, blur=shot.blur)
    return Taken(image, box, angle, hidden, cut, manner)
