"""Which frames of a video the current one remembers.

Sources: "SAM 2: Segment Anything in Images and Videos" (2024), section 4;
`sam2/modeling/sam2_base.py` and `sam2/modeling/sam2_utils.py`. A conditioning frame is one that
was prompted. Outputs of frames are kept as the published model keeps them, in dictionaries.
"""

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch

ALL_FRAMES = -1  # for `max_cond_frames`: no limit


class FrameMemory(TypedDict):
    """What later frames use of a frame with B objects.

    Features (B, C_mem, h, w) and a list that ends with their positions, of the same shape, both
    None where no memory was encoded; object pointers (B, C).
    """

    maskmem_features: torch.Tensor | None
    maskmem_pos_enc: list[torch.Tensor] | None
    obj_ptr: torch.Tensor


class FrameOutputs(TypedDict):
    """The frames of a video that are done, by their index."""

    cond_frame_outputs: dict[int, FrameMemory]
    non_cond_frame_outputs: dict[int, FrameMemory]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a tracker is that goes through a video forwards or backwards."""

    frame_idx: int
    num_frames: int | None = None
    track_in_reverse: bool = False

    @property
    def direction(self) -> int:
        """1 forwards, -1 backwards."""
        return -1 if self.track_in_reverse else 1

    def elapsed(self, frame_idx: int) -> int:
        """How many frames ago the tracker came by a frame; negative where it comes yet."""
        return (self.frame_idx - frame_idx) * self.direction

    def earlier(self, n_frames: int, stride: int = 1) -> list[int]:
        """The last frame, and before it each that is a multiple of `stride`: nearest first.

        Some may lie outside of the video.
        """
        now = self.frame_idx * self.direction
        latest = (now - 2) // stride * stride
        times = [now - 1, *(latest - i * stride for i in range(n_frames - 1))]
        return [time * self.direction for time in times[:n_frames]]


@dataclass(frozen=True, slots=True)
class MemoryBank:
    """The frames that a moment may remember.

    `conditioning` are always remembered, `others` where they are near: they may be conditioning
    frames too, which were not chosen.
    """

    moment: Moment
    conditioning: Mapping[int, FrameMemory]
    others: Mapping[int, FrameMemory]

    def frames(self, num_maskmem: int, stride: int = 1) -> list[tuple[int, FrameMemory]]:
        """The remembered frames, and the slot of each: the index of its temporal position.

        Conditioning frames share the last slot; the last num_maskmem - 1 frames before this one,
        or those of every `stride`, have one each, the nearest slot 0.
        """
        conditioning = [(num_maskmem - 1, output) for output in self.conditioning.values()]
        slots = enumerate(self.moment.earlier(num_maskmem - 1, stride))
        recent = [(slot, self.others[t]) for slot, t in slots if t in self.others]
        return conditioning + recent[::-1]

    def pointers(
        self, max_pointers: int, signed: bool = False, only_past: bool = False
    ) -> list[tuple[int, torch.Tensor]]:
        """Object pointers (B, C), and how many frames ago each was.

        Those of all conditioning frames (with `only_past`, of none that comes yet), then those of
        the last max_pointers - 1 frames. `signed` tells the past from the future.
        """
        ages = {t: self.moment.elapsed(t) for t in self.conditioning}
        conditioning = [
            (age if signed else abs(age), self.conditioning[t]["obj_ptr"])
            for t, age in ages.items()
            if age >= 0 or not only_past
        ]
        recent = enumerate(self.moment.earlier(max_pointers - 1), start=1)
        others = [(age, self.others[t]["obj_ptr"]) for age, t in recent if t in self.others]
        return conditioning + others


def open_bank(
    moment: Moment, outputs: FrameOutputs, max_cond_frames: int = ALL_FRAMES
) -> MemoryBank:
    """Choose the conditioning frames that a moment remembers; the rest are like any other."""
    conditioning = outputs["cond_frame_outputs"]
    if not conditioning:
        raise ValueError(f"frame {moment.frame_idx} has no conditioning frame to be tracked from")
    chosen = closest_cond_frames(conditioning, moment.frame_idx, max_cond_frames)
    passed_over = {t: output for t, output in conditioning.items() if t not in chosen}
    return MemoryBank(
        moment,
        {t: conditioning[t] for t in chosen},
        ChainMap(outputs["non_cond_frame_outputs"], passed_over),
    )


def closest_cond_frames(frames: Collection[int], frame_idx: int, max_frames: int) -> list[int]:
    """Choose at most `max_frames` frames: the closest before, the closest from here on, the rest.

    Raises ValueError for a limit that leaves no room for one on either side.
    Source: `select_closest_cond_frames`.
    """
    if max_frames == ALL_FRAMES or len(frames) <= max_frames:
        return list(frames)
    if max_frames < 2:
        raise ValueError(f"max_cond_frames_in_attn={max_frames}: at least 2, or -1 for all")
    by_distance = sorted(frames, key=lambda t: abs(t - frame_idx))
    before = [t for t in by_distance if t < frame_idx]
    after = [t for t in by_distance if t >= frame_idx]
    first = before[:1] + after[:1]
    return (first + [t for t in by_distance if t not in first])[:max_frames]
