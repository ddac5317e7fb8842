"""Where a thing is seen from: the query's view, and views at a given angle from it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from openilias.build.generated.surfaces import Rng
from openilias.build.generated.things import Pose, Thing, turned

Manner = Literal["above", "table", "shelf"]
View = tuple[float, float]
"""Yaw and pitch in radians, as :func:`openilias.build.generated.things.turned` takes them."""

# How far down the camera looks at standing things, as pitches.
PITCHES: dict[Manner, tuple[float, float]] = {"above": (-0.75, 0.45), "table": (-0.75, -0.08), "shelf": (-0.28, 0.1)}
MOST_TILT = 1.31  # 75 degrees: flat things are hardly more than a line beyond


def query_view(rng: Rng, thing: Thing) -> View:
    """Draw the view that the query has of a thing: nearly its front; of boxes three faces."""
    yaw, pitch = rng.uniform(-0.22, 0.22), rng.uniform(-0.16, 0.1)
    if thing.form in ("box", "book", "robot"):
        yaw, pitch = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6), rng.uniform(-0.42, -0.2)
    elif thing.parts:
        yaw, pitch = rng.uniform(-0.35, 0.35), rng.uniform(-0.4, -0.12)
    return float(yaw), float(pitch)


def direction_of(turn: Any) -> Any:
    """Return the unit vector (3,) from a thing towards the camera, in the thing's own space."""
    return turn[2]


def angle_between(first: Any, second: Any) -> float:
    """Return the angle in degrees between the directions from which two rotations see a thing."""
    cosine = float(np.clip(direction_of(first) @ direction_of(second), -1, 1))
    return float(np.degrees(np.arccos(cosine)))


def turn_away(view: View, degrees: float, rng: Rng, limits: tuple[float, float]) -> View:
    """Return a view ``degrees`` away from another; its pitch stays within ``limits`` as far as the angle allows."""
    angle, (yaw, pitch) = np.radians(degrees), view
    heading = rng.uniform(0, 2 * np.pi)
    wanted = np.clip(pitch + angle * np.sin(heading), *limits)
    other = float(np.clip(wanted, max(pitch - angle, -1.5), min(pitch + angle, 1.5)))
    cosine = (np.cos(angle) - np.sin(pitch) * np.sin(other)) / (np.cos(pitch) * np.cos(other))
    return float(yaw + np.sign(np.cos(heading)) * np.arccos(np.clip(cosine, -1, 1))), other


def tilt_away(view: View, degrees: float, roll: float) -> float:
    """Return how far the camera is off the vertical over a flat thing that lies turned by ``roll``.

    The direction to the camera is ``degrees`` from that of ``view``, or as near as this roll allows; radians.
    """
    x, y, z = direction_of(turned(yaw=view[0], pitch=view[1]))
    along = x * np.sin(roll) + y * np.cos(roll)
    middle, reach = np.arctan2(along, z), np.hypot(along, z)
    tilt = middle + np.arccos(np.clip(np.cos(np.radians(degrees)) / reach, -1, 1))
    return float(np.clip(tilt, 0, MOST_TILT))


def hero_pose(thing: Thing, view: View, degrees: float, rng: Rng, manner: Manner) -> tuple[Pose, float]:
    """Pose the thing that matters ``degrees`` away from the query's view.

    Returns:
        the pose, and the pitch of the scene: how far down the camera looks; of a scene from above, how far it is off
        the vertical.
    """
    free, small = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.05)
    roll = free if rng.random() < 0.5 else 6 * small
    distance = float(rng.uniform(1.8, 4.5))
    if manner == "above" and thing.flat:
        tilt = tilt_away(view, min(degrees, 75.0), roll)
        return Pose(turned(pitch=tilt, roll=roll, lying=True), distance), tilt
    limits = (-0.3, 0.3) if thing.flat else PITCHES[manner]
    yaw, pitch = turn_away(view, min(degrees, 75.0) if thing.flat else degrees, rng, limits)
    if thing.flat:
        yaw = float(np.clip(yaw, -MOST_TILT, MOST_TILT))
    if manner == "above":
        return Pose(turned(yaw=yaw, pitch=pitch, roll=roll), distance), float(rng.uniform(0, 0.3))
    return Pose(turned(yaw=yaw, pitch=pitch, roll=small), distance), pitch


_YAWS = (-0.7, 0.05, 0.6)
_STEEPS = (-0.1, -0.45, -0.8, -1.25)


def clutter_pose(thing: Thing, rng: Rng, manner: Manner, pitch: float) -> tuple[Pose, float, tuple[int, int] | None]:
    """Pose one of the other things of a scene.

    Returns:
        the pose; a turn in the picture to be made afterwards; for solids which of few views it is, so that their
        pictures can be kept, else None.
    """
    free, small, pick = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.05), rng.random()
    upright = rng.random() < 0.55
    if thing.parts:
        yaw = int(3 * pick)
        down = -pitch if manner != "above" else (np.pi / 2 - pitch if upright else 0.1)
        steep = int(np.argmin([abs(-s - down) for s in _STEEPS]))
        turn = turned(yaw=_YAWS[yaw], pitch=_STEEPS[steep])
        lies = manner == "above" and not upright
        return Pose(turn, 3.5), float(free if lies else small), (yaw, steep)
    distance = 1.8 + 2.5 * pick
    if manner == "above":
        roll = free if upright else 6 * small
        if not thing.flat and upright:
            down = np.pi / 2 - pitch
            return Pose(turned(yaw=free, pitch=-float(np.clip(down, 0, 1.35))), distance), 0.0, None
        return Pose(turned(pitch=min(pitch, MOST_TILT), roll=roll, lying=True), distance), 0.0, None
    aside = 0.9 * (2 * pick - 1)
    if not thing.flat:
        aside += 0.2 if aside > 0 else -0.2
    elif manner == "table" and pitch < -0.3 and upright:  # lies on the table
        tilt = float(np.clip(np.pi / 2 + pitch, 0, MOST_TILT))
        return Pose(turned(pitch=tilt, roll=6 * small, lying=True), distance), 0.0, None
    return Pose(turned(yaw=aside, pitch=pitch, roll=small), distance), 0.0, None
